"""What a driver offers to `mount`: a connection to the kernel that is there and waits to be answered."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import trio

from zerofs.frontend.fuse.options import FuseOptions
from zerofs.fs.filesystem import Filesystem
from zerofs.world import World


class Session(Protocol):
    """One mount from its driver's side."""

    ready: trio.Event
    """The kernel has begun to talk, or never will."""

    ended: trio.Event
    """No more answers are needed, or none can be given."""

    failure: Exception | None
    """Why none can be given."""

    async def run(self) -> None:
        """Answer until the kernel closes the connection, or `stop` is called. Nothing else stops it, and no error."""

    def stop(self) -> None:
        """Answer nothing more."""

    def invalidate(self, inode: int) -> None:
        """Let the kernel forget what it keeps of an inode. Blocks: it may wait for reads, which have to be answered.

        Raises OSError: the kernel knows the inode no more.
        """


OpenSession = Callable[[Filesystem, str, FuseOptions, World], AbstractContextManager[Session]]
"""Mounts at a path; leaving closes the connection. Unmounting is the caller's. Raises MountpointError."""
