"""System calls on the plain tree: what the room is compared with."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.model.calls import Stat, Walking, refusal, stat_of
from tests.model.fs_model import DIRECTORY, REGULAR, SYMLINK, Node, Refused, Tree

_CREATE, _REPLACE = 1, 2
_NAME_MAX = 255


@contextmanager
def _as_errors() -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise refusal(str(refused)) from refused


class TreeCalls(Walking):
    """See `calls`. Nodes are the tree's, handles too."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Tree()
        self.save()

    def save(self) -> None:
        """What is there now is durable."""
        self._saved = self.tree.snapshot()

    def crash(self) -> None:
        """Be what was durable."""
        self.forget_descriptors()
        self.tree = self._saved.snapshot()

    def _do(self, change: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with _as_errors():
            return change(*arguments, **options)

    # nodes

    def root(self) -> Node:
        return self.tree.root

    def child(self, node: Node, name: bytes) -> Node:
        if len(name) > _NAME_MAX:
            raise refusal("ENAMETOOLONG")
        if name not in node.entries:
            raise refusal("ENOENT")
        return node.entries[name]

    def kind(self, node: Node) -> int:
        return node.kind

    def target(self, node: Node) -> bytes:
        return node.target

    def children(self, node: Node) -> list[bytes]:
        return sorted(node.entries)

    def open_node(self, node: Node) -> Node:
        return node

    def close_handle(self, handle: Node) -> None:
        pass

    # names

    def _make(self, path: bytes, node: Node) -> None:
        directory, name = self.directory(path)
        self._do(self.tree.make, directory, name, node)

    def directory(self, path: bytes) -> tuple[Node, bytes]:
        """As `place`, and the name is one that may be given."""
        directory, name = self.place(path)
        if len(name) > _NAME_MAX:
            raise refusal("ENAMETOOLONG")
        return directory, name

    def mkdir(self, path: bytes, mode: int) -> None:
        self._make(path, Node(DIRECTORY, mode))

    def mknod(self, path: bytes, mode: int) -> None:
        self._make(path, Node(stat.S_IFMT(mode), stat.S_IMODE(mode)))

    def symlink(self, target: bytes, path: bytes) -> None:
        self._make(path, Node(SYMLINK, 0o777, target=target))

    def link(self, old: bytes, new: bytes, follow: bool) -> None:
        node = self.find(old, follow=follow)
        self._do(self.tree.link, node, *self.directory(new))

    def unlink(self, path: bytes) -> None:
        self._do(self.tree.remove, *self.directory(path), wants_directory=False)

    def rmdir(self, path: bytes) -> None:
        self._do(self.tree.remove, *self.directory(path), wants_directory=True)

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        self._do(self.tree.rename, *self.directory(old), *self.directory(new), flags)

    # attributes

    def _stat(self, node: Node) -> Stat:
        size = len(node.target if node.kind == SYMLINK else node.content)
        return stat_of(node.kind | node.mode, node.nlink, node.uid, node.gid, size, node.mtime_ns)

    def lstat(self, path: bytes) -> Stat:
        return self._stat(self.find(path, follow=False))

    def stat(self, path: bytes) -> Stat:
        return self._stat(self.find(path))

    def fstat(self, descriptor: int) -> Stat:
        return self._stat(self.handle(descriptor))

    def inode(self, path: bytes) -> int:
        return id(self.find(path, follow=False))

    def access(self, path: bytes, mask: int) -> bool:
        node = self.find(path)
        return not mask & os.X_OK or node.kind == DIRECTORY or bool(node.mode & 0o111)

    def chmod(self, path: bytes, mode: int) -> None:
        self.find(path).mode = mode

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        self.tree.chown(self.find(path, follow=follow), uid, gid)

    def utime(self, path: bytes, times_ns: tuple[int, int] | None, follow: bool) -> tuple[int, int] | None:
        self.find(path, follow=follow).mtime_ns = times_ns and times_ns[1]
        return times_ns

    def resize(self, node: Node, size: int) -> None:
        self._do(self.tree.resize, node, size)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        node = self._with_xattrs(path, name, "EPERM")
        if flags == _CREATE and name in node.xattrs:
            raise refusal("EEXIST")
        if flags == _REPLACE and name not in node.xattrs:
            raise refusal("ENODATA")
        node.xattrs[name] = value

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        node = self._with_xattrs(path, name, "ENODATA")
        if name not in node.xattrs:
            raise refusal("ENODATA")
        return node.xattrs[name]

    def removexattr(self, path: bytes, name: bytes) -> None:
        node = self._with_xattrs(path, name, "EPERM")
        if name not in node.xattrs:
            raise refusal("ENODATA")
        del node.xattrs[name]

    def _with_xattrs(self, path: bytes, name: bytes, otherwise: str) -> Node:
        node = self.find(path, follow=False)
        if name.startswith(b"user.") and node.kind not in (REGULAR, DIRECTORY):
            raise refusal(otherwise)
        return node

    def listxattr(self, path: bytes) -> list[bytes]:
        return sorted(self.find(path, follow=False).xattrs)

    # contents

    def pread(self, descriptor: int, offset: int, size: int) -> bytes:
        return bytes(self.handle(descriptor).content[offset : offset + size])

    def pwrite(self, descriptor: int, offset: int, data: bytes) -> int:
        if data:
            self.tree.write(self.handle(descriptor), offset, data)
        return len(data)

    def ftruncate(self, descriptor: int, size: int) -> None:
        self.tree.resize(self.handle(descriptor), size)

    def fchmod(self, descriptor: int, mode: int) -> None:
        self.handle(descriptor).mode = mode

    def fchown(self, descriptor: int, uid: int, gid: int) -> None:
        self.tree.chown(self.handle(descriptor), uid, gid)

    def futime(self, descriptor: int, times_ns: tuple[int, int]) -> None:
        self.handle(descriptor).mtime_ns = times_ns[1]

    def fsync(self, descriptor: int) -> None:
        """As in the room: one cut takes everything that was done before."""
        self.handle(descriptor)
        self.save()

    fdatasync = fsync

    def copy(self, source: int, start: int, target: int, place: int, size: int) -> int:
        return self._do(self.tree.copy, self.handle(source), start, self.handle(target), place, size)

    def allocate(self, descriptor: int, mode: int, offset: int, size: int) -> None:
        self._do(self.tree.allocate, self.handle(descriptor), mode, offset, size)

    def tmpfile(self, path: bytes, mode: int) -> int:
        directory = self.find(path)
        if directory.kind != DIRECTORY:
            raise refusal("ENOTDIR")
        gid = directory.gid if directory.mode & stat.S_ISGID else 0
        return self.opened(Node(REGULAR, mode, gid=gid, nlink=0, linkable=True))

    def link_opened(self, descriptor: int, path: bytes) -> None:
        self._do(self.tree.link, self.handle(descriptor), *self.directory(path))
