"""The invariants of a filesystem's rows, checked by counting everything again. Pure: rows in, findings out.

Rows are given one by one: those of META_RANGE in the order of their keys, then those of CHUNK_RANGE in theirs. Memory:
what the census keeps, about 50 bytes for an inode and 17 for a name; never the rows.

    rule  holds when
       1  a directory counts the entries that it has
       2  every entry leads to an inode that is there
       3  every inode can be reached, or is an orphan; no directory has two names
       4  used bytes and inodes are what a recount gives
       5  a file's link count is the number of its names
       6  a directory's link count is 2 and its subdirectories
       7  exactly the inodes without links are marked as orphans
       8  a file has the chunks that it counts, none of them empty, too long or beyond its end
       9  no chunk and no xattr belongs to an inode that is not there
      10  the next inode number is above all that are used
      11  names and cookies of a directory are the same entries
      12  an entry says of what kind its inode is
      13  only a directory that is there has entries
      14  cookies are valid, and the next one is above all that are used
      15  after a clean close no orphans are left (asked of the caller: see `finish`)
      16  every row can be decoded
      17  parent of a directory, xattr counts and flags, chunks of zeros: this project's own
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from zerofs.errors import CorruptionError
from zerofs.fs.census import Census
from zerofs.fs.chunking import extent_in_chunk, is_zero
from zerofs.fs.format.keys import Key, Kind, decode_key
from zerofs.fs.format.records import (
    FIRST_COOKIE,
    FLAG_CAPABILITY,
    INLINE_LIMIT,
    ORPHAN_VALUE,
    Counters,
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
DIRECTORY = 4
REGULAR = 8
"""Kinds as in the mode."""

CAPABILITY = b"security.capability"


@dataclass(slots=True, frozen=True, kw_only=True)
class Finding:
    """Something that does not hold. `inode` is the one concerned, 0 when it is the filesystem as a whole."""

    rule: int
    inode: int
    problem: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.problem}"


class _Group:
    """The rows of one inode, as far as they were read. They are neighbours."""

    __slots__ = ("cookies", "entries", "highest_cookie", "names", "node", "number", "scans", "subdirectories", "xattrs")

    def __init__(self, number: int) -> None:
        self.number = number
        self.node: Inode | None = None
        self.xattrs: list[bytes] = []
        self.scans = 0
        self.entries = 0
        self.subdirectories = 0
        self.highest_cookie = 0
        # The sums are equal when the entries are: nothing has to be kept of a directory of any size.
        self.cookies = 0
        self.names = 0


class Checker:
    """One examination. `row` for each row, then `finish`; both give what they find."""

    def __init__(self) -> None:
        self.census = Census()
        self._group: _Group | None = None
        self._counters: Counters | None = None
        self._used_bytes = 0
        self._has_superblock = False
        self._next_chunk = (0, 0)
        """Inode, and the index of the chunk that would follow without a gap."""

    def row(self, raw: bytes, value: bytes, size: int | None = None) -> Iterator[Finding]:
        """What is wrong with one row. `size`: bytes of a chunk whose data is not given."""
        try:
            key = decode_key(raw)
            yield from self._row(key, raw, value, size)
        except CorruptionError as error:
            yield Finding(rule=16, inode=_inode_of(raw), problem=str(error))

    def _row(self, key: Key, raw: bytes, value: bytes, size: int | None) -> Iterator[Finding]:
        if key.kind is Kind.CHUNK:
            yield from self._close_group()
            yield from self._chunk(key, value, len(value) if size is None else size)
        elif key.kind is Kind.SUPERBLOCK:
            self._has_superblock = True
            decode_superblock(value)
        elif key.kind is Kind.COUNTERS:
            self._counters = decode_counters(value)
        elif key.kind is Kind.ORPHAN:
            self.census.orphans.append(key.inode)
            if value != ORPHAN_VALUE:
                yield Finding(rule=16, inode=key.inode, problem=f"the orphan mark of inode {key.inode} is malformed")
        else:
            if self._group is None or self._group.number != key.inode:
                yield from self._close_group()
                self._group = _Group(key.inode)
            yield from self._of_inode(self._group, key, raw, value)

    def _of_inode(self, group: _Group, key: Key, raw: bytes, value: bytes) -> Iterator[Finding]:
        number = key.inode
        if key.kind is Kind.INODE:
            group.node = node = decode_inode(number, raw, value)
            self.census.add(node)
            self._used_bytes += charge(node)
        elif key.kind is Kind.XATTR:
            group.xattrs.append(key.name)
        elif key.kind is Kind.DIRSCAN:
            inode, kind, name = decode_dirscan(value)
            group.scans += 1
            group.cookies += _digest(key.number, inode, kind, name)
        else:
            entry = decode_dentry(value)
            group.entries += 1
            group.subdirectories += entry.kind == DIRECTORY
            group.highest_cookie = max(group.highest_cookie, entry.cookie)
            group.names += _digest(entry.cookie, entry.inode, entry.kind, key.name)
            self.census.add_entry(number, entry.inode, entry.kind)
            if entry.cookie < FIRST_COOKIE:
                problem = f"{key.name!r} in directory {number} has cookie {entry.cookie}"
                yield Finding(rule=14, inode=number, problem=problem)

    def _close_group(self) -> Iterator[Finding]:
        group, self._group = self._group, None
        if group is None:
            return
        number, node = group.number, group.node
        if group.cookies != group.names or group.scans != group.entries:
            problem = f"names and cookies of directory {number} differ: {group.entries} names, {group.scans} cookies"
            yield Finding(rule=11, inode=number, problem=problem)
        if node is None:
            if group.xattrs:
                yield Finding(rule=9, inode=number, problem=f"xattrs of inode {number}, which is not there")
            if group.scans or group.entries:
                yield Finding(rule=13, inode=number, problem=f"entries of directory {number}, which is not there")
            return
        yield from _xattrs(node, group.xattrs)
        if node.is_directory:
            yield from _directory(node, group)
        elif group.scans or group.entries:
            yield Finding(rule=13, inode=number, problem=f"inode {number} is no directory and has entries")

    def _chunk(self, key: Key, value: bytes, size: int) -> Iterator[Finding]:
        census, number, index = self.census, key.inode, key.number
        position = census.position(number)
        is_first = self._next_chunk[0] != number
        expected = 0 if is_first else self._next_chunk[1]
        self._next_chunk = number, index + 1
        if position is None:
            if is_first:
                yield Finding(rule=9, inode=number, problem=f"chunks of inode {number}, which is not there")
            return
        census.chunks[position] += 1
        file_size = census.sizes[position]
        if census.kinds[position] != REGULAR or file_size <= INLINE_LIMIT:
            if is_first:
                yield Finding(rule=8, inode=number, problem=f"inode {number} should have no chunks")
            return
        if index != expected and census.allocated[position] == chunks_of(file_size):
            problem = f"inode {number} has no holes, but chunk {expected} is missing"
            yield Finding(rule=8, inode=number, problem=problem)
        if not 0 < size <= extent_in_chunk(file_size, index):
            problem = f"inode {number}, {file_size} bytes: {size} bytes in chunk {index}"
            yield Finding(rule=8, inode=number, problem=problem)
        if value and is_zero(value):
            yield Finding(rule=17, inode=number, problem=f"inode {number}: chunk {index} is all zeros")

    def finish(self, *, orphans_allowed: bool) -> Iterator[Finding]:
        """What only the whole shows. Orphans are allowed unless the filesystem was closed cleanly since."""
        yield from self._close_group()
        if not self._has_superblock:
            yield Finding(rule=16, inode=0, problem="the superblock is missing")
        yield from self._totals()
        yield from self._entries()
        yield from self._reachability()
        yield from self._inodes()
        orphans = self.census.orphans
        for number in orphans:
            if self.census.position(number) is None:
                yield Finding(rule=7, inode=number, problem=f"orphan {number} is not there")
        if orphans and not orphans_allowed:
            yield Finding(rule=15, inode=0, problem=f"{len(orphans)} orphans are left, the first is {orphans[0]}")

    def _totals(self) -> Iterator[Finding]:
        counters, numbers = self._counters, self.census.numbers
        if counters is None:
            yield Finding(rule=4, inode=0, problem="the counters are missing")
            return
        if counters.used_bytes != self._used_bytes:
            problem = f"{counters.used_bytes} bytes used, {self._used_bytes} counted"
            yield Finding(rule=4, inode=0, problem=problem)
        if counters.used_inodes != len(numbers):
            problem = f"{counters.used_inodes} inodes used, {len(numbers)} counted"
            yield Finding(rule=4, inode=0, problem=problem)
        if numbers and counters.next_inode <= numbers[-1]:
            problem = f"the next inode is {counters.next_inode}, but {numbers[-1]} exists"
            yield Finding(rule=10, inode=0, problem=problem)

    def _entries(self) -> Iterator[Finding]:
        census = self.census
        columns = zip(census.entry_directories, census.entry_targets, census.entry_kinds, strict=True)
        for directory, target, kind in columns:
            position = census.position(target)
            if position is None:
                problem = f"an entry of directory {directory} leads to inode {target}, which is not there"
                yield Finding(rule=2, inode=directory, problem=problem)
                continue
            census.names[position] += 1
            if census.kinds[position] != kind:
                problem = (
                    f"an entry of directory {directory} says that inode {target} is of kind {kind}, "
                    f"the inode says {census.kinds[position]}"
                )
                yield Finding(rule=12, inode=target, problem=problem)

    def _reachability(self) -> Iterator[Finding]:
        census = self.census
        reached = bytearray(len(census.numbers))
        root = census.position(ROOT)
        if root is None:
            yield Finding(rule=2, inode=ROOT, problem="the root directory is missing")
        elif census.kinds[root] != DIRECTORY:
            yield Finding(rule=2, inode=ROOT, problem="the root is no directory")
        elif census.parents[root] != ROOT:
            yield Finding(rule=17, inode=ROOT, problem="the root's parent is not the root")
        todo = [] if root is None else [ROOT]
        if root is not None:
            reached[root] = 1
        while todo:
            directory = todo.pop()
            for entry in census.entries_of(directory):
                target = census.entry_targets[entry]
                position = census.position(target)
                if position is None:
                    continue
                if census.kinds[position] == DIRECTORY:
                    if reached[position]:
                        yield Finding(rule=3, inode=target, problem=f"directory {target} has two names")
                        continue
                    if census.parents[position] != directory:
                        problem = f"directory {target} stands in {directory} and says {census.parents[position]}"
                        yield Finding(rule=17, inode=target, problem=problem)
                    todo.append(target)
                reached[position] = 1
        for position, number in enumerate(census.numbers):
            if not reached[position] and not census.is_orphan(number):
                yield Finding(rule=3, inode=number, problem=f"inode {number} cannot be reached and is no orphan")

    def _inodes(self) -> Iterator[Finding]:
        census = self.census
        for position, number in enumerate(census.numbers):
            nlink, names, kind = census.nlinks[position], census.names[position], census.kinds[position]
            if kind != DIRECTORY and nlink != names:
                problem = f"inode {number} counts {nlink} names, there are {names}"
                yield Finding(rule=5, inode=number, problem=problem)
            is_orphan = census.is_orphan(number)
            if (nlink == 0) != is_orphan:
                says = "is marked as an orphan" if is_orphan else "is not marked as an orphan"
                yield Finding(rule=7, inode=number, problem=f"inode {number} has {nlink} links and {says}")
            allocated, chunks = census.allocated[position], census.chunks[position]
            if kind == REGULAR and allocated != chunks:
                problem = f"inode {number} counts {allocated} chunks, there are {chunks}"
                yield Finding(rule=8, inode=number, problem=problem)


def _directory(node: Inode, group: _Group) -> Iterator[Finding]:
    number = node.number
    if node.entries != group.entries:
        problem = f"directory {number} counts {node.entries} entries, there are {group.entries}"
        yield Finding(rule=1, inode=number, problem=problem)
    # Without links it is an orphan, or should be: rule 7.
    if node.nlink not in (0, 2 + group.subdirectories):
        problem = f"directory {number} has {node.nlink} links and {group.subdirectories} subdirectories"
        yield Finding(rule=6, inode=number, problem=problem)
    if node.next_cookie <= max(group.highest_cookie, FIRST_COOKIE - 1):
        problem = f"directory {number}: next cookie {node.next_cookie}, used {group.highest_cookie}"
        yield Finding(rule=14, inode=number, problem=problem)


def _xattrs(node: Inode, names: list[bytes]) -> Iterator[Finding]:
    total = sum(len(name) + 1 for name in names)
    if node.xattr_list_size != total:
        problem = f"inode {node.number} counts {node.xattr_list_size} bytes of xattr names, there are {total}"
        yield Finding(rule=17, inode=node.number, problem=problem)
    if bool(node.flags & FLAG_CAPABILITY) != (CAPABILITY in names):
        yield Finding(rule=17, inode=node.number, problem=f"inode {node.number}: the capability flag is wrong")


def _digest(cookie: int, inode: int, kind: int, name: bytes) -> int:
    """One entry as a number; the sum of many such tells two sets of entries apart."""
    head = cookie.to_bytes(8) + inode.to_bytes(8) + bytes([kind])
    return int.from_bytes(blake2b(head + name, digest_size=16).digest())


def _inode_of(raw: bytes) -> int:
    """The inode that a row belongs to, 0 when its key does not tell."""
    try:
        return decode_key(raw).inode
    except CorruptionError:
        return 0
