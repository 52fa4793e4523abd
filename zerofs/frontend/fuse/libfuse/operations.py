"""FUSE requests as calls of `zerofs.fs`: one thin coroutine for each, and no decision about files in any.

Every handler is the same three steps: convert, call, convert back. Whatever goes wrong becomes an errno here, because
an exception that leaves a handler would end the mount.

What the binding does not hand on, the kernel answers itself: locks stay local, fallocate and the like are refused,
syncfs(2) returns without asking anybody.
"""

import errno
import logging
import os
import stat
import traceback
from collections.abc import Callable, Sequence

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileInfo,
    FUSEError,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    readdir_reply,
)

from zerofs.errors import FsError
from zerofs.frontend.fuse.callers import Callers
from zerofs.frontend.fuse.libfuse.convert import absent_entry, changes, entry, statvfs
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.fs.access import SYSTEM, Caller
from zerofs.fs.attributes import DirectoryEntry
from zerofs.fs.filesystem import Filesystem

_log = logging.getLogger(__name__)

_DOT_COOKIE = 1
_DOT_DOT_COOKIE = 2
_ENTRIES_AT_ONCE = 32
_FURTHER_ENTRIES = 16


class Operations(pyfuse3.Operations):
    """The handlers that pyfuse3 calls. One object serves one mount.

    Args:
        fs: what is served.
        options: of the mount.
        ready: called once, when the kernel has begun to talk.
    """

    supports_dot_lookup = False
    enable_acl = False

    def __init__(self, fs: Filesystem, options: FuseOptions, ready: Callable[[], None]) -> None:
        super().__init__()
        # With it, the kernel would believe no size or time but its own, and a follower's files change without it.
        self.enable_writeback_cache = options.writeback and not options.read_only
        self._direct: set[int] = set()
        """Handles that go round the kernel's cache."""
        self._fs = fs
        self._ready = ready
        self._lifetime = options.lifetime or (lambda: options.lifetime_s)
        self._keep_cache = options.lifetime is None
        self._absent = absent_entry(options.lifetime_s)
        self._callers = Callers()
        self._directories: dict[int, int] = {}
        self._entries_at_once = _ENTRIES_AT_ONCE
        self._reported: set[tuple[str, type[Exception]]] = set()

    def init(self) -> None:
        """The kernel and the binding have agreed on the protocol."""
        self._ready()

    def _caller(self, ctx: RequestContext) -> Caller:
        return self._callers(ctx.uid, ctx.gid, ctx.pid, ctx.umask)

    # Names

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Find a name; an absent one is an answer too, and the kernel remembers it."""
        try:
            return entry(await self._fs.lookup(self._caller(ctx), parent_inode, name), self._lifetime())
        except Exception as error:
            if isinstance(error, FsError) and error.errno == errno.ENOENT:
                self._absent.entry_timeout = self._lifetime()
                return self._absent
            raise self._refusal("lookup", error) from None

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel drops references that lookups gave it. There is nobody to tell about a failure."""
        for inode, count in inode_list:
            try:
                self._fs.forget(inode, count)
            except Exception as error:
                self._refusal("forget", error)

    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        """Make a file, fifo, socket or device."""
        try:
            made = await self._fs.mknod(self._caller(ctx), parent_inode, name, mode, rdev)
            return entry(made, self._lifetime())
        except Exception as error:
            raise self._refusal("mknod", error) from None

    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        """Make a directory."""
        try:
            made = await self._fs.mkdir(self._caller(ctx), parent_inode, name, stat.S_IMODE(mode))
            return entry(made, self._lifetime())
        except Exception as error:
            raise self._refusal("mkdir", error) from None

    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        """Make a symbolic link."""
        try:
            return entry(await self._fs.symlink(self._caller(ctx), parent_inode, name, target), self._lifetime())
        except Exception as error:
            raise self._refusal("symlink", error) from None

    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Give an inode another name."""
        try:
            linked = await self._fs.link(self._caller(ctx), inode, new_parent_inode, new_name)
            return entry(linked, self._lifetime())
        except Exception as error:
            raise self._refusal("link", error) from None

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Where a symbolic link points."""
        try:
            return await self._fs.readlink(inode)
        except Exception as error:
            raise self._refusal("readlink", error) from None

    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove a name of anything but a directory."""
        try:
            await self._fs.unlink(self._caller(ctx), parent_inode, name)
        except Exception as error:
            raise self._refusal("unlink", error) from None

    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an empty directory."""
        try:
            await self._fs.rmdir(self._caller(ctx), parent_inode, name)
        except Exception as error:
            raise self._refusal("rmdir", error) from None

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move a name; the flags are those of renameat2(2)."""
        try:
            await self._fs.rename(self._caller(ctx), parent_inode_old, name_old, parent_inode_new, name_new, flags)
        except Exception as error:
            raise self._refusal("rename", error) from None

    # Attributes

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """The attributes of an inode."""
        try:
            return entry(await self._fs.getattr(inode), self._lifetime())
        except Exception as error:
            raise self._refusal("getattr", error) from None

    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        """Change attributes, all of one request together."""
        try:
            changed = await self._fs.setattr(self._caller(ctx), inode, changes(attr, fields), fh)
            return entry(changed, self._lifetime())
        except Exception as error:
            raise self._refusal("setattr", error) from None

    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        """Whether the caller may, for a kernel that does not know by itself: what `access(2)` asks."""
        try:
            await self._fs.access(self._caller(ctx), inode, mode)
        except Exception as error:
            raise self._refusal("access", error) from None
        return True

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an extended attribute; the binding has checked XATTR_CREATE and XATTR_REPLACE."""
        try:
            await self._fs.setxattr(self._caller(ctx), inode, name, value, 0)
        except Exception as error:
            raise self._refusal("setxattr", error) from None

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """The value of an extended attribute."""
        try:
            return await self._fs.getxattr(self._caller(ctx), inode, name)
        except Exception as error:
            raise self._refusal("getxattr", error) from None

    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """The names of the extended attributes."""
        try:
            return await self._fs.listxattr(self._caller(ctx), inode)
        except Exception as error:
            raise self._refusal("listxattr", error) from None

    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute."""
        try:
            await self._fs.removexattr(self._caller(ctx), inode, name)
        except Exception as error:
            raise self._refusal("removexattr", error) from None

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Size and fill of the filesystem."""
        try:
            return statvfs(await self._fs.statfs())
        except Exception as error:
            raise self._refusal("statfs", error) from None

    # Files

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a regular file and open it."""
        try:
            handle, made = await self._fs.create(
                self._caller(ctx),
                parent_inode,
                name,
                stat.S_IMODE(mode),
                flags & ~os.O_APPEND,
                self.enable_writeback_cache,
            )
            if flags & os.O_DIRECT:
                self._direct.add(handle)
            return FileInfo(fh=handle), entry(made, self._lifetime())
        except Exception as error:
            raise self._refusal("create", error) from None

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file. The kernel resolves O_APPEND itself; its page cache stays valid where we are the writer."""
        try:
            keep_times = self.enable_writeback_cache
            handle = await self._fs.open(self._caller(ctx), inode, flags & ~os.O_APPEND, keep_times)
            if flags & os.O_DIRECT:
                self._direct.add(handle)
            return FileInfo(fh=handle, keep_cache=self._keep_cache)
        except Exception as error:
            raise self._refusal("open", error) from None

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read; with the writeback cache also from a handle that was opened for writing only."""
        try:
            return await self._fs.read(fh, off, size)
        except Exception as error:
            raise self._refusal("read", error) from None

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write. What comes out of the writeback cache leaves the times alone: the kernel sets those itself."""
        try:
            return await self._fs.write(fh, off, buf, self.enable_writeback_cache and fh not in self._direct)
        except Exception as error:
            raise self._refusal("write", error) from None

    async def flush(self, fh: int) -> None:
        """A descriptor is closed: its close(2) returns what this says."""
        try:
            await self._fs.flush(fh)
        except Exception as error:
            raise self._refusal("flush", error) from None

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Return when the file is durable."""
        try:
            await self._fs.fsync(fh, datasync)
        except Exception as error:
            raise self._refusal("fsync", error) from None

    async def release(self, fh: int) -> None:
        """The last descriptor of an open file is gone."""
        self._direct.discard(fh)
        try:
            await self._fs.release(fh)
        except Exception as error:
            raise self._refusal("release", error) from None

    # Directories

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Open a directory."""
        try:
            handle = await self._fs.opendir(self._caller(ctx), inode)
        except Exception as error:
            raise self._refusal("opendir", error) from None
        self._directories[handle] = inode
        return handle

    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """Fill the reply with entries and their attributes, from a cookie on.

        Each entry that the kernel gets is a reference that it will forget; the ones that did not fit are taken back.
        """
        cookie = start_id
        try:
            if cookie < _DOT_DOT_COOKIE:
                if not await self._reply_dots(fh, cookie, token):
                    return
                cookie = _DOT_DOT_COOKIE
            limit = self._entries_at_once
            fitted = 0
            while True:
                entries = await self._fs.readdir(fh, cookie, limit)
                sent = self._reply_entries(entries, token)
                fitted += sent
                if sent < len(entries):
                    # One more than fits tells that the reply is full, and only one has to be taken back.
                    self._entries_at_once = fitted + 1
                    return
                if len(entries) < limit:
                    return
                cookie = entries[-1].cookie
                limit = _FURTHER_ENTRIES
        except Exception as error:
            refusal = self._refusal("readdir", error)
            if cookie == start_id:
                raise refusal from None
            # What was sent so far must reach the kernel, which counts references by it. The next request meets the
            # same error with nothing sent.

    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._directories.pop(fh, None)
        try:
            await self._fs.releasedir(fh)
        except Exception as error:
            raise self._refusal("releasedir", error) from None

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Return when the directory is durable."""
        try:
            await self._fs.fsyncdir(fh, datasync)
        except Exception as error:
            raise self._refusal("fsyncdir", error) from None

    async def _reply_dots(self, handle: int, cookie: int, token: ReaddirToken) -> bool:
        """Add "." and ".." as far as the cookie has not passed them; the kernel counts no reference for these."""
        inode = self._directories[handle]
        dots = EntryAttributes()
        dots.st_mode = stat.S_IFDIR
        dots.st_ino = inode
        if cookie < _DOT_COOKIE and not readdir_reply(token, b".", dots, _DOT_COOKIE):
            return False
        parent = await self._fs.lookup(SYSTEM, inode, b"..")
        self._fs.forget(parent.inode, 1)
        dots.st_ino = parent.inode
        return readdir_reply(token, b"..", dots, _DOT_DOT_COOKIE)

    def _reply_entries(self, entries: Sequence[DirectoryEntry], token: ReaddirToken) -> int:
        """Add entries until the reply is full. Returns how many went in; the lookups of the others are undone."""
        sent = 0
        try:
            for found in entries:
                if not readdir_reply(token, found.name, entry(found.attributes, self._lifetime()), found.cookie):
                    break
                sent += 1
        except Exception:
            if not sent:
                raise
        finally:
            for refused in entries[sent:]:
                self._fs.forget(refused.attributes.inode, 1)
        return sent

    # Failures

    def _refusal(self, operation: str, error: Exception) -> FUSEError:
        """The error as the kernel understands it. What is not an `FsError` is a bug: logged, and EIO."""
        if isinstance(error, FsError):
            return FUSEError(error.errno or errno.EIO)
        kind = (operation, type(error))
        # Each kind once: a stream of requests would repeat it thousands of times a second.
        if kind not in self._reported:
            self._reported.add(kind)
            # Neither the error's message nor the request is shown: they may hold names of files.
            frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
            _log.error("%s failed with %s, answered with EIO:\n%s", operation, type(error).__name__, frames)
        return FUSEError(errno.EIO)
