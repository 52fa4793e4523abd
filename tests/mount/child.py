"""Mounts one kind of filesystem and serves it until it is unmounted or told to stop: the other side of `conftest`.

python -m tests.mount.child KIND MOUNTPOINT OPTIONS-AS-JSON
"""

import json
import logging
import sys

import trio

from benches.null_fs import NullFilesystem, mount
from zerofs.errors import ZerofsError
from zerofs.frontend.fuse import mount as frontend
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.fs.filesystem import Filesystem
from zerofs.fs.options import FilesystemOptions
from zerofs.testing.engine import FakeEngine
from zerofs.world import World


class BrokenFilesystem(NullFilesystem):
    """Has a bug for some names."""

    async def lookup(self, caller, parent, name):
        if name.startswith(b"bug"):
            raise ZeroDivisionError(name)
        return await super().lookup(caller, parent, name)


class StuckFilesystem(NullFilesystem):
    """Never answers an fsync."""

    async def fsync(self, handle, datasync):
        await trio.sleep_forever()


async def serve(kind, mountpoint, options):
    if kind != "zerofs":
        made = {"null": NullFilesystem, "broken": BrokenFilesystem, "stuck": StuckFilesystem}[kind]()
        await mount(made, mountpoint, options)
        return
    fs = await Filesystem.mount(FakeEngine(), FilesystemOptions(), World())
    async with trio.open_nursery() as nursery:
        await nursery.start(fs.run)
        await mount(fs, mountpoint, options)
        nursery.cancel_scope.cancel()
    await fs.close()


def main():
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    kind, mountpoint, options = sys.argv[1:]
    frontend.LINGER_S = 1.0
    try:
        trio.run(serve, kind, mountpoint, FuseOptions(**json.loads(options)))
    except* ZerofsError as group:
        print(group.exceptions[0], file=sys.stderr)
        sys.exit(20)


if __name__ == "__main__":
    main()
