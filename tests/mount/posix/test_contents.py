"""open, truncate, posix_fallocate and what reads and writes see of them."""

import mmap
import os
import stat

import pytest

from tests.mount.posix.users import open_and_close, outcome, write_to

pytestmark = pytest.mark.mount

MAX = 2**63 - 1
C = 32768


def content(path):
    with open(path, "rb") as file:
        return file.read()


# --- open


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_excl_never_opens_what_is_there(site, kind):
    path = site / "x"
    if kind == "file":
        site.file("x")
    elif kind == "directory":
        site.directory("x")
    else:
        os.symlink("y", path)
    assert outcome(open_and_close, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY) == "EEXIST"
    assert not os.path.lexists(site / "y")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (os.O_RDONLY, "ok"),
        (os.O_WRONLY, "EISDIR"),
        (os.O_RDWR, "EISDIR"),
        (os.O_RDONLY | os.O_TRUNC, "EISDIR"),
        (os.O_WRONLY | os.O_CREAT, "EISDIR"),
        (os.O_RDONLY | os.O_DIRECTORY, "ok"),
    ],
)
def test_opening_a_directory(site, flags, expected):
    assert outcome(open_and_close, site.directory("d"), flags) == expected


def test_opening_through_symlinks(site):
    os.symlink("target", site / "link")
    assert outcome(open_and_close, site / "link", os.O_RDONLY) == "ENOENT"
    assert outcome(open_and_close, site / "link", os.O_WRONLY | os.O_CREAT) == "ok"
    assert stat.S_ISREG(os.lstat(site / "target").st_mode)
    assert outcome(open_and_close, site / "link", os.O_RDONLY | os.O_NOFOLLOW) == "ELOOP"
    assert outcome(open_and_close, site.file("f"), os.O_RDONLY | os.O_DIRECTORY) == "ENOTDIR"


def test_a_file_that_is_made_may_be_written_whatever_its_mode(site):
    """The mode counts for the next who opens it."""
    assert site.alice.do(write_to, site / "f", b"x", os.O_WRONLY | os.O_CREAT | os.O_EXCL) == 1
    descriptor = os.open(site / "g", os.O_RDWR | os.O_CREAT, 0)
    assert os.write(descriptor, b"secret") == 6
    os.close(descriptor)
    os.chown(site / "g", site.alice.uid, -1)
    assert outcome(site.alice.do, open_and_close, site / "g", os.O_RDONLY) == "EACCES"


def test_a_descriptor_may_what_it_could_when_it_was_opened(site):
    path = site.file("f", 0o644)
    descriptor = os.open(path, os.O_RDONLY)
    os.chmod(path, 0)
    assert os.pread(descriptor, 10, 0) == b"data"
    assert outcome(os.write, descriptor, b"x") == "EBADF"
    assert outcome(os.ftruncate, descriptor, 0) == "EINVAL"
    os.close(descriptor)


def test_a_socket_and_a_device_are_not_opened_as_files(site):
    os.mknod(site / "socket", stat.S_IFSOCK | 0o600)
    assert outcome(open_and_close, site / "socket", os.O_RDONLY) == "ENXIO"
    os.mknod(site / "fifo", stat.S_IFIFO | 0o600)
    assert outcome(open_and_close, site / "fifo", os.O_WRONLY | os.O_NONBLOCK) == "ENXIO"


def test_append_writes_at_the_end_whoever_else_writes(site):
    path = site.file("f", data=b"one")
    first, second = (os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2))
    for number in range(20):
        os.write(first if number % 2 else second, b"%02d" % number)
    os.close(first)
    os.close(second)
    assert content(path) == b"one" + b"".join(b"%02d" % number for number in range(20))


def test_trunc_empties(site):
    path = site.file("f", data=b"x" * 100_000)
    open_and_close(path, os.O_WRONLY | os.O_TRUNC)
    assert os.stat(path).st_size == 0
    assert content(path) == b""


# --- truncate


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, C - 1, C, C + 1, 3 * C, 3 * C + 17])
@pytest.mark.parametrize("new", [0, 1, 1024, 1025, C, C + 1, 2 * C + 5, 5 * C])
@pytest.mark.parametrize("how", ["truncate", "ftruncate"])
def test_truncate_cuts_and_grows_with_zeros(site, size, new, how):
    data = bytes(range(1, 256)) * (size // 255 + 1)
    path = site.file("f", data=data[:size])
    if how == "truncate":
        os.truncate(path, new)
    else:
        descriptor = os.open(path, os.O_WRONLY)
        os.ftruncate(descriptor, new)
        os.close(descriptor)
    assert content(path) == data[: min(size, new)] + bytes(max(0, new - size))
    os.truncate(path, max(size, new))
    assert content(path) == data[: min(size, new)] + bytes(max(size, new) - min(size, new)), "what was cut off is gone"


@pytest.mark.parametrize(
    ("what", "size", "expected"),
    [("f", -1, "EINVAL"), ("d", 0, "EISDIR"), ("fifo", 0, "EINVAL"), ("f", MAX, ("ok", "EFBIG"))],
)
def test_truncate_of_what_cannot_be(site, what, size, expected):
    site.file("f")
    site.directory("d")
    os.mkfifo(site / "fifo")
    got = outcome(os.truncate, site / what, size)
    assert got in (expected if isinstance(expected, tuple) else (expected,))


def test_a_running_program_is_not_written_to(site):
    path = site.file("sleep", 0o755, data=content("/bin/sleep"))
    process = os.posix_spawn(path, ["sleep", "30"], {})
    try:
        assert outcome(os.truncate, path, 0) == "ETXTBSY"
        assert outcome(open_and_close, path, os.O_WRONLY) == "ETXTBSY"
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 5000), (2, 100_000), (C, C), (10 * C, 5)])
def test_posix_fallocate_makes_a_file_as_long_as_asked(site, offset, size):
    path = site.file("f", data=b"data")
    descriptor = os.open(path, os.O_RDWR)
    os.posix_fallocate(descriptor, offset, size)
    os.close(descriptor)
    end = max(4, offset + size)
    assert content(path) == b"data" + bytes(end - 4)


@pytest.mark.parametrize(("offset", "size", "expected"), [(0, 0, "EINVAL"), (-1, 1, "EINVAL"), (0, -1, "EINVAL")])
def test_posix_fallocate_of_nothing(site, offset, size, expected):
    descriptor = os.open(site.file("f"), os.O_RDWR)
    assert outcome(os.posix_fallocate, descriptor, offset, size) == expected
    os.close(descriptor)
    descriptor = os.open(site / "f", os.O_RDONLY)
    assert outcome(os.posix_fallocate, descriptor, 0, 1) == "EBADF"
    os.close(descriptor)


# --- sparse files, mapping


def test_a_huge_sparse_file_takes_what_was_written(site):
    path = site.file("f", data=b"")
    far = 2**43 if not site.is_mount else 2**60
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, b"far", far)
    os.fsync(descriptor)
    assert os.fstat(descriptor).st_size == far + 3
    assert os.fstat(descriptor).st_blocks * 512 <= 256 * 1024
    assert os.pread(descriptor, 5, far - 2) == b"\0\0far"
    assert os.pread(descriptor, 100, 12345) == bytes(100)
    os.close(descriptor)


@pytest.mark.parametrize("shared", [True, False])
def test_mapped_files(site, shared):
    path = site.file("f", data=b"0123456789" * 1000)
    descriptor = os.open(path, os.O_RDWR)
    flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
    with mmap.mmap(descriptor, 10_000, flags=flags) as view:
        assert view[:10] == b"0123456789"
        view[5000:5004] = b"MAPS"
        if shared:
            view.flush()
        assert os.pread(descriptor, 4, 5000) == (b"MAPS" if shared else b"0123")
        os.pwrite(descriptor, b"seen", 100)
        assert view[100:104] == b"seen"
    os.close(descriptor)
    assert content(path)[5000:5004] == (b"MAPS" if shared else b"0123")


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
def test_synchronous_writes(site, flag):
    path = site.file("f", data=b"")
    descriptor = os.open(path, os.O_WRONLY | flag)
    assert os.write(descriptor, b"x" * 10_000) == 10_000
    os.close(descriptor)
    assert content(path) == b"x" * 10_000


def test_direct_io(site):
    path = site.file("f", data=b"y" * 8192)
    descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as buffer:
        assert os.preadv(descriptor, [buffer], 4096) == 4096
        assert buffer[:] == b"y" * 4096
        buffer[:] = b"z" * 4096
        assert os.pwritev(descriptor, [buffer], 0) == 4096
    os.close(descriptor)
    assert content(path) == b"z" * 4096 + b"y" * 4096
