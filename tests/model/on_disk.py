"""System calls on a directory of this machine: of a local disk, or of a mount."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.model.calls import Stat, stat_of

_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def acting_as(user: tuple[int, int, list[int]]) -> Iterator[None]:
    """The whole process is this (uid, gid, groups) within the block. Only root can."""
    uid, gid, groups = user
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def _stat_of(found: os.stat_result) -> Stat:
    return stat_of(found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns)


class DiskCalls:
    """See `calls`; paths are relative to `root`."""

    def __init__(self, root: str) -> None:
        self._root = os.fsencode(root)

    def _at(self, path: bytes) -> bytes:
        return self._root + b"/" + path if path else self._root

    def paths(self) -> list[bytes]:
        """Every path there is, the root first."""
        found = [b""]
        for path in found:
            if os.path.isdir(self._at(path)) and not os.path.islink(self._at(path)):
                found.extend(b"/".join(part for part in (path, name) if part) for name in self.listdir(path))
        return found

    # names

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def mknod(self, path: bytes, mode: int) -> None:
        os.mknod(self._at(path), mode, os.makedev(1, 3))

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self._at(path))

    def link(self, old: bytes, new: bytes, follow: bool) -> None:
        # os.link does not pass AT_SYMLINK_FOLLOW
        if _libc.linkat(_AT_FDCWD, self._at(old), _AT_FDCWD, self._at(new), 0x400 if follow else 0):
            raise _last_error()

    def unlink(self, path: bytes) -> None:
        os.unlink(self._at(path))

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._at(path))

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        if _libc.renameat2(_AT_FDCWD, self._at(old), _AT_FDCWD, self._at(new), flags):
            raise _last_error()

    def listdir(self, path: bytes) -> list[bytes]:
        return sorted(os.listdir(self._at(path)))

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self._at(path))

    # attributes

    def lstat(self, path: bytes) -> Stat:
        return _stat_of(os.lstat(self._at(path)))

    def stat(self, path: bytes) -> Stat:
        return _stat_of(os.stat(self._at(path)))

    def fstat(self, descriptor: int) -> Stat:
        return _stat_of(os.fstat(descriptor))

    def inode(self, path: bytes) -> int:
        return os.lstat(self._at(path)).st_ino

    def access(self, path: bytes, mask: int) -> bool:
        return os.access(self._at(path), mask, effective_ids=True)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        os.chown(self._at(path), uid, gid, follow_symlinks=follow)

    def utime(self, path: bytes, times_ns: tuple[int, int] | None, follow: bool) -> tuple[int, int] | None:
        """Also gives the times that are there now, if they were chosen."""
        chosen = {"ns": times_ns} if times_ns else {}
        os.utime(self._at(path), **chosen, follow_symlinks=follow)
        found = os.stat(self._at(path), follow_symlinks=follow)
        return (found.st_atime_ns, found.st_mtime_ns) if times_ns else None

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self._at(path), size)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        os.setxattr(self._at(path), name, value, flags, follow_symlinks=False)

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return os.getxattr(self._at(path), name, follow_symlinks=False)

    def removexattr(self, path: bytes, name: bytes) -> None:
        os.removexattr(self._at(path), name, follow_symlinks=False)

    def listxattr(self, path: bytes) -> list[bytes]:
        return sorted(os.fsencode(name) for name in os.listxattr(self._at(path), follow_symlinks=False))

    # contents

    def open(self, path: bytes, flags: int, mode: int = 0) -> int:
        return os.open(self._at(path), flags | os.O_NONBLOCK, mode)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def contents(self, path: bytes) -> bytes:
        """All of a file."""
        with open(self._at(path), "rb") as file:
            return file.read()

    def pread(self, descriptor: int, offset: int, size: int) -> bytes:
        return os.pread(descriptor, size, offset)

    def pwrite(self, descriptor: int, offset: int, data: bytes) -> int:
        return os.pwrite(descriptor, data, offset)

    def ftruncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def fchmod(self, descriptor: int, mode: int) -> None:
        os.fchmod(descriptor, mode)

    def fchown(self, descriptor: int, uid: int, gid: int) -> None:
        os.fchown(descriptor, uid, gid)

    def futime(self, descriptor: int, times_ns: tuple[int, int]) -> None:
        os.utime(descriptor, ns=times_ns)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def copy(self, source: int, start: int, target: int, place: int, size: int) -> int:
        """copy_file_range(2) until nothing is left; how much in all."""
        done = 0
        while size > done:
            got = os.copy_file_range(source, target, size - done, start + done, place + done)
            if not got:
                break
            done += got
        return done

    def posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        os.posix_fallocate(descriptor, offset, size)

    def mapped(self, descriptor: int, offset: int, data: bytes) -> bytes:
        """Put `data` there through a shared mapping, as far as the file goes; what the whole mapping shows then."""
        size = os.fstat(descriptor).st_size
        with mmap.mmap(descriptor, size) as mapping:
            data = data[: max(0, size - offset)]
            mapping[offset : offset + len(data)] = data
            mapping.flush()
            return mapping[:]

    def syncfs(self) -> None:
        """The kernel writes back what it holds of this filesystem."""
        descriptor = os.open(self._root, os.O_RDONLY)
        try:
            if _libc.syncfs(descriptor):
                raise _last_error()
        finally:
            os.close(descriptor)


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
