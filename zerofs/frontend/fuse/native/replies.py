"""Replies to the kernel, encoded. Pure: values in, bytes out. The header goes in front of what these functions give."""

import os

from zerofs.frontend.fuse.native import protocol as p
from zerofs.fs.attributes import Attributes, DirectoryEntry, FilesystemStatistics
from zerofs.units import NS_PER_S

_BLOCK_SIZE = 4096
"""What st_blksize shows: the unit in which programs like to write."""

_PADDING = tuple(bytes(-length % 8) for length in range(8))
"""Behind a name, by its length modulo eight."""

_STATX_ALL = 0xFFF
"""Basic attributes and the time of birth. Source: linux/stat.h, STATX_BASIC_STATS | STATX_BTIME."""


def header(unique: int, payload_size: int) -> bytes:
    """In front of an answer."""
    return p.OUT_HEADER.pack(p.OUT_HEADER.size + payload_size, 0, unique)


def refusal(unique: int, error: int) -> bytes:
    """A whole reply: the errno."""
    return p.OUT_HEADER.pack(p.OUT_HEADER.size, -error, unique)


def _attributes(found: Attributes) -> bytes:
    atime_s, atime_ns = divmod(found.atime_ns, NS_PER_S)
    mtime_s, mtime_ns = divmod(found.mtime_ns, NS_PER_S)
    ctime_s, ctime_ns = divmod(found.ctime_ns, NS_PER_S)
    return p.ATTR.pack(
        found.inode,
        found.size_bytes,
        found.blocks,
        atime_s,
        mtime_s,
        ctime_s,
        atime_ns,
        mtime_ns,
        ctime_ns,
        found.mode,
        found.nlink,
        found.uid,
        found.gid,
        found.rdev,
        _BLOCK_SIZE,
        0,
    )


def seconds_and_ns(lifetime_s: float) -> tuple[int, int]:
    """In seconds and nanoseconds."""
    seconds, rest = divmod(lifetime_s, 1)
    return int(seconds), int(rest * NS_PER_S)


def entry(found: Attributes, lifetime_s: float) -> bytes:
    """A name that leads to an inode, both to be believed for `lifetime_s`. The kernel counts a lookup."""
    s, ns = seconds_and_ns(lifetime_s)
    return p.ENTRY_HEAD.pack(found.inode, 0, s, s, ns, ns) + _attributes(found)


def absent(lifetime_s: float) -> bytes:
    """A name that leads nowhere, to be believed for `lifetime_s`."""
    s, ns = seconds_and_ns(lifetime_s)
    return p.ENTRY_HEAD.pack(0, 0, s, 0, ns, 0) + bytes(p.ATTR.size)


def attributes(found: Attributes, lifetime_s: float) -> bytes:
    """The answer to GETATTR and SETATTR."""
    return p.ATTR_HEAD.pack(*seconds_and_ns(lifetime_s), 0) + _attributes(found)


def extended_attributes(found: Attributes, lifetime_s: float) -> bytes:
    """The answer to STATX: with the time of birth."""
    times = (part for time_ns in _statx_times(found) for part in divmod(time_ns, NS_PER_S))
    return p.STATX_HEAD.pack(*seconds_and_ns(lifetime_s), 0) + p.STATX_OUT.pack(
        _STATX_ALL,
        _BLOCK_SIZE,
        0,
        found.nlink,
        found.uid,
        found.gid,
        found.mode,
        found.inode,
        found.size_bytes,
        found.blocks,
        0,
        *times,
        os.major(found.rdev),
        os.minor(found.rdev),
    )


def _statx_times(found: Attributes) -> tuple[int, int, int, int]:
    return found.atime_ns, found.btime_ns, found.ctime_ns, found.mtime_ns


def opened(handle: int, flags: int = 0) -> bytes:
    """The answer to OPEN and OPENDIR; behind an entry, to CREATE and TMPFILE."""
    return p.OPEN_OUT.pack(handle, flags, 0)


def written(size: int) -> bytes:
    """How much was taken."""
    return p.WRITE_OUT.pack(size, 0)


def size(size_bytes: int) -> bytes:
    """How long a value or a list is, for a caller who asked only that."""
    return p.SIZE_OUT.pack(size_bytes, 0)


def offset(at: int) -> bytes:
    """The answer to LSEEK."""
    return p.LSEEK_OUT.pack(at)


def statistics(found: FilesystemStatistics) -> bytes:
    """The answer to STATFS."""
    return p.STATFS_OUT.pack(
        found.blocks_total,
        found.blocks_free,
        found.blocks_free,
        found.files_total,
        found.files_free,
        found.block_size,
        found.name_max,
        found.block_size,
        0,
    )


def directory_entry(name: bytes, inode: int, cookie: int, mode: int) -> bytes:
    """One record of READDIR, padded to eight bytes."""
    return p.DIRENT.pack(inode, cookie, len(name), mode >> 12) + name + _PADDING[len(name) % 8]


def plain_entry_plus(name: bytes, inode: int, cookie: int, mode: int) -> bytes:
    """One record of READDIRPLUS without attributes, for which the kernel counts no lookup."""
    return bytes(p.ENTRY_HEAD.size + p.ATTR.size) + directory_entry(name, inode, cookie, mode)


def entry_plus(listed: DirectoryEntry, lifetime: tuple[int, int]) -> bytes:
    """One record of READDIRPLUS, written out because there are many. `lifetime`: in seconds and nanoseconds.

    The kernel counts a lookup.
    """
    name, cookie, found = listed
    inode, mode, length = found.inode, found.mode, len(name)
    s, ns = lifetime
    atime_s, atime_ns = divmod(found.atime_ns, NS_PER_S)
    mtime_s, mtime_ns = divmod(found.mtime_ns, NS_PER_S)
    ctime_s, ctime_ns = divmod(found.ctime_ns, NS_PER_S)
    record = p.DIRENT_PLUS.pack(
        *(inode, 0, s, s, ns, ns),
        *(inode, found.size_bytes, found.blocks, atime_s, mtime_s, ctime_s, atime_ns, mtime_ns, ctime_ns),
        *(mode, found.nlink, found.uid, found.gid, found.rdev, _BLOCK_SIZE, 0),
        *(inode, cookie, length, mode >> 12),
    )
    return record + name + _PADDING[length % 8]


def inode_changed(inode: int) -> bytes:
    """A whole notice: what is cached of an inode, pages too, is worth nothing any more."""
    payload = p.INVAL_INODE.pack(inode, 0, 0)
    return p.OUT_HEADER.pack(p.OUT_HEADER.size + len(payload), p.NOTIFY_INVAL_INODE, 0) + payload
