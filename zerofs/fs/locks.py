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


class _Line:
    """Who waits for one lock."""

    __slots__ = ("called", "passed_over", "waiting")

    def __init__(self) -> None:
        self.called = 0
        """How many were called and did not have their turn yet."""
        self.waiting = trio.lowlevel.ParkingLot()
        self.passed_over = trio.lowlevel.ParkingLot()
        """Those who were called when the lock became free, and found it taken when their turn came."""

    def __bool__(self) -> bool:
        return bool(self.called) or bool(self.waiting) or bool(self.passed_over)


class InodeLocks:
    """All locks of one filesystem. A lock exists while it is held; a waiting line exists while somebody waits."""

    __slots__ = ("_held", "_lines")

    def __init__(self) -> None:
        self._held: set[int] = set()
        self._lines: dict[int, _Line] = {}

    def __len__(self) -> int:
        return len(self._held)

    def is_held(self, inode: int) -> bool:
        """Whether some operation holds the lock, or waits for it."""
        return inode in self._held or inode in self._lines

    async def hold(self, *inodes: int) -> Held:
        """Take the locks: `with await locks.hold(a, b):`. No checkpoint if all are free.

        Whoever waits comes in order. But an operation that need not wait may go before, once: were a lock that is given
        back always handed to the next in the line, then after one wait each of many requests in a row would find it
        held, and need a turn of the scheduler.
        """
        held = self._held
        if len(inodes) == 1 and inodes[0] not in held:
            held.add(inodes[0])
            return Held(self, inodes)
        taken: list[int] = []
        try:
            for inode in sorted(set(inodes)):
                if inode in held:
                    await self._wait(inode)
                held.add(inode)
                taken.append(inode)
        except BaseException:
            self.release(taken)
            raise
        return Held(self, taken)

    async def _wait(self, inode: int) -> None:
        """Return when a lock that was held is the caller's to take, or was left to it."""
        line = self._line(inode)
        await line.waiting.park()
        line.called -= 1  # so it is the line still
        if inode in self._held:
            await line.passed_over.park()

    def _line(self, inode: int) -> _Line:
        line = self._lines.get(inode)
        if line is None:
            line = self._lines[inode] = _Line()
        return line

    def release(self, inodes: Iterable[int]) -> None:
        """Give locks back."""
        for inode in inodes:
            line = self._lines.get(inode)
            if line is None:
                self._held.remove(inode)
            elif line.passed_over:
                line.passed_over.unpark()  # it stays held, by whoever was passed over
            else:
                self._held.remove(inode)
                line.called += len(line.waiting.unpark())
                if not line:
                    del self._lines[inode]
