"""A filesystem that does no work: dictionaries in memory behind the door of `zerofs.fs`, no checks, no store.

Times are set when something is made, by the kernel's own tick: otherwise a kernel that caches writes would send them
after each write.

Mounted through the very same frontend as a volume, it is the ceiling of what a filesystem can reach there, and the
simplest thing to try the frontend with. Not a filesystem to keep anything in.

    python -m benches.null_fs MOUNTPOINT [--driver NAME] [--no-stay-awake] [--no-writeback] [--read-only]

prints `ready` when mounted, and unmounts on SIGINT or SIGTERM.
"""

import argparse
import errno
import os
import signal
import stat

import trio

from zerofs.errors import FsError
from zerofs.frontend.fuse.mount import serve
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.fs.attributes import DirectoryEntry, FilesystemStatistics
from zerofs.world import World

WORLD = World()
ROOT = 1
FIRST_COOKIE = 3


class Node:
    """An inode, and what the frontend reads as its attributes."""

    __slots__ = (
        "atime_ns",
        "blocks",
        "children",
        "cookie_of",
        "cookies",
        "ctime_ns",
        "data",
        "gid",
        "inode",
        "mode",
        "mtime_ns",
        "next_cookie",
        "nlink",
        "parent",
        "rdev",
        "size_bytes",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, inode, mode, uid, gid, rdev=0, target=b""):
        self.inode, self.mode, self.uid, self.gid, self.rdev, self.target = inode, mode, uid, gid, rdev, target
        self.nlink, self.size_bytes, self.blocks = 1, len(target), 0
        self.atime_ns = self.mtime_ns = self.ctime_ns = WORLD.now_ns()
        self.data = bytearray()
        self.xattrs = {}
        self.parent = ROOT
        self.children = {}  # name -> Node
        self.cookies = {}  # cookie -> name, in order
        self.cookie_of = {}  # name -> its last cookie: a name that went and came back has left others
        self.next_cookie = FIRST_COOKIE


class NullFilesystem:
    """The door of `zerofs.fs.filesystem.Filesystem`. Handles are inode numbers."""

    def __init__(self):
        self.nodes = {}
        self.lookups = {}
        self.last = 0
        self._new(stat.S_IFDIR | 0o755, os.getuid(), os.getgid())

    def _new(self, mode, uid, gid, rdev=0, target=b""):
        self.last += 1
        node = self.nodes[self.last] = Node(self.last, mode, uid, gid, rdev, target)
        return node

    def _referred(self, node):
        self.lookups[node.inode] = self.lookups.get(node.inode, 0) + 1
        return node

    def _attach(self, parent, name, node):
        directory = self.nodes[parent]
        if name in directory.children:
            raise FsError(errno.EEXIST)
        directory.children[name] = node
        directory.cookies[directory.next_cookie] = name
        directory.cookie_of[name] = directory.next_cookie
        directory.next_cookie += 1
        node.parent = parent
        return self._referred(node)

    def _find(self, parent, name):
        node = self.nodes[parent].children.get(name)
        if node is None:
            raise FsError(errno.ENOENT)
        return node

    def _detach(self, parent, name):
        node = self._find(parent, name)
        del self.nodes[parent].children[name]
        node.nlink -= 1
        self._reclaim(node)

    def _reclaim(self, node):
        if node.nlink < 1 and node.inode not in self.lookups:
            self.nodes.pop(node.inode, None)

    async def lookup(self, caller, parent, name):
        if name == b"..":
            return self._referred(self.nodes[self.nodes[parent].parent])
        return self._referred(self._find(parent, name))

    def lend(self, size_bytes):
        """See Filesystem."""

    def forget(self, inode, count):
        left = self.lookups.get(inode, 0) - count
        if left > 0:
            self.lookups[inode] = left
            return
        self.lookups.pop(inode, None)
        node = self.nodes.get(inode)
        if node is not None and inode != ROOT:
            self._reclaim(node)

    async def getattr(self, inode):
        return self.nodes[inode]

    async def setattr(self, caller, inode, changes, handle):
        node = self.nodes[inode]
        if changes.size_bytes is not None:
            del node.data[changes.size_bytes :]
            node.data.extend(bytes(changes.size_bytes - len(node.data)))
            node.size_bytes = changes.size_bytes
        if changes.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | changes.mode
        for name in ("uid", "gid", "atime_ns", "mtime_ns", "ctime_ns"):
            value = getattr(changes, name)
            if value is not None:
                setattr(node, name, value)
        return node

    async def mknod(self, caller, parent, name, mode, rdev):
        return self._attach(parent, name, self._new(mode, caller.uid, caller.gid, rdev))

    async def mkdir(self, caller, parent, name, mode):
        return self._attach(parent, name, self._new(stat.S_IFDIR | mode, caller.uid, caller.gid))

    async def symlink(self, caller, parent, name, target):
        return self._attach(parent, name, self._new(stat.S_IFLNK | 0o777, caller.uid, caller.gid, 0, target))

    async def link(self, caller, inode, parent, name):
        node = self._attach(parent, name, self.nodes[inode])
        node.nlink += 1
        return node

    async def readlink(self, inode):
        return self.nodes[inode].target

    async def unlink(self, caller, parent, name):
        self._detach(parent, name)

    async def rmdir(self, caller, parent, name):
        if self._find(parent, name).children:
            raise FsError(errno.ENOTEMPTY)
        self._detach(parent, name)

    async def rename(self, caller, parent, name, new_parent, new_name, flags):
        node, old, new = self._find(parent, name), self.nodes[parent], self.nodes[new_parent]
        there = new.children.get(new_name)
        if flags & 1 and there is not None:
            raise FsError(errno.EEXIST)
        if flags & 2:
            old.children[name], new.children[new_name] = self._find(new_parent, new_name), node
            return
        if there is node:
            return
        if there is not None:
            self._detach(new_parent, new_name)
        del old.children[name]
        self._attach(new_parent, new_name, node)
        self.forget(node.inode, 1)

    async def create(self, caller, parent, name, mode, flags, keep_times=False):
        node = self._attach(parent, name, self._new(stat.S_IFREG | mode, caller.uid, caller.gid))
        return node.inode, node

    async def open(self, caller, inode, flags, keep_times=False):
        if flags & os.O_TRUNC:
            node = self.nodes[inode]
            node.data.clear()
            node.size_bytes = 0
        return inode

    async def release(self, handle):
        pass

    async def read(self, handle, offset, size):
        return bytes(memoryview(self.nodes[handle].data)[offset : offset + size])

    async def read_pieces(self, handle, offset, size):
        return (await self.read(handle, offset, size),)

    async def write(self, handle, offset, data, keep_times=False, privileges_go=False):
        node = self.nodes[handle]
        held = node.data
        if offset > len(held):
            held.extend(bytes(offset - len(held)))
        held[offset : offset + len(data)] = data
        node.size_bytes = len(held)
        return len(data)

    async def flush(self, handle):
        pass

    async def fsync(self, handle, datasync):
        pass

    async def opendir(self, caller, inode):
        return inode

    async def readdir(self, handle, after_cookie, limit):
        directory, entries, stale = self.nodes[handle], [], []
        for cookie in range(max(after_cookie + 1, FIRST_COOKIE), directory.next_cookie):
            name = directory.cookies.get(cookie)
            node = directory.children.get(name)
            if node is None or directory.cookie_of[name] != cookie:
                stale.append(cookie)
                continue
            entries.append(DirectoryEntry(name=name, cookie=cookie, attributes=self._referred(node)))
            if len(entries) == limit:
                break
        for cookie in stale:
            directory.cookies.pop(cookie, None)
        return entries

    async def releasedir(self, handle):
        pass

    async def fsyncdir(self, handle, datasync):
        pass

    async def statfs(self):
        return FilesystemStatistics(
            block_size=4096,
            blocks_total=1 << 30,
            blocks_free=1 << 29,
            files_total=1 << 20,
            files_free=1 << 19,
            name_max=255,
        )

    async def access(self, caller, inode, mask):
        pass

    async def getxattr(self, caller, inode, name):
        value = self.nodes[inode].xattrs.get(name)
        if value is None:
            raise FsError(errno.ENODATA)
        return value

    async def setxattr(self, caller, inode, name, value, flags):
        xattrs = self.nodes[inode].xattrs
        if flags == os.XATTR_CREATE and name in xattrs:
            raise FsError(errno.EEXIST)
        if flags == os.XATTR_REPLACE and name not in xattrs:
            raise FsError(errno.ENODATA)
        xattrs[name] = value

    async def listxattr(self, caller, inode):
        return list(self.nodes[inode].xattrs)

    async def removexattr(self, caller, inode, name):
        if self.nodes[inode].xattrs.pop(name, None) is None:
            raise FsError(errno.ENODATA)


async def mount(fs, mountpoint, options):
    """Serve until unmounted, or until the first SIGINT or SIGTERM; print `ready` when mounted."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal():
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)

            async def report(*, task_status=trio.TASK_STATUS_IGNORED):
                await serve(fs, mountpoint, options, WORLD, task_status=task_status)
                nursery.cancel_scope.cancel()

            await nursery.start(report)
            print("ready", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Mount a filesystem that does no work.")
    parser.add_argument("mountpoint")
    parser.add_argument("--driver", choices=["native", "pyfuse3"], default="native")
    parser.add_argument("--no-stay-awake", action="store_true")
    parser.add_argument("--no-writeback", action="store_true")
    parser.add_argument("--read-only", action="store_true")
    arguments = parser.parse_args()
    options = FuseOptions(
        fsname="null",
        driver=arguments.driver,
        stay_awake=not arguments.no_stay_awake,
        writeback=not arguments.no_writeback,
        read_only=arguments.read_only,
    )
    trio.run(mount, NullFilesystem(), arguments.mountpoint, options)


if __name__ == "__main__":
    main()
