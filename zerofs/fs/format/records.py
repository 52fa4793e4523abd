"""Values of the filesystem's rows. Not their keys: those are in `keys`. Record: docs/format/records.md, "Values".

All integers little-endian. The inode row:

    offset  size  field
         0     1  record version: 1
         1     1  flags: bit 0 = has the xattr security.capability; the others 0
         2     2  mode: type and permission bits, as st_mode
         4     4  uid
         8     4  gid
        12     4  link count; 0 = orphan
        16     8  atime   signed nanoseconds since 1970
        24     8  mtime
        32     8  ctime
        40     8  btime
        48     4  length of the listxattr answer, bytes; 0 = no xattrs
        52        by type:
                  regular    size u64 ‖ allocated chunks u64 ‖ content (only if size <= 1024; then `size` bytes)
                  directory  parent inode u64 ‖ entries u64 ‖ next cookie u64
                  symlink    target, 1 to 4095 bytes
                  device     rdev u64
                  others     nothing

    superblock  "zerofsfs" ‖ format version u32 ‖ features u32 ‖ chunk size u32 ‖ created i64 (nanoseconds)
    counters    record version u8 (1) ‖ next inode u64 ‖ used bytes u64 ‖ used inodes u64
    dentry      inode u64 ‖ cookie u64 ‖ kind u8
    dirscan     inode u64 ‖ kind u8 ‖ name
    orphan      record version u8 (1)
    xattr       the value as it is
    chunk       1 to 32,768 bytes of the file, not all of them zero; none beyond the end of the file

`kind` in an entry is the four type bits of the mode (mode >> 12), as d_type in readdir(3).
"""

import stat
import struct
from collections.abc import Sequence
from typing import NamedTuple

from zerofs.errors import CorruptionError
from zerofs.units import CHUNK_SIZE

INLINE_LIMIT = 1024
"""A file of up to so many bytes stands in its inode's row; no larger one does."""

SYMLINK_LIMIT = 4095
"""Bytes of a symlink's target."""

NAME_LIMIT = 255
"""Bytes of a name in a directory."""

FIRST_COOKIE = 3
"""Cookies below: 0 the start, 1 ".", 2 ".."."""

FORMAT_VERSION = 1
MAGIC = b"zerofsfs"
ORPHAN_VALUE = b"\x01"

_VERSION = 1
FLAG_CAPABILITY = 1

_MIN_TIME_NS = -(1 << 63)
_MAX_TIME_NS = (1 << 63) - 1

_COMMON = "<BBHIIIqqqqI"
_PLAIN = struct.Struct(_COMMON)
_REGULAR = struct.Struct(_COMMON + "QQ")
_DIRECTORY = struct.Struct(_COMMON + "QQQ")
_REGULAR_REST = struct.Struct("<QQ")
_DEVICE = struct.Struct(_COMMON + "Q")
_SUPERBLOCK = struct.Struct("<8sIIIq")
_COUNTERS = struct.Struct("<BQQQ")
_DENTRY = struct.Struct("<QQB")
_DIRSCAN = struct.Struct("<QB")

_TYPE_MASK = 0o170000
_REG = stat.S_IFREG
_DIR = stat.S_IFDIR
_LNK = stat.S_IFLNK
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_OTHERS = (stat.S_IFIFO, stat.S_IFSOCK)


class Inode:
    """One inode, as everybody sees it: the live value of its row.

    Mutable. Whoever changes a stored field puts the object again before the next await. Fields that do not belong to
    the inode's type keep their initial values. `handles` and `version` are never stored.
    """

    __slots__ = (
        "__weakref__",
        "allocated",
        "atime_ns",
        "btime_ns",
        "content",
        "ctime_ns",
        "entries",
        "flags",
        "gid",
        "handles",
        "key",
        "mode",
        "mtime_ns",
        "next_cookie",
        "nlink",
        "number",
        "parent",
        "rdev",
        "size",
        "uid",
        "version",
        "xattr_list_size",
    )

    size_bytes = 600
    """Memory that one object takes with what it refers to, about: for the engine's budget."""

    def __init__(self, number: int, key: bytes, *, mode: int, uid: int, gid: int, now_ns: int) -> None:
        self.number = number
        self.key = key
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 1
        self.atime_ns = self.mtime_ns = self.ctime_ns = self.btime_ns = now_ns
        self.flags = 0
        self.xattr_list_size = 0
        self.size = 0
        """Bytes of a regular file."""
        self.allocated = 0
        """Chunks of a regular file that are there."""
        self.content = b""
        """The bytes of a small file, or a symlink's target."""
        self.parent = 0
        """Of a directory: where ".." leads."""
        self.entries = 0
        """Of a directory: names in it."""
        self.next_cookie = FIRST_COOKIE
        """Of a directory: the cookie of the next name."""
        self.rdev = 0
        self.handles = 0
        """Open handles in this process."""
        self.version = 0
        """Changes of data in this process: how a reader notices that a writer overtook it."""

    @property
    def kind(self) -> int:
        """The type as d_type."""
        return self.mode >> 12

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.mode & _TYPE_MASK == _DIR

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file."""
        return self.mode & _TYPE_MASK == _REG

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.mode & _TYPE_MASK == _LNK

    @property
    def is_inline(self) -> bool:
        """Whether a regular file stands in the row."""
        return self.size <= INLINE_LIMIT

    def encode(self) -> bytes:
        """The value of the row, as of now."""
        mode = self.mode
        kind = mode & _TYPE_MASK
        common = (
            _VERSION,
            self.flags,
            mode,
            self.uid,
            self.gid,
            self.nlink,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.btime_ns,
            self.xattr_list_size,
        )
        if kind == _REG:
            return _REGULAR.pack(*common, self.size, self.allocated) + self.content
        if kind == _DIR:
            return _DIRECTORY.pack(*common, self.parent, self.entries, self.next_cookie)
        if kind == _LNK:
            return _PLAIN.pack(*common) + self.content
        if kind in _DEVICES:
            return _DEVICE.pack(*common, self.rdev)
        return _PLAIN.pack(*common)


def decode_inode(number: int, key: bytes, data: bytes) -> Inode:
    """An inode from its row. Raises CorruptionError for anything that `Inode.encode` would not have written."""
    if len(data) < _PLAIN.size:
        raise CorruptionError(f"inode {number}: row of {len(data)} bytes")
    version, flags, mode, uid, gid, nlink, atime, mtime, ctime, btime, xattr_list_size = _PLAIN.unpack_from(data)
    if version != _VERSION or flags & ~FLAG_CAPABILITY:
        raise CorruptionError(f"inode {number}: record version {version} with flags {flags} is not known here")
    node = Inode(number, key, mode=mode, uid=uid, gid=gid, now_ns=btime)
    node.flags = flags
    node.nlink = nlink
    node.atime_ns = atime
    node.mtime_ns = mtime
    node.ctime_ns = ctime
    node.xattr_list_size = xattr_list_size
    if mode & _TYPE_MASK == _REG:
        _decode_regular(node, data)
    else:
        _decode_other(node, data[_PLAIN.size :])
    return node


def decode_regular(data: bytes) -> tuple[int, ...] | None:
    """(mode, uid, gid, link count, atime, mtime, ctime, btime, size, allocated chunks) of the row of a regular file.

    None for whatever else the row is: `decode_inode` tells, or complains.
    """
    if len(data) < _REGULAR.size:
        return None
    version, flags, mode, *middle, _, size, allocated = _REGULAR.unpack_from(data)
    if version != _VERSION or flags & ~FLAG_CAPABILITY or mode & _TYPE_MASK != _REG:
        return None
    content = size if size <= INLINE_LIMIT else 0
    most = 0 if size <= INLINE_LIMIT else chunks_of(size)
    if len(data) != _REGULAR.size + content or allocated > most or size >= 1 << 63:
        return None
    return mode, *middle, size, allocated


def _decode_regular(node: Inode, data: bytes) -> None:
    if len(data) < _REGULAR.size:
        raise CorruptionError(f"inode {node.number}: row of {len(data)} bytes")
    node.size, node.allocated = size, allocated = _REGULAR_REST.unpack_from(data, _PLAIN.size)
    if size <= INLINE_LIMIT:
        node.content = data[_REGULAR.size :]
        _expect(node.number, len(node.content), size)
        most = 0
    else:
        _expect(node.number, len(data) - _REGULAR.size, 0)
        most = chunks_of(size)
    if allocated > most or size >= 1 << 63:
        raise CorruptionError(f"inode {node.number}: {allocated} chunks in {size} bytes")


def _decode_other(node: Inode, rest: bytes) -> None:
    kind = node.mode & _TYPE_MASK
    if kind == _DIR:
        _expect(node.number, len(rest), 24)
        node.parent, node.entries, node.next_cookie = struct.unpack("<QQQ", rest)
    elif kind == _LNK:
        if not 0 < len(rest) <= SYMLINK_LIMIT:
            raise CorruptionError(f"inode {node.number}: symlink target of {len(rest)} bytes")
        node.content = rest
    elif kind in _DEVICES:
        _expect(node.number, len(rest), 8)
        (node.rdev,) = struct.unpack("<Q", rest)
    elif kind in _OTHERS:
        _expect(node.number, len(rest), 0)
    else:
        raise CorruptionError(f"inode {node.number}: mode {node.mode:o} names no type")


def _expect(number: int, length: int, expected: int) -> None:
    if length != expected:
        raise CorruptionError(f"inode {number}: {length} bytes instead of {expected} at the end of its row")


def chunks_of(size_bytes: int) -> int:
    """How many chunks a file of that size has, holes included."""
    return -(-size_bytes // CHUNK_SIZE)


def clamp_time(time_ns: int) -> int:
    """The nearest time that a row can hold: the years 1677 to 2262."""
    return min(max(time_ns, _MIN_TIME_NS), _MAX_TIME_NS)


class Counters:
    """The live value of the counters row. Whoever changes it puts it again before the next await."""

    __slots__ = ("next_inode", "used_bytes", "used_inodes")

    size_bytes = 100

    def __init__(self, next_inode: int, used_bytes: int = 0, used_inodes: int = 0) -> None:
        self.next_inode = next_inode
        """The number that the next inode gets."""
        self.used_bytes = used_bytes
        """What the quota counts: see usage.charge."""
        self.used_inodes = used_inodes
        """Inode rows, orphans included."""

    def encode(self) -> bytes:
        """The value of the row, as of now."""
        return _COUNTERS.pack(_VERSION, self.next_inode, self.used_bytes, self.used_inodes)


def decode_counters(data: bytes) -> Counters:
    """The counters from their row. Raises CorruptionError."""
    if len(data) != _COUNTERS.size or data[0] != _VERSION:
        raise CorruptionError(f"counters: row of {len(data)} bytes with an unknown version or length")
    return Counters(*_COUNTERS.unpack(data)[1:])


class Superblock(NamedTuple):
    """What this filesystem is."""

    created_ns: int
    version: int = FORMAT_VERSION
    features: int = 0
    chunk_size: int = CHUNK_SIZE


def encode_superblock(superblock: Superblock) -> bytes:
    """The value of the superblock row."""
    created_ns, version, features, chunk_size = superblock
    return _SUPERBLOCK.pack(MAGIC, version, features, chunk_size, created_ns)


def decode_superblock(data: bytes) -> Superblock:
    """The superblock. Raises CorruptionError if it is none; versions and features are for the caller to judge."""
    if len(data) != _SUPERBLOCK.size or not data.startswith(MAGIC):
        raise CorruptionError("superblock: not the first row of a zerofs filesystem")
    _, version, features, chunk_size, created_ns = _SUPERBLOCK.unpack(data)
    return Superblock(created_ns, version, features, chunk_size)


class Dentry(NamedTuple):
    """What a name in a directory leads to."""

    inode: int
    cookie: int
    kind: int


def encode_dentry(dentry: Dentry) -> bytes:
    """The value of a dentry row."""
    return _DENTRY.pack(*dentry)


def decode_dentry(data: bytes) -> Dentry:
    """A dentry. Raises CorruptionError for a wrong length."""
    if len(data) != _DENTRY.size:
        raise CorruptionError(f"dentry: {len(data)} bytes instead of {_DENTRY.size}")
    return Dentry._make(_DENTRY.unpack(data))


def encode_dirscan(inode: int, kind: int, name: bytes) -> bytes:
    """The value of a dirscan row."""
    return _DIRSCAN.pack(inode, kind) + name


def decode_dirscan(data: bytes) -> tuple[int, int, bytes]:
    """(inode, kind, name) of a dirscan row. Raises CorruptionError."""
    name = data[_DIRSCAN.size :]
    if not 0 < len(name) <= NAME_LIMIT:
        raise CorruptionError(f"dirscan: row of {len(data)} bytes")
    inode, kind = _DIRSCAN.unpack_from(data)
    return inode, kind, name


def decode_dirscans(values: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """(inode, name) of many dirscan rows. Raises CorruptionError."""
    head = _DIRSCAN.size
    if not all(head < len(value) <= head + NAME_LIMIT for value in values):
        raise CorruptionError(f"dirscan: rows of {sorted(set(map(len, values)))} bytes")
    unpack_from = _DIRSCAN.unpack_from
    return [(unpack_from(value)[0], value[head:]) for value in values]
