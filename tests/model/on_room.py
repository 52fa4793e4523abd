"""System calls on the `fs` room over the fake engine, without a kernel."""

import os
import stat
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.model.calls import Stat, Walking, refusal, stat_of
from tests.unit.fs.harness import ROOT_CALLER, SteppingWorld
from zerofs.errors import FsError
from zerofs.fs.attributes import AttributeChanges, Attributes
from zerofs.fs.filesystem import ROOT_INODE, Filesystem
from zerofs.fs.format.keys import MAX_COOKIE
from zerofs.fs.options import FilesystemOptions
from zerofs.testing.engine import FakeEngine

T = TypeVar("T")

_OPTIONS = FilesystemOptions(inode_cache_count=3, dentry_cache_count=3)


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that finds everything in memory: it must not suspend."""
    try:
        work.send(None)
    except StopIteration as result:
        return result.value
    except FsError as error:
        raise OSError(error.errno, os.strerror(error.errno)) from error
    work.close()
    raise AssertionError("it suspended although everything was in memory")


class RoomCalls(Walking):
    """See `calls`. Nodes are attributes; nothing is kept between two calls but handles."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = FakeEngine()
        self.world = SteppingWorld()
        self.page = 3
        """How many entries one readdir asks for."""
        self.mount()

    def mount(self) -> None:
        """Mount what the engine holds."""
        self.forget_descriptors()
        self.fs = finish(Filesystem.mount(self.engine, _OPTIONS, self.world))

    def _forget(self, made: Attributes) -> Attributes:
        self.fs.forget(made.inode, 1)
        return made

    # nodes

    def root(self) -> Attributes:
        return finish(self.fs.getattr(ROOT_INODE))

    def child(self, node: Attributes, name: bytes) -> Attributes:
        return self._forget(finish(self.fs.lookup(ROOT_CALLER, node.inode, name)))

    def kind(self, node: Attributes) -> int:
        return node.mode

    def target(self, node: Attributes) -> bytes:
        return finish(self.fs.readlink(node.inode))

    def children(self, node: Attributes) -> list[bytes]:
        handle = finish(self.fs.opendir(ROOT_CALLER, node.inode))
        found: dict[bytes, Attributes] = {}
        cookie = 0
        while entries := finish(self.fs.readdir(handle, cookie, self.page)):
            for entry in entries:
                assert cookie < entry.cookie <= MAX_COOKIE
                assert entry.name not in found
                cookie = entry.cookie
                found[entry.name] = self._forget(entry.attributes)
        finish(self.fs.releasedir(handle))
        for name, attributes in found.items():
            assert self.child(node, name) == attributes
        return list(found)

    def open_node(self, node: Attributes) -> int:
        return finish(self.fs.open(ROOT_CALLER, node.inode, os.O_RDWR))

    def close_handle(self, handle: int) -> None:
        finish(self.fs.flush(handle))
        finish(self.fs.release(handle))

    # names

    def mkdir(self, path: bytes, mode: int) -> None:
        directory, name = self.place(path)
        self._forget(finish(self.fs.mkdir(ROOT_CALLER, directory.inode, name, mode)))

    def mknod(self, path: bytes, mode: int) -> None:
        directory, name = self.place(path)
        self._forget(finish(self.fs.mknod(ROOT_CALLER, directory.inode, name, mode, 0)))

    def symlink(self, target: bytes, path: bytes) -> None:
        directory, name = self.place(path)
        self._forget(finish(self.fs.symlink(ROOT_CALLER, directory.inode, name, target)))

    def link(self, old: bytes, new: bytes, follow: bool) -> None:
        node = self.find(old, follow=follow)
        directory, name = self.place(new)
        self._forget(finish(self.fs.link(ROOT_CALLER, node.inode, directory.inode, name)))

    def unlink(self, path: bytes) -> None:
        directory, name = self.place(path)
        finish(self.fs.unlink(ROOT_CALLER, directory.inode, name))

    def rmdir(self, path: bytes) -> None:
        directory, name = self.place(path)
        finish(self.fs.rmdir(ROOT_CALLER, directory.inode, name))

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        (one, name), (two, new_name) = self.place(old), self.place(new)
        finish(self.fs.rename(ROOT_CALLER, one.inode, name, two.inode, new_name, flags))

    # attributes

    def _change(self, node: Attributes, handle: int | None = None, **changes: Any) -> Attributes:
        return finish(self.fs.setattr(ROOT_CALLER, node.inode, AttributeChanges(**changes), handle))

    def _stat(self, node: Attributes) -> Stat:
        return stat_of(node.mode, node.nlink, node.uid, node.gid, node.size_bytes, node.mtime_ns)

    def lstat(self, path: bytes) -> Stat:
        return self._stat(self.find(path, follow=False))

    def stat(self, path: bytes) -> Stat:
        return self._stat(self.find(path))

    def fstat(self, descriptor: int) -> Stat:
        return self._stat(self._opened_node(descriptor))

    def inode(self, path: bytes) -> int:
        return self.find(path, follow=False).inode

    def _opened_node(self, descriptor: int) -> Attributes:
        return finish(self.fs.getattr(self.fs._ctx.handles.file(self.handle(descriptor)).node.number))

    def access(self, path: bytes, mask: int) -> bool:
        try:
            finish(self.fs.access(ROOT_CALLER, self.find(path).inode, mask))
        except PermissionError:
            return False
        return True

    def chmod(self, path: bytes, mode: int) -> None:
        self._change(self.find(path), mode=mode)

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        self._change(self.find(path, follow=follow), uid=uid, gid=gid)

    def utime(self, path: bytes, times_ns: tuple[int, int] | None, follow: bool) -> tuple[int, int] | None:
        return self._set_times(self.find(path, follow=follow), times_ns)

    def _set_times(self, node: Attributes, times_ns: tuple[int, int] | None) -> tuple[int, int] | None:
        if times_ns is None:
            self._change(node, atime_now=True, mtime_now=True)
            return None
        found = self._change(node, atime_ns=times_ns[0], mtime_ns=times_ns[1])
        return found.atime_ns, found.mtime_ns

    def resize(self, node: Attributes, size: int) -> None:
        self._change(node, size_bytes=size)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        finish(self.fs.setxattr(ROOT_CALLER, self.find(path, follow=False).inode, name, value, flags))

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return finish(self.fs.getxattr(ROOT_CALLER, self.find(path, follow=False).inode, name))

    def removexattr(self, path: bytes, name: bytes) -> None:
        finish(self.fs.removexattr(ROOT_CALLER, self.find(path, follow=False).inode, name))

    def listxattr(self, path: bytes) -> list[bytes]:
        return sorted(finish(self.fs.listxattr(ROOT_CALLER, self.find(path, follow=False).inode)))

    # contents

    def pread(self, descriptor: int, offset: int, size: int) -> bytes:
        return finish(self.fs.read(self.handle(descriptor), offset, size))

    def pwrite(self, descriptor: int, offset: int, data: bytes) -> int:
        return finish(self.fs.write(self.handle(descriptor), offset, data)) if data else 0

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._change(self._opened_node(descriptor), self.handle(descriptor), size_bytes=size)

    def fchmod(self, descriptor: int, mode: int) -> None:
        self._change(self._opened_node(descriptor), mode=mode)

    def fchown(self, descriptor: int, uid: int, gid: int) -> None:
        self._change(self._opened_node(descriptor), uid=uid, gid=gid)

    def futime(self, descriptor: int, times_ns: tuple[int, int]) -> None:
        self._set_times(self._opened_node(descriptor), times_ns)

    def fsync(self, descriptor: int) -> None:
        finish(self.fs.fsync(self.handle(descriptor)))

    fdatasync = fsync

    def copy(self, source: int, start: int, target: int, place: int, size: int) -> int:
        """copy_file_range(2) until nothing is left; how much in all."""
        done = 0
        one, two = self.handle(source), self.handle(target)
        while size > done and (got := finish(self.fs.copy_range(one, start + done, two, place + done, size - done))):
            done += got
        return done

    def allocate(self, descriptor: int, mode: int, offset: int, size: int) -> None:
        finish(self.fs.allocate(self.handle(descriptor), mode, offset, size))

    def seek(self, descriptor: int, offset: int, hole: bool) -> int:
        seek = self.fs.seek_hole if hole else self.fs.seek_data
        return finish(seek(self.handle(descriptor), offset))

    def tmpfile(self, path: bytes, mode: int) -> int:
        directory = self.find(path)
        if not stat.S_ISDIR(directory.mode):
            raise refusal("ENOTDIR")
        handle, made = finish(self.fs.tmpfile(ROOT_CALLER, directory.inode, mode, os.O_RDWR))
        self._forget(made)
        return self.opened(handle)

    def link_opened(self, descriptor: int, path: bytes) -> None:
        """linkat(2) of /proc/self/fd."""
        node = self._opened_node(descriptor)
        directory, name = self.place(path)
        self._forget(finish(self.fs.link(ROOT_CALLER, node.inode, directory.inode, name)))
