"""Requests and replies of the kernel's protocol, against layouts that are written down a second time."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.frontend.fuse.native.kernel import request
from zerofs.frontend.fuse.native import protocol, replies, requests
from zerofs.frontend.fuse.native.protocol import Opcode
from zerofs.frontend.fuse.native.requests import MalformedRequestError
from zerofs.fs.attributes import AttributeChanges, Attributes, DirectoryEntry, FilesystemStatistics

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
times = st.integers(-(2**62), 2**62)
attributes = st.builds(
    Attributes,
    **dict.fromkeys(("inode", "size_bytes", "blocks"), u64),
    **dict.fromkeys(("nlink", "uid", "gid", "rdev"), u32),
    **dict.fromkeys(("atime_ns", "mtime_ns", "ctime_ns", "btime_ns"), times),
    mode=st.integers(0, 2**16 - 1),
)
names = st.binary(max_size=300).filter(lambda name: b"\0" not in name)


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        ("IN_HEADER", 40),
        ("OUT_HEADER", 16),
        ("ATTR", 88),
        ("ENTRY_HEAD", 40),
        ("ATTR_HEAD", 16),
        ("SETATTR", 88),
        ("MKNOD", 16),
        ("MKDIR", 8),
        ("RENAME2", 16),
        ("OPEN", 8),
        ("CREATE", 16),
        ("OPEN_OUT", 16),
        ("RELEASE", 24),
        ("FLUSH", 24),
        ("READ", 40),
        ("WRITE", 40),
        ("WRITE_OUT", 8),
        ("STATFS_OUT", 80),
        ("FSYNC", 16),
        ("SETXATTR", 8),
        ("GETXATTR", 8),
        ("ACCESS", 8),
        ("INIT_OUT", 64),
        ("INTERRUPT", 8),
        ("FALLOCATE", 32),
        ("LSEEK", 24),
        ("COPY_FILE_RANGE", 56),
        ("DIRENT", 24),
        ("STATX", 24),
        ("STATX_HEAD", 32),
        ("STATX_OUT", 256),
        ("INVAL_INODE", 24),
        ("INVAL_ENTRY", 16),
    ],
)
def test_sizes_are_those_of_the_header_file(layout, size):
    assert getattr(protocol, layout).size == size


@given(st.sampled_from(list(Opcode)), u64, u64, u32, u32, u32, st.binary(max_size=50))
def test_a_header(opcode, unique, node, uid, gid, pid, body):
    found = requests.header(memoryview(request(opcode, node, body, unique=unique, uid=uid, gid=gid, pid=pid)))
    assert found == (opcode, unique, node, uid, gid, pid)


@given(st.binary(max_size=60))
def test_what_is_no_header(message):
    with pytest.raises(MalformedRequestError):
        requests.header(memoryview(message))


@given(names, names, st.binary(max_size=8))
def test_names(one, two, rest):
    body = memoryview(rest + one + b"\0" + two + b"\0")
    assert requests.name(body, len(rest)) == one
    assert requests.two_names(body, len(rest)) == (one, two)
    assert requests.two_names(memoryview(bytes(body) + b"padding"), len(rest)) == (one, two)
    with pytest.raises(MalformedRequestError):
        requests.name(memoryview(one))
    with pytest.raises(MalformedRequestError):
        requests.two_names(memoryview(one + b"\0" + two))


@given(st.lists(st.tuples(u64, u64), max_size=5), st.integers(1, 15))
def test_many_that_are_forgotten(expected, cut):
    body = struct.pack("<II", len(expected), 0) + b"".join(struct.pack("<QQ", *one) for one in expected)
    assert requests.forgotten(memoryview(body)) == expected
    with pytest.raises(MalformedRequestError):
        requests.forgotten(memoryview(body[:-cut]))


@given(names.filter(len), st.binary(max_size=100), u32)
def test_a_value(name, value, flags):
    body = struct.pack("<II", len(value), flags) + name + b"\0" + value
    assert requests.value(memoryview(body)) == (name, value, flags)
    if value:
        with pytest.raises(MalformedRequestError):
            requests.value(memoryview(body[:-1]))


def setattr_body(valid, **fields):
    order = [
        *("valid", "_", "fh", "size", "_", "atime", "mtime", "ctime", "atimensec", "mtimensec", "ctimensec"),
        *("mode", "_", "uid", "gid", "_"),
    ]
    values = {"valid": valid, **fields}
    return struct.pack("<IIQQQqqqIIIIIIII", *(values.get(name, 0) for name in order))


def test_attributes_that_change():
    body = setattr_body(0b1000001111, mode=0o100644, uid=5, gid=6, size=7, fh=9)
    assert requests.attribute_changes(memoryview(body)) == (
        AttributeChanges(mode=0o644, uid=5, gid=6, size_bytes=7),
        None,
        0,
    )
    body = setattr_body(1 << 3 | 1 << 6, size=2**40, fh=9)
    assert requests.attribute_changes(memoryview(body)) == (AttributeChanges(size_bytes=2**40), 9, 0)
    body = setattr_body(1 << 3 | 1 << 11, size=1)
    assert requests.attribute_changes(memoryview(body))[2], "privileges go"
    body = setattr_body(1 << 4 | 1 << 5 | 1 << 10, atime=-3, atimensec=5, mtime=4, mtimensec=6, ctime=2**33)
    assert requests.attribute_changes(memoryview(body))[0] == AttributeChanges(
        atime_ns=-2_999_999_995, mtime_ns=4_000_000_006, ctime_ns=2**33 * 10**9
    )
    body = setattr_body(1 << 4 | 1 << 5 | 1 << 7 | 1 << 8, atime=3, mtime=4)
    assert requests.attribute_changes(memoryview(body))[0] == AttributeChanges(atime_now=True, mtime_now=True)


def parts_of_attributes(data):
    return struct.unpack("<QQQqqqIIIIIIIIII", data)


@given(attributes, st.sampled_from([0.0, 0.25, 1.0, 86400.0]))
def test_an_entry(found, lifetime_s):
    data = replies.entry(found, lifetime_s)
    node, generation, entry_s, attr_s, entry_ns, attr_ns = struct.unpack_from("<QQQQII", data)
    assert (node, generation) == (found.inode, 0)
    assert entry_s + entry_ns / 1e9 == attr_s + attr_ns / 1e9 == lifetime_s
    shown = parts_of_attributes(data[40:])
    assert shown[:3] == (found.inode, found.size_bytes, found.blocks)
    seconds, nanoseconds = shown[3:6], shown[6:9]
    for whole, rest, expected in zip(
        seconds, nanoseconds, (found.atime_ns, found.mtime_ns, found.ctime_ns), strict=True
    ):
        assert whole * 10**9 + rest == expected
        assert rest < 10**9
    assert shown[9:14] == (found.mode, found.nlink, found.uid, found.gid, found.rdev)
    assert replies.attributes(found, lifetime_s)[16:] == data[40:]


@given(attributes)
def test_attributes_with_the_time_of_birth(found):
    data = replies.extended_attributes(found, 1.5)
    assert struct.unpack_from("<QI", data) == (1, 500_000_000)
    shown = struct.unpack_from("<IIQIIIHHQQQQ", data, 32)
    assert shown[3:7] == (found.nlink, found.uid, found.gid, found.mode)
    assert shown[8:11] == (found.inode, found.size_bytes, found.blocks)
    order = (found.atime_ns, found.btime_ns, found.ctime_ns, found.mtime_ns)
    for number, expected in enumerate(order):
        whole, rest = struct.unpack_from("<qI", data, 32 + 64 + 16 * number)
        assert whole * 10**9 + rest == expected
    assert struct.unpack_from("<II", data, 32 + 128) == (os.major(found.rdev), os.minor(found.rdev))


def test_an_absent_name():
    data = replies.absent(60.0)
    assert struct.unpack_from("<QQQ", data) == (0, 0, 60)
    assert len(data) == 128


@given(names.filter(len), attributes, u64)
def test_directory_records(name, found, cookie):
    data = replies.directory_entry(name, found.inode, cookie, found.mode)
    assert len(data) % 8 == 0
    assert len(data) - 24 - len(name) < 8
    assert struct.unpack_from("<QQII", data) == (found.inode, cookie, len(name), found.mode >> 12)
    assert data[24 : 24 + len(name)] == name
    entry = DirectoryEntry(name, cookie, found)
    assert replies.entry_plus(entry, replies.seconds_and_ns(1.5)) == replies.entry(found, 1.5) + data
    assert replies.plain_entry_plus(name, found.inode, cookie, found.mode) == bytes(128) + data


def test_statistics():
    found = FilesystemStatistics(
        block_size=4096, blocks_total=9, blocks_free=4, files_total=7, files_free=3, name_max=255
    )
    assert struct.unpack("<QQQQQIIII24x", replies.statistics(found)) == (9, 4, 4, 7, 3, 4096, 255, 4096, 0)


def test_headers_and_notices():
    assert replies.header(7, 100) == struct.pack("<IiQ", 116, 0, 7)
    assert replies.refusal(7, 2) == struct.pack("<IiQ", 16, -2, 7)
    assert replies.inode_changed(5) == struct.pack("<IiQQqq", 40, 2, 0, 5, 0, 0)
