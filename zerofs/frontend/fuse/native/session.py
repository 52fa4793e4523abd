"""One mount through the kernel's protocol itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from zerofs import mounttable
from zerofs.errors import MountpointError
from zerofs.frontend.fuse.native import device, replies
from zerofs.frontend.fuse.native.server import Server
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.frontend.fuse.session import Session
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


class NativeSession(Session):
    """See `session.Session`."""

    def __init__(self, descriptor: int, server: Server) -> None:
        super().__init__()
        self.ready = server.ready
        self._descriptor = descriptor
        self._server = server

    async def _answer(self) -> None:
        await self._server.run()

    def invalidate(self, inode: int) -> None:
        """See `session.Session`."""
        os.write(self._descriptor, replies.inode_changed(inode))
