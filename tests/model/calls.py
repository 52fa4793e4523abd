"""System calls by path, in one shape for all that the machine drives: a disk or mount, the room, the plain tree.

Every call raises OSError. `Walking` is what a kernel does before it asks a filesystem: it walks paths, follows symlinks
and keeps descriptors. The room and the tree get it from here; a disk has the real one.
"""

import errno
import os
import stat
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

LATELY_NS = 17 * 10**17
"""Times after this (2023) were taken from a clock; before, they were set by utimes, and are compared."""

_SYMLINKS_MAX = 40


class Stat(NamedTuple):
    """What two filesystems have to agree on. `size` of directories and times of the clock are left out."""

    mode: int
    nlink: int
    uid: int
    gid: int
    size: int | None
    mtime_ns: int | None


def stat_of(mode: int, nlink: int, uid: int, gid: int, size: int, mtime_ns: int | None) -> Stat:
    """As compared."""
    lately = mtime_ns is None or mtime_ns >= LATELY_NS
    return Stat(mode, nlink, uid, gid, None if stat.S_ISDIR(mode) else size, None if lately else mtime_ns)


def refusal(name: str) -> OSError:
    """The error of this name."""
    code = getattr(errno, name)
    return OSError(code, os.strerror(code))


class Walking(ABC):
    """Paths and descriptors over a filesystem that knows nodes and names. Everything is done as root.

    Paths are relative, of bytes, without dots; b"" is the root. What is abstract here has the meaning of the system
    call of its name.
    """

    def __init__(self) -> None:
        self._opened: dict[int, Any] = {}
        self._next = 3

    # nodes

    @abstractmethod
    def root(self) -> Any: ...

    @abstractmethod
    def child(self, node: Any, name: bytes) -> Any: ...

    @abstractmethod
    def kind(self, node: Any) -> int: ...

    @abstractmethod
    def target(self, node: Any) -> bytes: ...

    @abstractmethod
    def children(self, node: Any) -> list[bytes]: ...

    @abstractmethod
    def open_node(self, node: Any) -> Any: ...

    @abstractmethod
    def close_handle(self, handle: Any) -> None: ...

    # walking

    def place(self, path: bytes) -> tuple[Any, bytes]:
        """The directory that a path's last name is, or would be, in; and that name."""
        head, _, name = path.rpartition(b"/")
        node = self.find(head)
        if not stat.S_ISDIR(self.kind(node)):
            raise refusal("ENOTDIR")
        return node, name

    def find(self, path: bytes, *, follow: bool = True) -> Any:
        """The node at a path."""
        return self._walk(path, follow)[-1]

    def behind(self, path: bytes) -> bytes:
        """The path without symlinks that a path's last name stands for; it need not exist."""
        for _ in range(_SYMLINKS_MAX):
            head, _, name = path.rpartition(b"/")
            try:
                node = self.child(self.find(head), name)
            except FileNotFoundError:
                return path
            if not stat.S_ISLNK(self.kind(node)):
                return path
            path = b"/".join(part for part in (head, self.target(node)) if part)
        raise refusal("ELOOP")

    def _walk(self, path: bytes, follow: bool) -> list[Any]:
        trail, left, links = [self.root()], [name for name in path.split(b"/") if name], 0
        while left:
            name = left.pop(0)
            if name == b".":
                continue
            if not stat.S_ISDIR(self.kind(trail[-1])):
                raise refusal("ENOTDIR")
            node = self.child(trail[-1], name)
            if stat.S_ISLNK(self.kind(node)) and (left or follow):
                links += 1
                if links > _SYMLINKS_MAX:
                    raise refusal("ELOOP")
                left = [*self.target(node).split(b"/"), *left]
            else:
                trail.append(node)
        return trail

    def paths(self) -> list[bytes]:
        """Every path there is, the root first."""
        found = [b""]
        for path in found:
            node = self.find(path, follow=False)
            if stat.S_ISDIR(self.kind(node)):
                found.extend(b"/".join(part for part in (path, name) if part) for name in sorted(self.children(node)))
        return found

    def listdir(self, path: bytes) -> list[bytes]:
        node = self.find(path)
        if not stat.S_ISDIR(self.kind(node)):
            raise refusal("ENOTDIR")
        return sorted(self.children(node))

    def readlink(self, path: bytes) -> bytes:
        node = self.find(path, follow=False)
        if not stat.S_ISLNK(self.kind(node)):
            raise refusal("EINVAL")
        return self.target(node)

    # descriptors

    def open(self, path: bytes, flags: int, mode: int = 0) -> int:
        if flags & os.O_CREAT:
            self._create(path, flags, mode)
        node = self.find(path)
        kind = self.kind(node)
        if flags & os.O_ACCMODE and stat.S_ISDIR(kind):
            raise refusal("EISDIR")
        if not stat.S_ISREG(kind):
            raise refusal("ENXIO")  # the machine opens nothing else in a filesystem without kernel
        handle = self.open_node(node)
        if flags & os.O_TRUNC:
            self.resize(node, 0)
        return self.opened(handle)

    def _create(self, path: bytes, flags: int, mode: int) -> None:
        if not flags & os.O_EXCL:
            path = self.behind(path)
        try:
            self.mknod(path, stat.S_IFREG | mode)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise

    def opened(self, handle: Any) -> int:
        """A descriptor for a handle."""
        self._next += 1
        self._opened[self._next] = handle
        return self._next

    def handle(self, descriptor: int) -> Any:
        return self._opened[descriptor]

    def close(self, descriptor: int) -> None:
        self.close_handle(self._opened.pop(descriptor))

    def forget_descriptors(self) -> None:
        """As after a crash."""
        self._opened.clear()

    def contents(self, path: bytes) -> bytes:
        """All of a file."""
        descriptor = self.open(path, os.O_RDWR)
        try:
            return self.pread(descriptor, 0, self.fstat(descriptor).size + 1)
        finally:
            self.close(descriptor)

    # what both have

    @abstractmethod
    def pread(self, descriptor: int, offset: int, size: int) -> bytes: ...

    @abstractmethod
    def fstat(self, descriptor: int) -> Stat: ...

    @abstractmethod
    def mknod(self, path: bytes, mode: int) -> None: ...

    @abstractmethod
    def resize(self, node: Any, size: int) -> None: ...

    def truncate(self, path: bytes, size: int) -> None:
        self.resize(self.find(path), size)
