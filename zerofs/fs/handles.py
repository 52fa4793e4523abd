"""Who needs an inode besides its names: open handles, and the kernel's lookup counts.

Not the place where inodes die: `orphans` asks here first.
"""

import errno
import os
from collections.abc import Iterable

from zerofs.errors import FsError
from zerofs.fs.format.records import Inode
from zerofs.fs.lookupcounts import LookupCounts
from zerofs.fs.readahead import ReadAhead


class Handle:
    """An open file or directory."""

    __slots__ = ("error", "flags", "node", "read_ahead", "stale", "takes_privileges")

    def __init__(self, node: Inode, flags: int, takes_privileges: bool) -> None:
        self.node = node
        self.flags = flags
        self.takes_privileges = takes_privileges
        """Whether writing through it takes them, which depends on who opened it."""
        self.error = 0
        """The errno of a write that was refused while this was open: every later fsync and flush repeats it, because
        with a writeback cache the program's own write(2) has long succeeded."""

        self.read_ahead: ReadAhead | None = None
        """From the first read of chunks on."""

        self.stale = False
        """The inode is no more in the state that a read-only mount shows."""

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY


class Handles:
    """All references to inodes of one mount."""

    __slots__ = ("_lookups", "_next", "_open")

    def __init__(self) -> None:
        self._open: dict[int, Handle] = {}
        self._next = 1
        self._lookups = LookupCounts()

    def open(self, node: Inode, flags: int, takes_privileges: bool) -> int:
        """A new handle's number; numbers are not used twice."""
        number = self._next
        self._next = number + 1
        self._open[number] = Handle(node, flags, takes_privileges)
        node.handles += 1
        return number

    def get(self, number: int) -> Handle:
        """An open handle. Raises FsError(EBADF), FsError(ESTALE) for one whose inode is gone."""
        handle = self.known(number)
        if handle.stale:
            raise FsError(errno.ESTALE, f"inode {handle.node.number} is gone")
        return handle

    def known(self, number: int) -> Handle:
        """An open handle, also one whose inode is gone. Raises FsError(EBADF)."""
        handle = self._open.get(number)
        if handle is None:
            raise FsError(errno.EBADF, f"there is no handle {number}")
        return handle

    def directory(self, number: int) -> Handle:
        """An open handle of a directory. Raises FsError(EBADF, ENOTDIR)."""
        handle = self.get(number)
        if not handle.node.is_directory:
            raise FsError(errno.ENOTDIR)
        return handle

    def file(self, number: int) -> Handle:
        """An open handle of something that is no directory. Raises FsError(EBADF, EISDIR)."""
        handle = self.get(number)
        if handle.node.is_directory:
            raise FsError(errno.EISDIR)
        return handle

    def close(self, number: int) -> Inode:
        """Close a handle; its inode. Raises FsError(EBADF)."""
        node = self.known(number).node
        del self._open[number]
        node.handles -= 1
        return node

    def open_inodes(self) -> dict[int, Inode]:
        """What handles are open on, by inode number, but for what is gone."""
        return {handle.node.number: handle.node for handle in self._open.values() if not handle.stale}

    def mark_stale(self, node: Inode) -> None:
        """The inode is gone: whoever has it open can only close it."""
        for handle in self._open.values():
            if handle.node is node:
                handle.stale = True

    def mark_failed(self, inode: int, error: int) -> None:
        """A write to the inode was refused: remember it in every handle that is open on it for writing."""
        for handle in self._open.values():
            if handle.node.number == inode and handle.writable:
                handle.error = handle.error or error

    def count_lookup(self, inode: int) -> None:
        """The kernel learned of the inode once more."""
        self._lookups.add(inode)

    def count_lookups(self, inodes: Iterable[int]) -> None:
        """The kernel learned of each of them once more."""
        self._lookups.add_each(inodes)

    def forget(self, inode: int, count: int) -> bool:
        """The kernel gave up so many lookups. Whether none is left. More than there were count as all."""
        return self._lookups.subtract(inode, count)

    def is_referenced(self, node: Inode) -> bool:
        """Whether a handle or the kernel refers to it."""
        return node.handles > 0 or node.number in self._lookups

    def abandon(self) -> None:
        """Nobody refers to anything any more: the mount ends."""
        for handle in self._open.values():
            handle.node.handles -= 1
        self._open.clear()
        self._lookups.clear()
