"""What frontends are told of inodes, entries and the filesystem, and what they may ask to be changed: plain values."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from zerofs.fs.format.records import INLINE_LIMIT, Inode, decode_regular
from zerofs.units import CHUNK_SIZE

_DIRECTORY_SIZE = 4096
_SECTOR = 512


class Attributes(NamedTuple):
    """An inode as stat(2) shows it. Times in nanoseconds since 1970, negative before.

    A tuple, like the two below, because every request makes one: a frozen dataclass costs five times as much.
    """

    inode: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size_bytes: int
    blocks: int
    """Allocated space in units of 512 bytes."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int


_attributes: Callable[[tuple[int, ...]], Attributes] = partial(tuple.__new__, Attributes)
"""As `Attributes._make`, without a call in Python: directories are listed with the attributes of every file."""


class AttributeChanges(NamedTuple):
    """What a setattr asks for; None and False leave things alone. `…_now` wins over `…_ns`."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    """Set by a kernel that keeps the times itself while it caches writes."""
    atime_now: bool = False
    mtime_now: bool = False

    @property
    def are_written_back(self) -> bool:
        """Whether a kernel with a writeback cache hands over what it kept: a program was told that it succeeded.

        Source: Linux, fs/fuse/dir.c, fuse_flush_times: both times and nothing else. So does `touch -m`.
        """
        return None not in (self.mtime_ns, self.ctime_ns) and self == AttributeChanges(
            mtime_ns=self.mtime_ns, ctime_ns=self.ctime_ns
        )

    @property
    def times(self) -> bool:
        """Whether access or modification time is to be set."""
        return self.atime_now or self.mtime_now or self.atime_ns is not None or self.mtime_ns is not None

    @property
    def explicit_times(self) -> bool:
        """Whether one of them is to become another time than now."""
        return (self.atime_ns is not None and not self.atime_now) or (self.mtime_ns is not None and not self.mtime_now)


class DirectoryEntry(NamedTuple):
    """One name of a directory. Asking for the entries after `cookie` continues behind it."""

    name: bytes
    cookie: int
    attributes: Attributes


@dataclass(slots=True, frozen=True, kw_only=True)
class FilesystemStatistics:
    """The whole filesystem as statvfs(3) shows it."""

    block_size: int
    """Bytes; the unit of the two below."""
    blocks_total: int
    blocks_free: int
    files_total: int
    files_free: int
    name_max: int
    """Bytes of a name."""


def attributes_of(node: Inode) -> Attributes:
    """What stat(2) shows of an inode. Directories have a constant size, symlinks that of their target.

    Allocated space is at least one sector for a file with any bytes, and none for symlinks and special files.
    """
    size = node.size
    if size or node.is_regular:
        blocks = _blocks(size, node.allocated)
    elif node.is_directory:
        size, blocks = _DIRECTORY_SIZE, _DIRECTORY_SIZE // _SECTOR
    else:
        size, blocks = len(node.content), 0
    return _attributes(
        (
            node.number,
            node.mode,
            node.nlink,
            node.uid,
            node.gid,
            node.rdev,
            size,
            blocks,
            node.atime_ns,
            node.mtime_ns,
            node.ctime_ns,
            node.btime_ns,
        )
    )


def attributes_in(number: int, row: bytes) -> Attributes | None:
    """As `attributes_of` the inode of a row, without making one. None unless it is a row of a regular file."""
    fields = decode_regular(row)
    if fields is None:
        return None
    mode, uid, gid, nlink, atime, mtime, ctime, btime, size, allocated = fields
    blocks = _blocks(size, allocated)
    return _attributes((number, mode, nlink, uid, gid, 0, size, blocks, atime, mtime, ctime, btime))


def _blocks(size: int, allocated: int) -> int:
    """Of a regular file."""
    blocks = -(-size // _SECTOR)
    return blocks if size <= INLINE_LIMIT else min(blocks, allocated * (CHUNK_SIZE // _SECTOR)) or 1
