"""Keys: their bytes, their order, and that only they decode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.errors import CorruptionError
from zerofs.fs.format import keys
from zerofs.fs.format.keys import Key, Kind, decode_key

u64 = st.integers(0, 2**64 - 1)
inodes = st.integers(1, 2**64 - 2)
names = st.binary(min_size=1, max_size=255)


def test_bytes() -> None:
    assert keys.SUPERBLOCK_KEY == b"meta\x00\x00"
    assert keys.COUNTERS_KEY == b"meta\x00\x01"
    assert keys.orphan_key(0x0102) == b"meta\x01" + bytes.fromhex("0000000000000102")
    assert keys.inode_key(0x0102) == b"meta\x02" + bytes.fromhex("0000000000000102 00")
    assert keys.xattr_key(2, b"user.a") == b"meta\x02" + bytes.fromhex("0000000000000002 01") + b"user.a"
    assert keys.dirscan_key(2, 3) == b"meta\x02" + bytes.fromhex("0000000000000002 02 0000000000000003")
    assert keys.dentry_key(2, b"name") == b"meta\x02" + bytes.fromhex("0000000000000002 03") + b"name"
    assert keys.chunk_key(2, 3) == b"chunk" + bytes.fromhex("0000000000000002 0000000000000003")


@given(inodes, u64, names)
def test_round_trip(inode: int, number: int, name: bytes) -> None:
    assert decode_key(keys.inode_key(inode)) == Key(Kind.INODE, inode)
    assert decode_key(keys.orphan_key(inode)) == Key(Kind.ORPHAN, inode)
    assert decode_key(keys.xattr_key(inode, name)) == Key(Kind.XATTR, inode, 0, name)
    assert decode_key(keys.dentry_key(inode, name)) == Key(Kind.DENTRY, inode, 0, name)
    assert decode_key(keys.dirscan_key(inode, number)) == Key(Kind.DIRSCAN, inode, number)
    assert decode_key(keys.chunk_key(inode, number)) == Key(Kind.CHUNK, inode, number)
    assert keys.decode_dirscan_cookies([keys.dirscan_key(inode, number)] * 2) == [number, number]
    assert decode_key(keys.SUPERBLOCK_KEY) == Key(Kind.SUPERBLOCK)
    assert decode_key(keys.COUNTERS_KEY) == Key(Kind.COUNTERS)


@given(st.tuples(inodes, u64), st.tuples(inodes, u64))
def test_byte_order_is_number_order(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert (keys.chunk_key(*a) < keys.chunk_key(*b)) == (a < b)
    assert (keys.dirscan_key(*a) < keys.dirscan_key(*b)) == (a < b)


@given(inodes, names, names, u64)
def test_rows_of_one_inode_are_neighbours_in_the_order_of_parts(inode: int, xattr: bytes, name: bytes, n: int) -> None:
    mine = [
        keys.inode_key(inode),
        keys.xattr_key(inode, xattr),
        keys.dirscan_key(inode, n),
        keys.dentry_key(inode, name),
    ]
    assert mine == sorted(mine)
    assert keys.dentry_key(inode - 1, name) < mine[0]
    assert mine[-1] < keys.inode_key(inode + 1)
    assert keys.META_RANGE[0] <= mine[0] < keys.META_RANGE[1]


@given(inodes, u64, names)
def test_ranges_hold_their_own_rows_and_no_other(inode: int, number: int, name: bytes) -> None:
    others = [keys.inode_key(inode), keys.dentry_key(inode, name), keys.inode_key(inode + 1)]
    start, stop = keys.xattr_range(inode)
    assert start <= keys.xattr_key(inode, name) < stop
    assert not any(start <= key < stop for key in [*others, keys.dirscan_key(inode, number)])
    start, stop = keys.dirscan_range(inode, number)
    assert not start <= keys.dirscan_key(inode, number) < stop
    assert number == keys.MAX_COOKIE or start <= keys.dirscan_key(inode, number + 1) < stop
    assert not any(start <= key < stop for key in [*others, keys.xattr_key(inode, name)])
    start, stop = keys.chunk_range(inode, number)
    assert start <= keys.chunk_key(inode, number) < stop
    assert not start <= keys.chunk_key(inode + 1, 0) < stop
    assert number == 0 or not start <= keys.chunk_key(inode, number - 1) < stop
    assert keys.ORPHAN_RANGE[0] <= keys.orphan_key(inode) < keys.ORPHAN_RANGE[1] <= keys.inode_key(0)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"meta",
        b"other",
        b"meta\x00\x02",
        b"meta\x00",
        b"meta\x01" + bytes(7),
        b"meta\x01" + bytes(9),
        b"meta\x02" + bytes(8),
        b"meta\x02" + bytes(8) + b"\x00x",
        b"meta\x02" + bytes(8) + b"\x01",
        b"meta\x02" + bytes(8) + b"\x02" + bytes(7),
        b"meta\x02" + bytes(8) + b"\x03",
        b"meta\x02" + bytes(8) + b"\x04x",
        b"meta\x03" + bytes(8),
        b"chunk" + bytes(15),
        b"chunk" + bytes(17),
    ],
)
def test_nothing_else_decodes(key: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode_key(key)


def test_a_dirscan_key_of_another_length_is_refused() -> None:
    with pytest.raises(CorruptionError):
        keys.decode_dirscan_cookies([keys.dirscan_key(1, 3), keys.inode_key(1)])
