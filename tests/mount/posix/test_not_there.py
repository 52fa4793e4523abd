"""What a mount does not offer: the error that a program gets, and that it can go on without."""

import ctypes
import errno
import fcntl
import os
import stat

import pytest

from tests.mount.posix.users import only_the_mount, outcome

pytestmark = [pytest.mark.mount, only_the_mount]

NOT_SUPPORTED = errno.errorcode[errno.EOPNOTSUPP]
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16
FICLONE, FS_IOC_GETFLAGS = 0x40049409, 0x80086601
_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(descriptor, mode):
    if _libc.fallocate(descriptor, mode, ctypes.c_long(0), ctypes.c_long(4096)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@pytest.fixture
def descriptor(site):
    opened = os.open(site.file("f", data=b"x" * 100_000), os.O_RDWR)
    yield opened
    os.close(opened)


@pytest.mark.parametrize("mode", [KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, COLLAPSE_RANGE])
def test_fallocate(descriptor, mode):
    assert outcome(fallocate, descriptor, mode) == NOT_SUPPORTED
    os.posix_fallocate(descriptor, 0, 200_000)
    assert os.pread(descriptor, 200_000, 0) == b"x" * 100_000 + bytes(100_000)


def test_holes_look_dense(descriptor):
    os.ftruncate(descriptor, 10 << 20)
    assert os.lseek(descriptor, 5 << 20, os.SEEK_DATA) == 5 << 20
    assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 10 << 20


def test_reflinks(site, descriptor):
    other = os.open(site / "g", os.O_RDWR | os.O_CREAT)
    assert outcome(fcntl.ioctl, other, FICLONE, descriptor) == NOT_SUPPORTED
    assert os.copy_file_range(descriptor, other, 100_000) == 100_000
    assert os.pread(other, 100_001, 0) == b"x" * 100_000
    os.close(other)


def test_files_without_a_name(site):
    assert outcome(os.open, site.path, os.O_TMPFILE | os.O_RDWR) == NOT_SUPPORTED
    assert os.listdir(site.path) == []


def test_file_flags(descriptor):
    assert outcome(fcntl.ioctl, descriptor, FS_IOC_GETFLAGS, bytes(8)) == "ENOTTY"


def test_setuid_programs_and_devices(site):
    flags = os.statvfs(site.path).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV
    os.mknod(site / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert outcome(os.open, site / "null", os.O_RDONLY) == "EACCES"
