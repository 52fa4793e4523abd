"""The invariants of a filesystem's rows, checked by counting everything again. Pure: rows in, complaints out.

Numbers in brackets are those of the reference's checker; those without are this project's own.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from zerofs.fs.chunking import extent_in_chunk, is_zero
from zerofs.fs.format.keys import Kind, decode_key, inode_key
from zerofs.fs.format.records import (
    FIRST_COOKIE,
    FLAG_CAPABILITY,
    ORPHAN_VALUE,
    Counters,
    Dentry,
    Inode,
    chunks_of,
    decode_counters,
    decode_dentry,
    decode_dirscan,
    decode_inode,
    decode_superblock,
)
from zerofs.fs.usage import charge

ROOT = 1


@dataclass
class Rows:
    """All rows of a filesystem, decoded."""

    inodes: dict[int, Inode] = field(default_factory=dict)
    dentries: dict[int, dict[bytes, Dentry]] = field(default_factory=lambda: defaultdict(dict))
    scans: dict[int, dict[int, tuple[int, int, bytes]]] = field(default_factory=lambda: defaultdict(dict))
    xattrs: dict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    chunks: dict[int, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    orphans: set[int] = field(default_factory=set)
    counters: Counters | None = None


def decode(rows: Mapping[bytes, bytes]) -> Rows:
    """Take rows apart. Raises CorruptionError for one that is no filesystem's."""
    found = Rows()
    for raw, value in rows.items():
        kind, inode, number, name = decode_key(raw)
        if kind is Kind.INODE:
            node = decode_inode(inode, raw, value)
            assert node.encode() == value, f"inode {inode} is not encoded in its only form"
            found.inodes[inode] = node
        elif kind is Kind.DENTRY:
            found.dentries[inode][name] = decode_dentry(value)
        elif kind is Kind.DIRSCAN:
            found.scans[inode][number] = decode_dirscan(value)
        elif kind is Kind.XATTR:
            found.xattrs[inode].append(name)
        elif kind is Kind.CHUNK:
            found.chunks[inode][number] = value
        elif kind is Kind.ORPHAN:
            assert value == ORPHAN_VALUE
            found.orphans.add(inode)
        elif kind is Kind.COUNTERS:
            found.counters = decode_counters(value)
        else:
            decode_superblock(value)
    return found


def complaints(raw: Mapping[bytes, bytes], *, orphans_allowed: bool) -> list[str]:
    """What is wrong; empty if nothing. After a remount no orphans are allowed [15]."""
    rows = decode(raw)
    problems = [*_counters(rows), *_names(rows), *_links(rows)]
    for number, node in rows.inodes.items():
        problems += _directory(rows, node) if node.is_directory else _no_entries(rows, number)
        problems += _data(node, rows.chunks.get(number, {}))
        problems += _xattrs(node, rows.xattrs.get(number, []))
    for what, table in (("chunks", rows.chunks), ("xattrs", rows.xattrs), ("dentries", rows.dentries)):
        problems += [
            f"[9, 13] {what} of inode {number}, which is not there" for number in table if number not in rows.inodes
        ]
    if rows.orphans and not orphans_allowed:
        problems.append(f"[15] orphans are left: {sorted(rows.orphans)}")
    return problems


def _counters(rows: Rows) -> list[str]:
    counters = rows.counters
    if counters is None:
        return ["the counters are missing"]
    problems = []
    used = sum(charge(node) for node in rows.inodes.values())
    if counters.used_bytes != used:
        problems.append(f"[4] {counters.used_bytes} bytes used, {used} counted")
    if counters.used_inodes != len(rows.inodes):
        problems.append(f"[4] {counters.used_inodes} inodes used, {len(rows.inodes)} counted")
    if counters.next_inode <= max(rows.inodes, default=0):
        problems.append(f"[10] the next inode is {counters.next_inode}, but {max(rows.inodes)} exists")
    return problems


def _names(rows: Rows) -> list[str]:
    problems = []
    for directory in rows.dentries.keys() | rows.scans.keys():
        by_name = {(entry.cookie, entry.inode, entry.kind, name) for name, entry in rows.dentries[directory].items()}
        by_cookie = {(cookie, inode, kind, name) for cookie, (inode, kind, name) in rows.scans[directory].items()}
        if by_name != by_cookie:
            problems.append(f"[11] names and cookies of directory {directory} differ: {by_name ^ by_cookie}")
        for cookie, inode, kind, name in by_name:
            node = rows.inodes.get(inode)
            if node is None:
                problems.append(f"[2] {name!r} in {directory} leads to {inode}, which is not there")
            elif node.kind != kind:
                problems.append(f"[12] {name!r} in {directory} says kind {kind}, the inode {node.kind}")
            if cookie < FIRST_COOKIE:
                problems.append(f"[14] {name!r} in {directory} has cookie {cookie}")
    return problems


def _links(rows: Rows) -> list[str]:
    problems = []
    names = Counter(entry.inode for entries in rows.dentries.values() for entry in entries.values())
    reachable = set()
    todo = [ROOT]
    while todo:
        directory = todo.pop()
        reachable.add(directory)
        for entry in rows.dentries.get(directory, {}).values():
            node = rows.inodes.get(entry.inode)
            if node is not None and node.is_directory:
                if entry.inode in reachable:
                    problems.append(f"[3] directory {entry.inode} has two names")
                    continue
                if node.parent != directory:
                    problems.append(f"directory {entry.inode} stands in {directory} and says {node.parent}")
                todo.append(entry.inode)
            reachable.add(entry.inode)
    for number, node in rows.inodes.items():
        if number not in reachable and number not in rows.orphans:
            problems.append(f"[3] inode {number} cannot be reached and is no orphan")
        if not node.is_directory and node.nlink != names[number]:
            problems.append(f"[5] inode {number} counts {node.nlink} names, there are {names[number]}")
        if (node.nlink == 0) != (number in rows.orphans):
            problems.append(f"[7] inode {number} has {node.nlink} links; orphan: {number in rows.orphans}")
    problems += [f"[7] orphan {number} is not there" for number in rows.orphans - rows.inodes.keys()]
    if rows.inodes[ROOT].parent != ROOT:
        problems.append("the root's parent is not the root")
    return problems


def _directory(rows: Rows, node: Inode) -> list[str]:
    problems = []
    entries = rows.dentries.get(node.number, {})
    if node.entries != len(entries):
        problems.append(f"[1] directory {node.number} counts {node.entries} entries, there are {len(entries)}")
    subdirectories = sum(entry.kind == node.kind for entry in entries.values())
    if node.nlink not in ((0,) if node.number in rows.orphans else (2 + subdirectories,)):
        problems.append(f"[6] directory {node.number} has {node.nlink} links and {subdirectories} subdirectories")
    highest = max((entry.cookie for entry in entries.values()), default=0)
    if node.next_cookie <= max(highest, FIRST_COOKIE - 1):
        problems.append(f"[14] directory {node.number}: next cookie {node.next_cookie}, used {highest}")
    return problems


def _no_entries(rows: Rows, number: int) -> list[str]:
    if rows.dentries.get(number) or rows.scans.get(number):
        return [f"[13] inode {number} is no directory and has entries"]
    return []


def _data(node: Inode, chunks: Mapping[int, bytes]) -> list[str]:
    problems = []
    if node.allocated != len(chunks):
        problems.append(f"[8] inode {node.number} counts {node.allocated} chunks, there are {len(chunks)}")
    if chunks and (not node.is_regular or node.is_inline):
        problems.append(f"[8] inode {node.number} should have no chunks")
    if node.allocated == chunks_of(node.size) and not node.is_inline and set(chunks) != set(range(node.allocated)):
        problems.append(f"[8] inode {node.number} has a gap and counts as dense")
    for index, data in chunks.items():
        if not 0 < len(data) <= extent_in_chunk(node.size, index):
            problems.append(f"[8] inode {node.number}, {node.size} bytes: {len(data)} bytes in chunk {index}")
        if is_zero(data):
            problems.append(f"inode {node.number}: chunk {index} is all zeros")
    return problems


def _xattrs(node: Inode, names: list[bytes]) -> list[str]:
    problems = []
    total = sum(len(name) + 1 for name in names)
    if node.xattr_list_size != total:
        problems.append(f"inode {node.number} counts {node.xattr_list_size} bytes of xattr names, there are {total}")
    if bool(node.flags & FLAG_CAPABILITY) != (b"security.capability" in names):
        problems.append(f"inode {node.number}: the capability flag is wrong")
    return problems


def assert_consistent(raw: Mapping[bytes, bytes], *, orphans_allowed: bool = False) -> None:
    """Raise AssertionError with everything that is wrong."""
    problems = complaints(raw, orphans_allowed=orphans_allowed)
    assert not problems, os.linesep.join(["the filesystem is inconsistent:", *problems])


def key_of(inode: int) -> bytes:
    """The key of an inode's row: for tests that damage one."""
    return inode_key(inode)
