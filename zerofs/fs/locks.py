"""Locks by inode number, taken in order, free of charge while nobody competes.

Who holds what: an operation that changes inodes, or names in directories, holds the lock of each of them; access times
and lookup counts need none. Reading takes none. `TREE` comes before all: it is held by renames that move a directory to
another parent. All locks of an operation are taken with one call, in ascending order, hence no deadlock.
"""

from collections.abc import Iterable
from types import TracebackType

import trio

TREE = 0
"""The lock of the tree's shape: who is whose ancestor. No inode has this number."""


class Held:
    """Locks that were taken: a context manager that gives them back."""

    __slots__ = ("_inodes", "_locks")

    def __init__(self, locks: "InodeLocks", inodes: Iterable[int]) -> None:
        self._locks = locks
        self._inodes = inodes

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._locks.release(self._inodes)


class InodeLocks:
    """All locks of one filesystem. A lock exists while it is held; a waiting line exists while somebody waits."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, trio.lowlevel.ParkingLot | None] = {}

    def __len__(self) -> int:
        return len(self._held)

    def is_held(self, inode: int) -> bool:
        """Whether some operation holds the lock."""
        return inode in self._held

    async def hold(self, *inodes: int) -> Held:
        """Take the locks: `with await locks.hold(a, b):`. No checkpoint if all are free. First come, first served."""
        held = self._held
        if len(inodes) == 1 and inodes[0] not in held:
            held[inodes[0]] = None
            return Held(self, inodes)
        taken: list[int] = []
        try:
            for inode in sorted(set(inodes)):
                if inode in held:
                    lot = held[inode]
                    if lot is None:
                        lot = held[inode] = trio.lowlevel.ParkingLot()
                    await lot.park()  # whoever releases hands the lock over: it never becomes free in between
                else:
                    held[inode] = None
                taken.append(inode)
        except BaseException:
            self.release(taken)
            raise
        return Held(self, taken)

    def release(self, inodes: Iterable[int]) -> None:
        """Give locks back: each to the next in its line, if there is one."""
        held = self._held
        for inode in inodes:
            lot = held[inode]
            if lot:
                lot.unpark()
            else:
                del held[inode]
