"""Every request once through the kernel. What surrounds the requests is in `test_frontend_life`."""

import ctypes
import errno
import mmap
import os
import stat
import subprocess
import sys

import pytest

pytestmark = pytest.mark.mount

NAMES = [b"plain", b"with space", b"\xff\xfe not utf-8 \x01", "ümläut".encode(), b"n" * 255]
KIB = 1024
MIB = 1024 * KIB

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED, only root can become another user")


def fails_with(code):
    return pytest.raises(OSError, check=lambda error: error.errno == code)


def rename_with_flags(old, new, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


class TestNames:
    @pytest.mark.parametrize("name", NAMES)
    def test_any_bytes(self, mounted, name):
        path = os.path.join(os.fsencode(mounted), name)
        with open(path, "xb") as file:
            file.write(name)
        assert os.listdir(os.fsencode(mounted)) == [name]
        with open(path, "rb") as file:
            assert file.read() == name
        os.unlink(path)
        assert os.listdir(os.fsencode(mounted)) == []

    def test_an_absent_name_that_appears(self, mounted):
        for _ in range(2):
            assert not (mounted / "a").exists()
        (mounted / "a").write_bytes(b"x")
        assert (mounted / "a").exists()
        (mounted / "a").unlink()
        assert not (mounted / "a").exists()

    def test_directories(self, mounted):
        (mounted / "d" / "e").mkdir(parents=True)
        with fails_with(errno.ENOTEMPTY):
            (mounted / "d").rmdir()
        (mounted / "d" / "e").rmdir()
        (mounted / "d").rmdir()
        assert os.listdir(mounted) == []

    def test_symlinks(self, mounted):
        (mounted / "link").symlink_to(b"target \xff".decode(errors="surrogateescape"))
        assert os.readlink(os.fsencode(mounted / "link")) == b"target \xff"
        assert stat.S_ISLNK((mounted / "link").lstat().st_mode)

    def test_hard_links(self, mounted):
        (mounted / "a").write_bytes(b"x")
        (mounted / "b").hardlink_to(mounted / "a")
        assert (mounted / "a").samefile(mounted / "b")
        assert (mounted / "b").stat().st_nlink == 2
        (mounted / "a").unlink()
        assert (mounted / "b").read_bytes() == b"x"
        assert (mounted / "b").stat().st_nlink == 1

    def test_special_files(self, mounted):
        os.mkfifo(mounted / "fifo", 0o640)
        mode = (mounted / "fifo").stat().st_mode
        assert stat.S_ISFIFO(mode)
        assert stat.S_IMODE(mode) == 0o640

    def test_rename(self, mounted):
        (mounted / "d").mkdir()
        (mounted / "a").write_bytes(b"a")
        (mounted / "b").write_bytes(b"b")
        (mounted / "a").rename(mounted / "d" / "c")
        (mounted / "b").rename(mounted / "d" / "c")
        assert os.listdir(mounted) == ["d"]
        assert (mounted / "d" / "c").read_bytes() == b"b"

    def test_rename_with_flags(self, mounted):
        (mounted / "a").write_bytes(b"a")
        (mounted / "b").write_bytes(b"b")
        with fails_with(errno.EEXIST):
            rename_with_flags(mounted / "a", mounted / "b", 1)
        rename_with_flags(mounted / "a", mounted / "b", 2)
        assert (mounted / "a").read_bytes() == b"b"
        assert (mounted / "b").read_bytes() == b"a"
        rename_with_flags(mounted / "a", mounted / "c", 1)
        assert sorted(os.listdir(mounted)) == ["b", "c"]


class TestListing:
    def test_many_entries(self, mounted):
        names = {f"file {i} {'x' * (i % 50)}" for i in range(1000)}
        for name in names:
            (mounted / name).touch()
        assert set(os.listdir(mounted)) == names
        with os.scandir(mounted) as entries:
            for entry in entries:
                assert entry.stat(follow_symlinks=False).st_ino == entry.inode()
                assert entry.is_file(follow_symlinks=False)

    def test_dots(self, mounted):
        (mounted / "d").mkdir()
        told = subprocess.run(["ls", "-1aiU", "d"], cwd=mounted, capture_output=True, text=True, check=True).stdout
        inodes = {name: int(inode) for inode, name in (line.split() for line in told.splitlines())}
        assert inodes == {".": (mounted / "d").stat().st_ino, "..": mounted.stat().st_ino}

    def test_rewinding_sees_what_is_new(self, mounted):
        directory = os.open(mounted, os.O_RDONLY)
        try:
            assert os.listdir(directory) == []
            (mounted / "a").touch()
            assert os.listdir(directory) == ["a"]
            os.fsync(directory)
        finally:
            os.close(directory)

    def test_removing_while_reading(self, mounted):
        for i in range(300):
            (mounted / f"f{i}").touch()
        seen = 0
        with os.scandir(mounted) as entries:
            for entry in entries:
                os.unlink(entry.path)
                seen += 1
        assert seen == 300
        assert os.listdir(mounted) == []


class TestAttributes:
    def test_root(self, mounted):
        status = mounted.stat()
        assert stat.S_ISDIR(status.st_mode)
        assert status.st_ino == 1

    def test_mode_and_times(self, mounted):
        (mounted / "a").touch(mode=0o640)
        assert stat.S_IMODE((mounted / "a").stat().st_mode) == 0o640
        (mounted / "a").chmod(0o4711)
        assert stat.S_IMODE((mounted / "a").stat().st_mode) == 0o4711
        os.utime(mounted / "a", ns=(-1_500_000_001, 1_234_567_890_123_456_789))
        status = (mounted / "a").stat()
        assert (status.st_atime_ns, status.st_mtime_ns) == (-1_500_000_001, 1_234_567_890_123_456_789)

    def test_umask(self, mounted):
        before = os.umask(0o027)
        try:
            (mounted / "d").mkdir()
            os.close(os.open(mounted / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        finally:
            os.umask(before)
        assert stat.S_IMODE((mounted / "d").stat().st_mode) == 0o750
        assert stat.S_IMODE((mounted / "f").stat().st_mode) == 0o640

    @as_root
    def test_owner(self, mounted):
        (mounted / "a").touch()
        os.chown(mounted / "a", 12, 34)
        status = (mounted / "a").stat()
        assert (status.st_uid, status.st_gid) == (12, 34)

    def test_truncate_both_ways(self, mounted):
        path = mounted / "a"
        path.write_bytes(b"0123456789")
        os.truncate(path, 4)
        os.truncate(path, 100_000)
        assert path.stat().st_size == 100_000
        assert path.read_bytes() == b"0123" + bytes(99_996)
        with path.open("r+b") as file:
            file.truncate(2)
            assert os.fstat(file.fileno()).st_size == 2
        assert path.read_bytes() == b"01"

    def test_extended_attributes(self, mounted):
        path = mounted / "a"
        path.touch()
        assert os.listxattr(path) == []
        with fails_with(errno.ENODATA):
            os.getxattr(path, "user.a")
        os.setxattr(path, "user.a", b"\x00binary\xff")
        os.setxattr(path, "user.empty", b"")
        assert sorted(os.listxattr(path)) == ["user.a", "user.empty"]
        assert os.getxattr(path, "user.a") == b"\x00binary\xff"
        assert os.getxattr(path, "user.empty") == b""
        with fails_with(errno.EEXIST):
            os.setxattr(path, "user.a", b"", os.XATTR_CREATE)
        with fails_with(errno.ENODATA):
            os.setxattr(path, "user.b", b"", os.XATTR_REPLACE)
        os.removexattr(path, "user.a")
        assert os.listxattr(path) == ["user.empty"]
        with fails_with(errno.ENODATA):
            os.removexattr(path, "user.a")

    def test_statistics(self, mounted):
        statistics = os.statvfs(mounted)
        assert statistics.f_namemax == 255
        assert 0 < statistics.f_bavail <= statistics.f_bfree <= statistics.f_blocks
        assert 0 < statistics.f_ffree <= statistics.f_files

    def test_access(self, mounted):
        (mounted / "a").touch(mode=0o600)
        assert os.access(mounted / "a", os.R_OK | os.W_OK)
        assert not os.access(mounted / "a", os.X_OK)

    @as_root
    def test_a_stranger_stays_out_of_a_cached_directory(self, mounted):
        (mounted / "private").mkdir(mode=0o700)
        (mounted / "private" / "a").write_bytes(b"x")
        (mounted / "public").write_bytes(b"x")
        assert (mounted / "private" / "a").read_bytes() == b"x"
        program = (
            "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.fchdir(int(sys.argv[1]))\n"
            "print(os.read(os.open('public', os.O_RDONLY), 9).decode())\n"
            "try:\n os.open('private/a', os.O_RDONLY)\nexcept OSError as error:\n print(error.errno)"
        )
        directory = os.open(mounted, os.O_RDONLY)
        try:
            done = subprocess.run(
                [sys.executable, "-c", program, str(directory)],
                pass_fds=[directory],
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            os.close(directory)
        assert done.stdout.split() == ["x", str(errno.EACCES)]


class TestFiles:
    def test_large_requests(self, mounted):
        data = os.urandom(5 * MIB + 12_345)
        (mounted / "a").write_bytes(data)
        assert (mounted / "a").read_bytes() == data
        assert (mounted / "a").stat().st_size == len(data)

    def test_open_flags(self, mounted):
        path = mounted / "a"
        path.write_bytes(b"first")
        with fails_with(errno.EEXIST):
            os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with path.open("ab") as file:
            file.write(b" second")
        assert path.read_bytes() == b"first second"
        with path.open("wb"):
            pass
        assert path.stat().st_size == 0

    def test_holes_and_random_access(self, mounted):
        with (mounted / "a").open("w+b") as file:
            file.seek(200_000)
            file.write(b"end")
            file.seek(100)
            file.write(b"middle")
            file.seek(0)
            assert file.read() == bytes(100) + b"middle" + bytes(200_000 - 106) + b"end"

    def test_writing_into_a_write_only_handle(self, mounted):
        path = mounted / "a"
        path.write_bytes(b"a" * 10_000)
        handle = os.open(path, os.O_WRONLY)
        try:
            # With the writeback cache the kernel reads the page through this handle to complete it.
            os.pwrite(handle, b"b", 5_000)
            os.fsync(handle)
            os.fdatasync(handle)
        finally:
            os.close(handle)
        assert path.read_bytes() == b"a" * 5_000 + b"b" + b"a" * 4_999

    def test_unlinked_but_open(self, mounted):
        with (mounted / "a").open("w+b") as file:
            file.write(b"before")
            (mounted / "a").unlink()
            assert os.listdir(mounted) == []
            file.write(b" after")
            file.seek(0)
            assert file.read() == b"before after"
            assert os.fstat(file.fileno()).st_nlink == 0

    def test_memory_mapping(self, mounted):
        with (mounted / "a").open("w+b") as file:
            file.truncate(3 * mmap.PAGESIZE)
            with mmap.mmap(file.fileno(), 0) as mapped:
                mapped[mmap.PAGESIZE : mmap.PAGESIZE + 4] = b"here"
                mapped.flush()
        assert (mounted / "a").read_bytes()[mmap.PAGESIZE :][:4] == b"here"

    def test_locks_are_the_kernels(self, mounted):
        import fcntl

        with (mounted / "a").open("wb") as one, (mounted / "a").open("wb") as two:
            fcntl.flock(one, fcntl.LOCK_EX)
            with fails_with(errno.EWOULDBLOCK):
                fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
