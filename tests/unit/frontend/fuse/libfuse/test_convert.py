"""Values of pyfuse3 and of `zerofs.fs`, both ways."""

import stat
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyfuse3 import EntryAttributes

from zerofs.frontend.fuse.libfuse.convert import absent_entry, changes, entry, statvfs
from zerofs.fs.attributes import AttributeChanges, Attributes, FilesystemStatistics

FIELDS = ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")

times = st.integers(-(2**40), 2**62)
attributes = st.builds(
    Attributes,
    inode=st.integers(1, 2**63 - 1),
    mode=st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO]).map(lambda kind: kind | 0o4755),
    nlink=st.integers(0, 2**32 - 1),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    rdev=st.integers(0, 2**32 - 1),
    size_bytes=st.integers(0, 2**62),
    blocks=st.integers(0, 2**62),
    atime_ns=times,
    mtime_ns=times,
    ctime_ns=times,
    btime_ns=times,
)


@given(attributes)
def test_every_attribute_reaches_the_kernel(given_attributes):
    shown = entry(given_attributes, 12.5)
    assert (shown.st_ino, shown.st_mode, shown.st_nlink) == (
        given_attributes.inode,
        given_attributes.mode,
        given_attributes.nlink,
    )
    assert (shown.st_uid, shown.st_gid, shown.st_rdev) == (
        given_attributes.uid,
        given_attributes.gid,
        given_attributes.rdev,
    )
    assert (shown.st_size, shown.st_blocks) == (given_attributes.size_bytes, given_attributes.blocks)
    assert (shown.st_atime_ns, shown.st_mtime_ns, shown.st_ctime_ns) == (
        given_attributes.atime_ns,
        given_attributes.mtime_ns,
        given_attributes.ctime_ns,
    )
    assert (shown.entry_timeout, shown.attr_timeout) == (12.5, 12.5)


def test_absence_is_inode_zero_with_a_lifetime():
    nothing = absent_entry(7.0)
    assert (nothing.st_ino, nothing.entry_timeout) == (0, 7.0)


def wanted_attributes():
    wanted = EntryAttributes()
    wanted.st_mode = stat.S_IFREG | 0o4711
    wanted.st_uid, wanted.st_gid, wanted.st_size = 1, 2, 3
    wanted.st_atime_ns, wanted.st_mtime_ns, wanted.st_ctime_ns = 4, 5, 6
    return wanted


def fields(*names):
    return SimpleNamespace(**{f"update_{name}": name in names for name in FIELDS})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mode", AttributeChanges(mode=0o4711)),
        ("uid", AttributeChanges(uid=1)),
        ("gid", AttributeChanges(gid=2)),
        ("size", AttributeChanges(size_bytes=3)),
        ("atime", AttributeChanges(atime_ns=4)),
        ("mtime", AttributeChanges(mtime_ns=5)),
        ("ctime", AttributeChanges(ctime_ns=6)),
    ],
)
def test_a_setattr_changes_what_it_names_and_nothing_else(name, expected):
    assert changes(wanted_attributes(), fields(name)) == expected


def test_a_setattr_can_name_everything():
    assert changes(wanted_attributes(), fields(*FIELDS)) == AttributeChanges(
        mode=0o4711, uid=1, gid=2, size_bytes=3, atime_ns=4, mtime_ns=5, ctime_ns=6
    )


def test_statistics():
    shown = statvfs(
        FilesystemStatistics(block_size=4096, blocks_total=9, blocks_free=4, files_total=7, files_free=3, name_max=255)
    )
    assert (shown.f_bsize, shown.f_frsize, shown.f_namemax) == (4096, 4096, 255)
    assert (shown.f_blocks, shown.f_bfree, shown.f_bavail) == (9, 4, 4)
    assert (shown.f_files, shown.f_ffree, shown.f_favail) == (7, 3, 3)
