"""Values of rows: round trips, the examples of docs/format/records.md, and what must be refused."""

import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.errors import CorruptionError
from zerofs.fs.attributes import attributes_in, attributes_of
from zerofs.fs.format import keys, records
from zerofs.fs.format.records import Counters, Dentry, Inode, Superblock, decode_inode
from zerofs.units import CHUNK_SIZE

DOCUMENT = Path(__file__).parents[4] / "docs" / "format" / "records.md"

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
times = st.integers(-(2**63), 2**63 - 1)
names = st.binary(min_size=1, max_size=255)

STORED = [name for name in Inode.__slots__ if name not in ("__weakref__", "key", "handles", "version")]


@st.composite
def inodes(draw: st.DrawFn) -> Inode:
    kind = draw(st.sampled_from([8, 4, 10, 1, 12, 2, 6]))
    node = Inode(
        7, keys.inode_key(7), mode=kind << 12 | draw(st.integers(0, 0o7777)), uid=draw(u32), gid=draw(u32), now_ns=0
    )
    node.nlink = draw(u32)
    node.atime_ns, node.mtime_ns, node.ctime_ns, node.btime_ns = draw(st.tuples(times, times, times, times))
    node.xattr_list_size = draw(u32)
    node.flags = draw(st.integers(0, 1))
    if kind == 8:
        node.size = draw(st.one_of(st.integers(0, 5000), st.integers(0, 2**63 - 1)))
        if node.size <= records.INLINE_LIMIT:
            node.content = draw(st.binary(min_size=node.size, max_size=node.size))
        else:
            node.allocated = draw(st.integers(0, records.chunks_of(node.size)))
    elif kind == 4:
        node.parent, node.entries, node.next_cookie = draw(st.tuples(u64, u64, u64))
    elif kind == 10:
        node.content = draw(st.binary(min_size=1, max_size=records.SYMLINK_LIMIT))
    elif kind in (2, 6):
        node.rdev = draw(u64)
    return node


@given(inodes())
def test_an_inode_survives(node: Inode) -> None:
    again = decode_inode(node.number, node.key, node.encode())
    assert {name: getattr(again, name) for name in STORED} == {name: getattr(node, name) for name in STORED}
    assert (again.handles, again.version) == (0, 0)


@given(inodes())
def test_attributes_are_the_same_with_and_without_an_object(node: Inode) -> None:
    shown = attributes_in(node.number, node.encode())
    assert shown == (attributes_of(node) if node.is_regular else None)


@given(inodes(), st.data())
def test_attributes_without_an_object_are_those_of_a_whole_row_or_none(node: Inode, data: st.DataObject) -> None:
    row = bytearray(node.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(row[: data.draw(st.integers(len(row) - 2, len(row)))]) + data.draw(st.binary(max_size=1))
    shown = attributes_in(7, damaged)
    if shown is not None:
        assert shown == attributes_of(decode_inode(7, node.key, damaged))


@given(inodes(), st.data())
def test_a_cut_or_longer_inode_row_is_refused(node: Inode, data: st.DataObject) -> None:
    encoded = node.encode()
    length = data.draw(st.integers(0, len(encoded) - 1))
    cut = encoded[:length]
    if not (node.is_symlink and length > 52):  # a shorter target is a target
        with pytest.raises(CorruptionError):
            decode_inode(7, node.key, cut)
    if not node.is_symlink:
        with pytest.raises(CorruptionError):
            decode_inode(7, node.key, encoded + b"\0")


@given(inodes(), st.data())
def test_a_flipped_bit_gives_another_inode_or_an_error_never_anything_else(node: Inode, data: st.DataObject) -> None:
    encoded = bytearray(node.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        again = decode_inode(7, node.key, bytes(encoded))
    except CorruptionError:
        return
    assert again.encode() == encoded


def regular(size: int, allocated: int, content: bytes = b"") -> bytes:
    node = Inode(7, b"", mode=stat.S_IFREG, uid=0, gid=0, now_ns=0)
    node.size, node.allocated, node.content = size, allocated, content
    return node.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\x02" + regular(0, 0)[1:],
        b"\x01\x02" + regular(0, 0)[2:],
        regular(1024, 0),
        regular(1025, 0, b"x" * 1025),
        regular(1024, 1, b"x" * 1024),
        regular(CHUNK_SIZE, 2),
        regular(2**63, 0),
        regular(0, 0)[:2] + b"\0\0" + regular(0, 0)[4:],
        regular(0, 0)[:2] + (stat.S_IFLNK).to_bytes(2, "little") + regular(0, 0)[4:52],
        regular(0, 0)[:2] + (stat.S_IFLNK).to_bytes(2, "little") + regular(0, 0)[4:52] + bytes(4096),
    ],
    ids=["version", "flag", "short", "long", "inline-chunks", "chunks", "size", "type", "no-target", "long-target"],
)
def test_contradictory_inodes_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode_inode(7, b"", data)


@given(u64, u64, u64)
def test_counters_survive(next_inode: int, used_bytes: int, used_inodes: int) -> None:
    again = records.decode_counters(Counters(next_inode, used_bytes, used_inodes).encode())
    assert (again.next_inode, again.used_bytes, again.used_inodes) == (next_inode, used_bytes, used_inodes)


@given(u64, u64, st.integers(0, 255), names)
def test_entries_survive(inode: int, cookie: int, kind: int, name: bytes) -> None:
    dentry = Dentry(inode, cookie, kind)
    assert records.decode_dentry(records.encode_dentry(dentry)) == dentry
    assert records.decode_dirscan(records.encode_dirscan(inode, kind, name)) == (inode, kind, name)
    assert records.decode_dirscans([records.encode_dirscan(inode, kind, name)] * 2) == [(inode, name)] * 2


@given(times, u32, u32, u32)
def test_a_superblock_survives(created_ns: int, version: int, features: int, chunk_size: int) -> None:
    superblock = Superblock(created_ns, version, features, chunk_size)
    assert records.decode_superblock(records.encode_superblock(superblock)) == superblock


@pytest.mark.parametrize(
    ("decode", "good"),
    [
        (records.decode_counters, Counters(2).encode()),
        (records.decode_dentry, records.encode_dentry(Dentry(1, 3, 8))),
        (records.decode_superblock, records.encode_superblock(Superblock(0))),
    ],
)
def test_small_rows_of_another_length_are_refused(decode: object, good: bytes) -> None:
    for bad in (b"", good[:-1], good + b"\0"):
        with pytest.raises(CorruptionError):
            decode(bad)


def test_small_rows_of_another_kind_are_refused() -> None:
    with pytest.raises(CorruptionError):
        records.decode_counters(b"\x02" + Counters(2).encode()[1:])
    with pytest.raises(CorruptionError):
        records.decode_superblock(b"notzerof" + records.encode_superblock(Superblock(0))[8:])
    for name in (b"", b"x" * 256):
        with pytest.raises(CorruptionError):
            records.decode_dirscan(records.encode_dirscan(1, 8, name))
        with pytest.raises(CorruptionError):
            records.decode_dirscans([records.encode_dirscan(1, 8, b"good"), records.encode_dirscan(1, 8, name)])
    with pytest.raises(CorruptionError):
        records.decode_dirscans([b"short"])


def test_times_beyond_the_range_become_its_ends() -> None:
    assert records.clamp_time(2**70) == 2**63 - 1
    assert records.clamp_time(-(2**70)) == -(2**63)
    assert records.clamp_time(-5) == -5


# The document.

EXAMPLE = re.compile(r"^key   ((?:[0-9a-f]{2} ?)+)\nvalue ((?:[0-9a-f \n]|      )+?)\n(?=\n|```)", re.MULTILINE)


def examples() -> dict[str, tuple[bytes, bytes]]:
    """Heading → (key, value) of each worked example in the document."""
    found = {}
    for section in DOCUMENT.read_text().split("\n### ")[1:]:
        match = EXAMPLE.search(section)
        if match:
            found[section.splitlines()[0]] = (bytes.fromhex(match[1]), bytes.fromhex("".join(match[2].split())))
    return found


def test_the_document_has_an_example_of_each_kind_of_row() -> None:
    kinds = {keys.decode_key(key).kind for key, _ in examples().values()}
    assert kinds == set(keys.Kind)


def test_the_examples_of_the_document_are_a_consistent_filesystem() -> None:
    from tests.model.fs_checker import assert_consistent

    assert_consistent(dict(examples().values()), orphans_allowed=True)


def test_the_examples_of_the_document_say_what_the_document_says() -> None:
    rows = examples()
    small = decode_inode(3, *rows["Inode 3: a small file"])
    assert (oct(small.mode), small.uid, small.gid, small.nlink, small.size) == ("0o100640", 1000, 1000, 1, 6)
    assert small.content == b"hello\n"
    assert (small.atime_ns, small.mtime_ns) == (1_700_000_000_000_000_000, -1)
    assert small.xattr_list_size == len("user.note") + 1
    large = decode_inode(4, *rows["Inode 4: a file with a hole, unlinked while it is open"])
    assert (large.size, large.allocated, large.nlink) == (65541, 1, 0)
    root = decode_inode(1, *rows["Inode 1: the root"])
    assert (root.parent, root.entries, root.next_cookie, root.nlink) == (1, 2, 6, 2)
    link = decode_inode(5, *rows["Inode 5: a symbolic link"])
    assert link.content == b"a.txt"
    assert records.decode_counters(rows["Counters"][1]).next_inode == 6
    assert records.decode_superblock(rows["Superblock"][1]) == Superblock(1_700_000_000_000_000_000)
