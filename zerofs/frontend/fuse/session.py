"""What a driver offers to `mount`: a connection to the kernel that is there and waits to be answered."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

import trio

from zerofs.frontend.fuse.options import FuseOptions
from zerofs.fs.filesystem import Filesystem
from zerofs.world import World


class Session(ABC):
    """One mount from its driver's side. Only `stop` ends it from ours: cancellation from above does not reach it."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        """The kernel has begun to talk, or never will."""
        self.ended = trio.Event()
        """No more answers are needed, or none can be given."""
        self.failure: Exception | None = None
        """Why none can be given."""
        self._scope = trio.CancelScope(shield=True)

    async def run(self) -> None:
        """Answer until the kernel closes the connection, or `stop` is called. Raises nothing: see `failure`."""
        try:
            with self._scope:
                await self._answer()
        except Exception as error:
            self.failure = error
        finally:
            self.ended.set()
            self.ready.set()

    def stop(self) -> None:
        """Answer nothing more."""
        self._scope.cancel()

    @abstractmethod
    async def _answer(self) -> None:
        """Answer until the kernel closes the connection; `ready` is set when it has begun to talk."""

    @abstractmethod
    def invalidate(self, inode: int) -> None:
        """Let the kernel forget what it keeps of an inode. Blocks: it may wait for reads, which have to be answered.

        Raises OSError: the kernel knows the inode no more.
        """


OpenSession = Callable[[Filesystem, str, FuseOptions, World], AbstractContextManager[Session]]
"""Mounts at a path; leaving closes the connection. Unmounting is the caller's. Raises MountpointError."""
