"""What is agreed with kernels of every kind."""

import struct

import pytest

from tests.unit.frontend.fuse.native.kernel import INIT_FLAGS, init
from zerofs.frontend.fuse.native.negotiation import MAX_WRITE, agree, only_our_major
from zerofs.frontend.fuse.native.protocol import Init
from zerofs.frontend.fuse.native.requests import MalformedRequestError
from zerofs.frontend.fuse.options import FuseOptions


def agreed(options=None, **offered):
    return agree(memoryview(init(**offered)), options or FuseOptions())


def test_a_kernel_that_can_everything():
    found = agreed()
    major, minor, readahead, flags, _, _, max_write, granularity, pages, _, _ = struct.unpack(
        "<IIIIHHIIHHI28x", found.reply
    )
    assert (major, minor, readahead, max_write, granularity, pages) == (7, 45, 1 << 20, MAX_WRITE, 1, 256)
    assert flags == found.flags
    assert found.flags & Init.WRITEBACK_CACHE
    for never in (Init.POSIX_LOCKS, Init.FLOCK_LOCKS, Init.POSIX_ACL, Init.EXPORT_SUPPORT, Init.DONT_MASK):
        assert not found.flags & never


def test_nothing_is_taken_that_was_not_offered():
    found = agreed(flags=int(Init.ASYNC_READ | Init.POSIX_LOCKS))
    assert found.flags == Init.ASYNC_READ
    assert found.max_write == 32 * 4096


@pytest.mark.parametrize("options", [{"writeback": False}, {"read_only": True}])
def test_when_the_kernel_does_not_cache_writes(options):
    assert not agreed(FuseOptions(**options)).flags & Init.WRITEBACK_CACHE


def test_a_follower_lets_the_kernel_look_whether_files_changed():
    assert agreed(FuseOptions(lifetime=lambda: 1.0, read_only=True)).flags & Init.AUTO_INVAL_DATA
    assert not agreed().flags & Init.AUTO_INVAL_DATA


@pytest.mark.parametrize(("minor", "spoken"), [(31, 31), (45, 45), (99, 45)])
def test_the_older_of_two_versions_is_spoken(minor, spoken):
    assert agreed(minor=minor).minor == spoken


def test_a_newer_major_version_is_told_ours():
    assert agreed(major=8) is None
    assert struct.unpack_from("<II", only_our_major()) == (7, 45)


@pytest.mark.parametrize("version", [{"major": 6}, {"minor": 30}])
def test_too_old(version):
    with pytest.raises(MalformedRequestError, match="oldest"):
        agreed(**version)


def test_too_short():
    with pytest.raises(MalformedRequestError):
        agree(memoryview(init(INIT_FLAGS)[:15]), FuseOptions())
