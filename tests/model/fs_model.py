"""A filesystem as plain Python objects: what the real one is compared with. Everything is done as root.

Errors are raised as `Refused` with the name of the errno. Sizes stay small enough to keep contents as they are.
"""

import copy
import stat
from dataclasses import dataclass, field

# Source: linux/falloc.h
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10
DIRECTORY, REGULAR, SYMLINK, FIFO = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO


class Refused(Exception):
    """The errno, by name."""


@dataclass(eq=False)
class Node:
    """A file of any kind."""

    kind: int
    mode: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    content: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    entries: dict[bytes, "Node"] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    parent: "Node | None" = None
    linkable: bool = False
    """Made without a name, and may get one."""
    atime_ns: int | None = None
    mtime_ns: int | None = None
    """Known only when they were set last."""


class Tree:
    """The whole filesystem."""

    def __init__(self) -> None:
        self.root = Node(DIRECTORY, 0o755, nlink=2)
        self.root.parent = self.root

    def snapshot(self) -> "Tree":
        return copy.deepcopy(self)

    # finding

    def directories(self) -> list[tuple[bytes, ...]]:
        """The paths of all directories, the root first."""
        found: list[tuple[bytes, ...]] = [()]
        for path in found:
            node = self.at(path)
            found.extend((*path, name) for name, child in node.entries.items() if child.kind == DIRECTORY)
        return found

    def paths(self) -> list[tuple[bytes, ...]]:
        """All paths, the root first."""
        return [path for base in self.directories() for path in [base, *self._leaves(base)]]

    def _leaves(self, base: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
        return [(*base, name) for name, child in self.at(base).entries.items() if child.kind != DIRECTORY]

    def at(self, path: tuple[bytes, ...]) -> Node:
        node = self.root
        for name in path:
            if node.kind != DIRECTORY:
                raise Refused("ENOTDIR")
            if name not in node.entries:
                raise Refused("ENOENT")
            node = node.entries[name]
        return node

    # changing

    def make(self, directory: Node, name: bytes, node: Node) -> Node:
        if name in directory.entries:
            raise Refused("EEXIST")
        if node.kind == DIRECTORY:
            node.nlink = 2
            node.parent = directory
            directory.nlink += 1
        if directory.mode & stat.S_ISGID:
            node.gid = directory.gid
            if node.kind == DIRECTORY:
                node.mode |= stat.S_ISGID
        directory.entries[name] = node
        directory.mtime_ns = None
        return node

    def link(self, node: Node, directory: Node, name: bytes) -> None:
        if name in directory.entries:
            raise Refused("EEXIST")
        if node.kind == DIRECTORY:
            raise Refused("EPERM")
        if not node.nlink and not node.linkable:
            raise Refused("ENOENT")
        directory.entries[name] = node
        node.nlink += 1
        node.linkable = False
        directory.mtime_ns = None

    def remove(self, directory: Node, name: bytes, *, wants_directory: bool) -> None:
        if name not in directory.entries:
            raise Refused("ENOENT")
        self._require_removable(directory.entries[name], wants_directory)
        self._drop(directory, name)
        directory.mtime_ns = None

    def _require_removable(self, node: Node, wants_directory: bool) -> None:
        if wants_directory and node.kind != DIRECTORY:
            raise Refused("ENOTDIR")
        if not wants_directory and node.kind == DIRECTORY:
            raise Refused("EISDIR")
        if node.entries:
            raise Refused("ENOTEMPTY")

    def _drop(self, directory: Node, name: bytes) -> None:
        node = directory.entries.pop(name)
        node.nlink -= 1
        if node.kind == DIRECTORY:
            node.nlink = 0
            directory.nlink -= 1

    def rename(self, old: Node, name: bytes, new: Node, new_name: bytes, flags: int) -> None:
        source = old.entries.get(name)
        target = new.entries.get(new_name)
        if source is None:
            raise Refused("ENOENT")
        if flags == 1 and target is not None:
            raise Refused("EEXIST")
        if flags == 2 and target is None:
            raise Refused("ENOENT")
        if old is not new:
            if self._is_within(new, source):
                raise Refused("EINVAL")
            if target is not None and self._is_within(old, target):
                raise Refused("EINVAL" if flags == 2 else "ENOTEMPTY")
        if source is target:
            return
        if flags != 2 and target is not None:
            self._require_removable(target, source.kind == DIRECTORY)
            self._drop(new, new_name)
        if flags == 2:
            old.entries[name] = target
            self._moved(target, new, old)
        else:
            del old.entries[name]
        new.entries[new_name] = source
        self._moved(source, old, new)
        old.mtime_ns = new.mtime_ns = None

    def _is_within(self, directory: Node, ancestor: Node) -> bool:
        while directory is not ancestor:
            if directory is directory.parent:
                return False
            directory = directory.parent
        return True

    def _moved(self, node: Node, old: Node, new: Node) -> None:
        if node.kind == DIRECTORY:
            node.parent = new
            old.nlink -= 1
            new.nlink += 1

    def resize(self, node: Node, size: int) -> None:
        if node.kind == DIRECTORY:
            raise Refused("EISDIR")
        if node.kind != REGULAR:
            raise Refused("EINVAL")
        self.write(node, size, b"")
        del node.content[size:]

    def write(self, node: Node, offset: int, data: bytes) -> None:
        if len(node.content) < offset:
            node.content.extend(bytes(offset - len(node.content)))
        node.content[offset : offset + len(data)] = data
        node.mtime_ns = None

    def allocate(self, node: Node, mode: int, start: int, size: int) -> None:
        """fallocate(2)."""
        if size <= 0:
            raise Refused("EINVAL")
        if not mode & KEEP_SIZE:
            self.write(node, start + size, b"")
        if mode & (PUNCH_HOLE | ZERO_RANGE):
            stop = min(start + size, len(node.content))
            node.content[start:stop] = bytes(max(0, stop - start))
        node.mtime_ns = None

    def copy(self, source: Node, start: int, target: Node, place: int, size: int) -> int:
        data = bytes(source.content[start : start + size])
        if source is target and abs(start - place) < len(data):
            raise Refused("EINVAL")
        if data:
            self.write(target, place, data)
        return len(data)

    def chown(self, node: Node, uid: int, gid: int) -> None:
        node.uid, node.gid = uid, gid
        if node.kind != DIRECTORY:
            node.mode &= ~stat.S_ISUID
            if node.mode & stat.S_IXGRP:
                node.mode &= ~stat.S_ISGID
            node.xattrs.pop(b"security.capability", None)
