"""Keys of the filesystem's rows. Not their values: those are in `records`. Record: docs/format/records.md, "Keys".

    superblock  "meta" 00 00
    counters    "meta" 00 01
    orphan      "meta" 01 ‖ inode u64
    inode       "meta" 02 ‖ inode u64 ‖ 00
    xattr       "meta" 02 ‖ inode u64 ‖ 01 ‖ name
    dirscan     "meta" 02 ‖ inode u64 ‖ 02 ‖ cookie u64
    dentry      "meta" 02 ‖ inode u64 ‖ 03 ‖ name
    chunk       "chunk" ‖ inode u64 ‖ chunk index u64

Integers in keys are big-endian, so byte order is number order, and all rows of one inode are neighbours.
"""

import enum
import struct
from collections.abc import Sequence
from typing import NamedTuple

from zerofs.errors import CorruptionError

_U64 = struct.Struct(">Q")
_CHUNK = struct.Struct(">5sQQ")
_INODE = struct.Struct(">5sQB")
_DIRSCAN = struct.Struct(">5sQBQ")

_SYSTEM_PREFIX = b"meta\x00"
_ORPHAN_PREFIX = b"meta\x01"
_INODE_PREFIX = b"meta\x02"
_CHUNK_PREFIX = b"chunk"

_PART_INODE = 0
_PART_XATTR = 1
_PART_DIRSCAN = 2
_PART_DENTRY = 3

SUPERBLOCK_KEY = _SYSTEM_PREFIX + b"\x00"
"""Written once, when the filesystem is made."""

COUNTERS_KEY = _SYSTEM_PREFIX + b"\x01"
"""Next inode number, used bytes, used inodes."""

META_RANGE = (_SYSTEM_PREFIX, b"meta\x03")
"""Every row of the filesystem but the chunks, half-open. Kinds from 03 on are not the filesystem's."""

CHUNK_RANGE = (b"chunk", b"chunl")
"""Every chunk, half-open."""

ORPHAN_RANGE = (_ORPHAN_PREFIX, _INODE_PREFIX)
"""Every orphan row, half-open."""

MAX_COOKIE = (1 << 64) - 1


class Kind(enum.Enum):
    """What a key names."""

    SUPERBLOCK = "superblock"
    COUNTERS = "counters"
    ORPHAN = "orphan"
    INODE = "inode"
    XATTR = "xattr"
    DIRSCAN = "dirscan"
    DENTRY = "dentry"
    CHUNK = "chunk"


class Key(NamedTuple):
    """A key taken apart. `number` is the cookie or chunk index, `name` that of the dentry or xattr, if there is one."""

    kind: Kind
    inode: int = 0
    number: int = 0
    name: bytes = b""


def inode_key(inode: int) -> bytes:
    """The row of an inode."""
    return _INODE.pack(_INODE_PREFIX, inode, _PART_INODE)


def xattr_key(inode: int, name: bytes) -> bytes:
    """The row of one extended attribute."""
    return _INODE.pack(_INODE_PREFIX, inode, _PART_XATTR) + name


def dirscan_key(directory: int, cookie: int) -> bytes:
    """The row of a directory entry, by its cookie."""
    return _DIRSCAN.pack(_INODE_PREFIX, directory, _PART_DIRSCAN, cookie)


def dentry_key(directory: int, name: bytes) -> bytes:
    """The row of a directory entry, by its name."""
    return _INODE.pack(_INODE_PREFIX, directory, _PART_DENTRY) + name


def chunk_key(inode: int, index: int) -> bytes:
    """One chunk of a file's data."""
    return _CHUNK.pack(_CHUNK_PREFIX, inode, index)


def orphan_key(inode: int) -> bytes:
    """The mark that an inode has no name and waits to be reclaimed."""
    return _ORPHAN_PREFIX + _U64.pack(inode)


def xattr_range(inode: int) -> tuple[bytes, bytes]:
    """All extended attributes of an inode, half-open."""
    return _INODE.pack(_INODE_PREFIX, inode, _PART_XATTR), _INODE.pack(_INODE_PREFIX, inode, _PART_DIRSCAN)


def dirscan_range(directory: int, after_cookie: int) -> tuple[bytes, bytes]:
    """The entries of a directory that come after a cookie, half-open."""
    stop = _INODE.pack(_INODE_PREFIX, directory, _PART_DENTRY)
    if after_cookie >= MAX_COOKIE:
        return stop, stop
    return dirscan_key(directory, after_cookie + 1), stop


def chunk_range(inode: int, first_index: int) -> tuple[bytes, bytes]:
    """The chunks of an inode from `first_index` on, half-open."""
    return chunk_key(inode, first_index), chunk_key(inode + 1, 0)


def decode_dirscan_cookies(keys: Sequence[bytes]) -> list[int]:
    """The cookies of many dirscan keys. Raises CorruptionError for one of another length."""
    if any(len(key) != _DIRSCAN.size for key in keys):
        lengths = sorted(set(map(len, keys)))
        raise CorruptionError(f"dirscan keys: {lengths} bytes instead of {_DIRSCAN.size}")
    unpack = _DIRSCAN.unpack
    return [unpack(key)[3] for key in keys]


def decode_key(key: bytes) -> Key:
    """Any key of the filesystem taken apart. Raises CorruptionError for everything else."""
    if key.startswith(_CHUNK_PREFIX) and len(key) == _CHUNK.size:
        _, inode, index = _CHUNK.unpack(key)
        return Key(Kind.CHUNK, inode, index)
    if key == SUPERBLOCK_KEY:
        return Key(Kind.SUPERBLOCK)
    if key == COUNTERS_KEY:
        return Key(Kind.COUNTERS)
    if key.startswith(_ORPHAN_PREFIX) and len(key) == len(_ORPHAN_PREFIX) + 8:
        return Key(Kind.ORPHAN, _U64.unpack_from(key, len(_ORPHAN_PREFIX))[0])
    if key.startswith(_INODE_PREFIX) and len(key) >= _INODE.size:
        _, inode, part = _INODE.unpack_from(key)
        rest = key[_INODE.size :]
        if part == _PART_INODE and not rest:
            return Key(Kind.INODE, inode)
        if part == _PART_XATTR and rest:
            return Key(Kind.XATTR, inode, 0, rest)
        if part == _PART_DIRSCAN and len(rest) == 8:
            return Key(Kind.DIRSCAN, inode, _U64.unpack(rest)[0])
        if part == _PART_DENTRY and rest:
            return Key(Kind.DENTRY, inode, 0, rest)
    raise CorruptionError(f"filesystem key of {len(key)} bytes: unknown kind or wrong length")
