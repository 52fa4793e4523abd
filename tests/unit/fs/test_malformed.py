"""Malformed names, offsets, flags, sizes, inodes and handles: an errno, and a volume that is as it was.

A kernel that runs `default_permissions` sends none of these; a frontend that is wrong, or fuzzed, may.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.fs_checker import assert_consistent
from tests.model.on_room import RoomCalls, finish
from tests.unit.fs.harness import ROOT_CALLER
from zerofs.fs.attributes import AttributeChanges

names = st.one_of(
    st.sampled_from([b"", b".", b"..", b"a/b", b"/", b"\0", b"a\0b", b"n" * 256, b"n" * 5000, b"f", b"d", b"new"]),
    st.binary(max_size=8),
)
# As wide as the protocol has them.
nodes = st.one_of(st.integers(0, 6), st.sampled_from([2**32, 2**63 - 1, 2**63, 2**64 - 1]))
owners = st.sampled_from([0, 1, 1001, 2**31, 2**32 - 1])
offsets = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63)]),
)
flags = st.one_of(st.integers(0, 8), st.sampled_from([1 << bit for bit in range(31)]))
contents = st.sampled_from([b"", b"x", b"x" * 5000])

CALLS = {
    "lookup": (names,),
    "mknod": (names, flags, owners),
    "mkdir": (names, flags),
    "symlink": (names, st.one_of(names, st.just(b"t" * 4096))),
    "unlink": (names,),
    "rmdir": (names,),
    "create": (names, flags, flags),
    "access": (flags,),
    "getxattr": (names,),
    "setxattr": (st.one_of(names, st.just(b"user.x"), st.just(b"user." + b"n" * 251)), contents, flags),
    "removexattr": (names,),
    "opendir": (),
    "open": (flags,),
}
"""Of an inode."""

HANDLE_CALLS = {
    "read": (offsets, offsets),
    "write": (offsets, contents),
    "allocate": (flags, offsets, offsets),
    "seek_data": (offsets,),
    "seek_hole": (offsets,),
    "readdir": (offsets, st.integers(-3, 100)),
    "flush": (),
    "release": (),
}


def refused_or_done(call):
    """One call on a room of its own. Either it succeeds, or it is an OSError and nothing has changed."""
    room = RoomCalls()
    room.mknod(b"f", 0o100644)
    room.mkdir(b"d", 0o755)
    room.pwrite(room.open(b"f", os.O_RDWR), 0, b"y" * 40_000)
    before = room.engine.rows()
    try:
        finish(call(room.fs))
    except OSError:
        assert room.engine.rows() == before
    room.engine.check_live_values()
    assert_consistent(room.engine.rows(), orphans_allowed=True)


SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("call", CALLS)
def test_calls_on_an_inode(call):
    @SETTINGS
    @given(inode=nodes, arguments=st.tuples(*CALLS[call]))
    def check(inode, arguments):
        refused_or_done(lambda fs: getattr(fs, call)(ROOT_CALLER, inode, *arguments))

    check()


@pytest.mark.parametrize("call", HANDLE_CALLS)
def test_calls_on_a_handle(call):
    @SETTINGS
    @given(handle=nodes, arguments=st.tuples(*HANDLE_CALLS[call]))
    def check(handle, arguments):
        refused_or_done(lambda fs: getattr(fs, call)(handle, *arguments))

    check()


@SETTINGS
@given(inode=nodes, parent=nodes, other=nodes, name=names, new_name=names, how=flags)
def test_calls_with_two_names(inode, parent, other, name, new_name, how):
    refused_or_done(lambda fs: fs.link(ROOT_CALLER, inode, parent, name))
    refused_or_done(lambda fs: fs.rename(ROOT_CALLER, parent, name, other, new_name, how))


@SETTINGS
@given(source=nodes, start=offsets, target=nodes, place=offsets, size=offsets)
def test_copying_ranges(source, start, target, place, size):
    refused_or_done(lambda fs: fs.copy_range(source, start, target, place, size))


@SETTINGS
@given(
    inode=nodes,
    mode=st.one_of(st.none(), flags, st.just(0o177777)),
    uid=st.one_of(st.none(), owners),
    gid=st.one_of(st.none(), owners),
    size=st.one_of(st.none(), offsets),
    atime=st.one_of(st.none(), offsets),
)
def test_changing_attributes(inode, mode, uid, gid, size, atime):
    changes = AttributeChanges(mode=mode, uid=uid, gid=gid, size_bytes=size, atime_ns=atime)
    refused_or_done(lambda fs: fs.setattr(ROOT_CALLER, inode, changes))
