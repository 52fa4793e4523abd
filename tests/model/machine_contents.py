"""The machine's rules for contents: by path, and through descriptors, which stay valid whatever happens to the name."""

import os
import stat
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.model.machine import Machine, data, modes, names, offsets, outcome, picks, times

OPENED_MAX = 4


class Opened(NamedTuple):
    """One file, open on both sides."""

    ours: int
    theirs: int


class ContentsMachine(Machine):
    """See the module."""

    flags: tuple[int, ...] = (os.O_RDWR,)
    """With which files are opened. A filesystem without kernel knows no others."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[Opened] = []

    # helpers

    def keep(self, call: str, *arguments: Any) -> Opened | None:
        """A call that opens something, on both. None if it failed, with the same errno."""
        left = outcome(getattr(self.ours, call), arguments)
        right = outcome(getattr(self.theirs, call), arguments)
        if isinstance(left, int) and isinstance(right, int):
            return Opened(left, right)
        assert left == right, (call, arguments, left, right)
        return None

    def through(self, call: str, *arguments: Any) -> Any:
        """As `both`, of a call that takes descriptors."""
        left = outcome(getattr(self.ours, call), tuple(it.ours if isinstance(it, Opened) else it for it in arguments))
        right = outcome(
            getattr(self.theirs, call), tuple(it.theirs if isinstance(it, Opened) else it for it in arguments)
        )
        assert left == right, (call, arguments, left, right)
        return left

    def close_all(self) -> None:
        """Nothing is open afterwards."""
        while self.opened:
            self.through("close", self.opened.pop())

    def at(self, pick: int) -> Opened:
        """One of those that are open."""
        return self.opened[pick % len(self.opened)]

    def size(self, opened: Opened) -> int:
        """Of an open file."""
        return self.theirs.fstat(opened.theirs).size or 0

    def resizes(self, path: bytes, size: int) -> bool:
        """Whether truncating to `size` is to be tried."""
        del path, size
        return True

    # by path

    @rule(
        pick=picks, name=names, mode=modes, content=data, how=st.sampled_from([0, os.O_EXCL, os.O_TRUNC, os.O_APPEND])
    )
    def write_file(self, pick: int, name: bytes, mode: int, content: bytes, how: int) -> None:
        path = self.place(pick, name)
        if self.can_open(path) and (opened := self.keep("open", path, os.O_RDWR | os.O_CREAT | how, mode)):
            self.through("pwrite", opened, 0, content)
            self.through("close", opened)

    @rule(pick=picks, writes=st.lists(st.tuples(offsets, data), min_size=1, max_size=3))
    def open_and_write(self, pick: int, writes: list[tuple[int, bytes]]) -> None:
        path = self.regular(pick)
        if path is not None and (opened := self.keep("open", path, os.O_RDWR)):
            for offset, content in writes:
                self.through("pwrite", opened, offset, content)
            self.through("pread", opened, 0, self.size(opened) + 1)
            self.through("close", opened)

    @rule(pick=picks, offset=offsets, size=offsets)
    def read_file(self, pick: int, offset: int, size: int) -> None:
        path = self.regular(pick)
        if path is not None and (opened := self.keep("open", path, self.flags[0])):
            self.through("pread", opened, offset, size)
            self.through("close", opened)

    @rule(pick=picks, size=offsets)
    def truncate(self, pick: int, size: int) -> None:
        path = self.path(pick)
        if self.resizes(path, size):
            self.both("truncate", path, size)

    @rule(pick=picks, size=offsets)
    def truncate_a_file(self, pick: int, size: int) -> None:
        path = self.regular(pick)
        if path is not None and self.resizes(path, size):
            self.both("truncate", path, size)

    # open files

    def can_open(self, path: bytes) -> bool:
        """Whether a path leads to what opening makes sense of: a regular file, or nothing yet."""
        found = outcome(self.theirs.stat, (path,))
        return isinstance(found, str) or stat.S_ISREG(found.mode)

    @precondition(lambda self: len(self.opened) < OPENED_MAX)
    @rule(pick=picks, which=picks)
    def open(self, pick: int, which: int) -> None:
        path = self.path(pick)
        if self.can_open(path) and (opened := self.keep("open", path, self.flags[which % len(self.flags)])):
            self.opened.append(opened)

    @precondition(lambda self: self.opened)
    @rule(pick=picks)
    def close(self, pick: int) -> None:
        self.through("close", self.opened.pop(pick % len(self.opened)))

    @precondition(lambda self: self.opened)
    @rule(pick=picks, offset=offsets, content=data)
    def pwrite(self, pick: int, offset: int, content: bytes) -> None:
        self.through("pwrite", self.at(pick), offset, content)

    @precondition(lambda self: self.opened)
    @rule(pick=picks, content=data)
    def write_at_the_end(self, pick: int, content: bytes) -> None:
        opened = self.at(pick)
        self.through("pwrite", opened, self.size(opened), content)

    @precondition(lambda self: self.opened)
    @rule(pick=picks, offset=offsets, size=offsets)
    def pread(self, pick: int, offset: int, size: int) -> None:
        self.through("pread", self.at(pick), offset, size)

    @precondition(lambda self: self.opened)
    @rule(pick=picks, size=offsets)
    def ftruncate(self, pick: int, size: int) -> None:
        opened = self.at(pick)
        if size != self.size(opened):
            self.through("ftruncate", opened, size)

    @precondition(lambda self: self.opened)
    @rule(pick=picks)
    def fstat(self, pick: int) -> None:
        self.through("fstat", self.at(pick))

    @precondition(lambda self: self.opened)
    @rule(pick=picks, mode=modes)
    def fchmod(self, pick: int, mode: int) -> None:
        self.through("fchmod", self.at(pick), mode)

    @precondition(lambda self: self.opened)
    @rule(pick=picks, which=picks)
    def fchown(self, pick: int, which: int) -> None:
        self.through("fchown", self.at(pick), self.others[which % len(self.others)], self.others[0])

    @precondition(lambda self: self.opened)
    @rule(pick=picks, atime_ns=times, mtime_ns=times)
    def futime(self, pick: int, atime_ns: int, mtime_ns: int) -> None:
        self.through("futime", self.at(pick), (atime_ns, mtime_ns))

    @precondition(lambda self: self.opened)
    @rule(pick=picks)
    def fsync(self, pick: int) -> None:
        self.through("fsync", self.at(pick))

    @precondition(lambda self: self.opened)
    @rule(pick=picks)
    def fdatasync(self, pick: int) -> None:
        self.through("fdatasync", self.at(pick))

    @precondition(lambda self: self.opened)
    @rule(pick=picks, other=picks, start=offsets, place=offsets, size=offsets)
    def copy(self, pick: int, other: int, start: int, place: int, size: int) -> None:
        source, target = self.at(pick), self.at(other)
        size = min(size, max(0, self.size(source) - start))  # a copy that goes on reads what it wrote into its source
        self.through("copy", source, start, target, place, size)
