"""One mount through the kernel's protocol itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from zerofs import mounttable
from zerofs.errors import MountpointError
from zerofs.frontend.fuse.native import device, replies
from zerofs.frontend.fuse.native.server import Server
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.fs.filesystem import Filesystem
from zerofs.world import World


@contextmanager
def open_session(fs: Filesystem, path: str, options: FuseOptions, world: World) -> Iterator["NativeSession"]:
    """See `session.OpenSession`."""
    if obstacle := mounttable.fuse_obstacle(allow_other=options.allow_other):
        raise MountpointError(f"cannot mount at {path}: {obstacle}")
    descriptor = device.connect(path, options)
    try:
        yield NativeSession(descriptor, Server(fs, descriptor, options, world))
    finally:
        os.close(descriptor)


class NativeSession:
    """See `session.Session`. Only `stop` ends the server from our side: cancellation does not reach it."""

    def __init__(self, descriptor: int, server: Server) -> None:
        self.ready = server.ready
        self.ended = trio.Event()
        self.failure: Exception | None = None
        self._descriptor = descriptor
        self._server = server
        self._scope = trio.CancelScope(shield=True)

    async def run(self) -> None:
        """See `session.Session`."""
        try:
            with self._scope:
                await self._server.run()
        except Exception as error:
            self.failure = error
        finally:
            self.ended.set()
            self.ready.set()

    def stop(self) -> None:
        """See `session.Session`."""
        self._scope.cancel()

    def invalidate(self, inode: int) -> None:
        """See `session.Session`."""
        os.write(self._descriptor, replies.inode_changed(inode))
