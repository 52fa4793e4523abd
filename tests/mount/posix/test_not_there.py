"""What a mount, or one of the drivers, does not offer: the error that a program gets, and that it can go on without."""

import errno
import fcntl
import os
import stat

import pytest

from tests.mount.posix.syscalls import fallocate, link_opened
from tests.mount.posix.users import only_mounts, only_native, only_pyfuse3, outcome

pytestmark = pytest.mark.mount

NOT_SUPPORTED = errno.errorcode[errno.EOPNOTSUPP]
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16
FICLONE, FS_IOC_GETFLAGS = 0x40049409, 0x80086601


@pytest.fixture
def descriptor(site):
    opened = os.open(site.file("f", data=b"x" * 100_000), os.O_RDWR)
    yield opened
    os.close(opened)


@only_pyfuse3
@pytest.mark.parametrize("mode", [KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, COLLAPSE_RANGE])
def test_fallocate(descriptor, mode):
    assert outcome(fallocate, descriptor, mode) == NOT_SUPPORTED
    os.posix_fallocate(descriptor, 0, 200_000)
    assert os.pread(descriptor, 200_000, 0) == b"x" * 100_000 + bytes(100_000)


@only_mounts
def test_holes_look_dense(descriptor):
    os.ftruncate(descriptor, 10 << 20)
    assert os.lseek(descriptor, 5 << 20, os.SEEK_DATA) == 5 << 20
    assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 10 << 20


@only_mounts
def test_reflinks(site, descriptor):
    other = os.open(site / "g", os.O_RDWR | os.O_CREAT)
    assert outcome(fcntl.ioctl, other, FICLONE, descriptor) == NOT_SUPPORTED
    done = 0
    while got := os.copy_file_range(descriptor, other, 100_000 - done, done, done):
        done += got
    assert os.pread(other, 100_001, 0) == b"x" * 100_000
    os.close(other)


@only_pyfuse3
def test_files_without_a_name(site):
    assert outcome(os.open, site.path, os.O_TMPFILE | os.O_RDWR) == NOT_SUPPORTED
    assert os.listdir(site.path) == []


@only_mounts
def test_file_flags(descriptor):
    assert outcome(fcntl.ioctl, descriptor, FS_IOC_GETFLAGS, bytes(8)) == "ENOTTY"


@only_mounts
def test_setuid_programs_and_devices(site):
    flags = os.statvfs(site.path).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV
    os.mknod(site / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert outcome(os.open, site / "null", os.O_RDONLY) == "EACCES"


# --- what the native driver offers


@only_native
def test_ranges_are_punched_zeroed_and_allocated(descriptor):
    fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, 100, 40_000)
    fallocate(descriptor, ZERO_RANGE, 90_000, 30_000)
    fallocate(descriptor, KEEP_SIZE, 0, 10**6)
    fallocate(descriptor, 0, 100_000, 100_000)
    assert os.pread(descriptor, 10**6, 0) == b"x" * 100 + bytes(40_000) + b"x" * 49_900 + bytes(110_000)
    fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, 0, 10**6)
    assert os.fstat(descriptor).st_size == 200_000
    assert os.pread(descriptor, 10**6, 0) == bytes(200_000)
    assert outcome(fallocate, descriptor, COLLAPSE_RANGE) == NOT_SUPPORTED


@only_native
def test_a_file_without_a_name_gets_one(site):
    descriptor = os.open(site.path, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(descriptor, b"written first")
    assert os.fstat(descriptor).st_nlink == 0
    assert os.listdir(site.path) == []
    link_opened(descriptor, site / "named")
    assert os.fstat(descriptor).st_nlink == 1
    os.close(descriptor)
    with open(site / "named", "rb") as file:
        assert file.read() == b"written first"
    lost = os.open(site.path, os.O_TMPFILE | os.O_RDWR | os.O_EXCL)
    assert outcome(link_opened, lost, site / "never") == "ENOENT"
    os.close(lost)


@only_native
def test_ranges_are_copied_within_the_volume(site, descriptor):
    other = os.open(site / "copy", os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, os.urandom(1 << 20), 0)
    done = 0
    while done < 1 << 20:
        got = os.copy_file_range(descriptor, other, (1 << 20) - done, done, done)
        assert got > 0
        done += got
    assert os.pread(other, 1 << 21, 0) == os.pread(descriptor, 1 << 21, 0)
    os.close(other)


@pytest.mark.parametrize("writeback", [True, False])
def test_holes_are_shown_by_a_driver_that_sees_all_data(lab, writeback):
    """With the writeback cache the kernel asks for holes without telling of what it holds: then there are none."""
    mount = lab.mount(lab.local_store(), settings={"servers.fuse": {"driver": "native", "writeback": writeback}})
    descriptor = os.open(mount.path / "f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 10 << 20)
    os.pwrite(descriptor, b"x" * 32768, 5 << 20)
    assert os.lseek(descriptor, 0, os.SEEK_DATA) == (0 if writeback else 5 << 20)
    assert os.lseek(descriptor, 5 << 20, os.SEEK_HOLE) == (10 << 20 if writeback else (5 << 20) + 32768)
    os.close(descriptor)
    mount.umount()
