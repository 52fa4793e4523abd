"""One mount through pyfuse3, which keeps its session in module globals: one mount at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pyfuse3

from zerofs import mounttable
from zerofs.errors import MountpointError
from zerofs.frontend.fuse.libfuse.operations import Operations
from zerofs.frontend.fuse.libfuse.stay_awake import staying_awake
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.frontend.fuse.session import Session
from zerofs.fs.filesystem import Filesystem
from zerofs.world import World

_IDLE_WORKERS = 8
_MOST_WORKERS = 512
"""Requests that wait for the store at the same time. With all of them waiting, cached reads would wait too."""


@contextmanager
def open_session(fs: Filesystem, path: str, options: FuseOptions, world: World) -> Iterator["LibfuseSession"]:
    """See `session.OpenSession`."""
    session = LibfuseSession()
    try:
        pyfuse3.init(Operations(fs, options, session.ready.set), path, mount_options(options))
    except RuntimeError as exc:
        if "mount" in str(exc):
            pyfuse3.close(unmount=False)
        raise MountpointError(f"cannot mount at {path}: {_reason(options)}") from exc
    try:
        with staying_awake(world) if options.stay_awake else nullcontext():
            yield session
    finally:
        # Never with its own unmounting: that looks at the path only, and something else may be mounted there by now.
        pyfuse3.close(unmount=False)


class LibfuseSession(Session):
    """See `session.Session`."""

    async def _answer(self) -> None:
        await pyfuse3.main(min_tasks=_IDLE_WORKERS, max_tasks=_MOST_WORKERS)

    def invalidate(self, inode: int) -> None:
        """See `session.Session`."""
        pyfuse3.invalidate_inode(inode)


def mount_options(options: FuseOptions) -> set[str]:
    """The options of mount(2) and libfuse. 1 MiB requests are libfuse's default, as is nosuid, nodev."""
    fsname = options.fsname.encode("ascii", "replace").decode().replace("\\", "\\\\").replace(",", "\\,")
    chosen = {"default_permissions", f"fsname={fsname}", "subtype=zerofs"}
    if options.allow_other:
        chosen.add("allow_other")
    if options.read_only:
        chosen.add("ro")
    return chosen


def _reason(options: FuseOptions) -> str:
    """Why mounting failed, as far as it can be seen from here."""
    if obstacle := mounttable.fuse_obstacle(allow_other=options.allow_other):
        return obstacle
    if os.geteuid() == 0:
        return "mount(2) was refused; the container's rules may forbid it"
    return "fusermount3 refused; what it said stands above"
