"""The door of the room: what frontends call. Delegates to `ops` and translates errors, nothing else.

Every coroutine raises FsError only. What the engine raises becomes EIO, and EROFS for changes after another writer took
the volume over. Coroutines that find everything in memory reach no checkpoint.
"""

import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import trio

from zerofs.errors import FencedError, FsError, ReadOnlyError, ZerofsError
from zerofs.fs import mounting, writeback
from zerofs.fs.access import Caller
from zerofs.fs.attributes import AttributeChanges, Attributes, DirectoryEntry, FilesystemStatistics
from zerofs.fs.chunks import Data
from zerofs.fs.context import Context
from zerofs.fs.ops import attr, copy, create, directory, io, link, lookup, remove, rename, space, xattr
from zerofs.fs.options import FilesystemOptions
from zerofs.fs.ports import Engine
from zerofs.fs.renewal import Read, Renewals
from zerofs.world import World

ROOT_INODE = mounting.ROOT_INODE

_log = logging.getLogger(__name__)

_REPORTED_MAX = 100

P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate["Filesystem", P], Awaitable[T]]


def _raises_fs_error(method: Method[P, T]) -> Callable[Concatenate["Filesystem", P], Coroutine[Any, Any, T]]:
    @functools.wraps(method)
    async def call(self: "Filesystem", /, *args: P.args, **kwargs: P.kwargs) -> T:
        inodes = self._ctx.inodes
        while True:
            renewals = inodes.renewals
            try:
                return await method(self, *args, **kwargs)
            except ZerofsError as error:
                if renewals != inodes.renewals:
                    continue  # of two states, each of which may be without fault; nothing was changed yet
                if isinstance(error, FsError):
                    raise
                raise self._translated(error) from error

    return call


class Filesystem:
    """One mounted filesystem. Made by `mount`; used from one trio thread.

    Inode 1 is the root. Names are bytes. `parent` is always the inode of a directory. Where a method says that it
    counts a lookup, the frontend owes a `forget`.
    """

    def __init__(self, context: Context) -> None:
        self._ctx = context
        self._renewals = Renewals(context)
        self._reported: set[str] = set()

    @classmethod
    async def mount(cls, engine: Engine, options: FilesystemOptions, world: World) -> "Filesystem":
        """Open the filesystem in `engine`, making an empty one if there is none at all and the mount may write.

        Reclaims what an earlier mount left unlinked but open. Raises NoVolumeError (none, and read-only),
        UnsupportedFormatError (made by a newer zerofs), CorruptionError, and what the engine raises.
        """
        return cls(await mounting.open_context(engine, options, world))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The background service; to be run as long as the filesystem is open, except on a read-only one."""
        await writeback.run(self._ctx, task_status=task_status)

    async def prepare_renewal(self, read: Read) -> Callable[[], None]:
        """For the engine of a mount that follows a writer, before it shows a newer state: see `renewal`."""
        return await self._renewals.prepare(read)

    async def next_renewal(self) -> list[int]:
        """Wait for a newer state; the regular files that were open then, of which somebody may keep old data."""
        return await self._renewals.next()

    @property
    def data_lost(self) -> bool:
        """Whether a write was ever refused for want of the store. Every fsync fails until an operator clears it."""
        return self._ctx.data_lost

    def clear_data_lost(self) -> None:
        """The operator knows."""
        self._ctx.clear_data_lost()

    # names

    @_raises_fs_error
    async def lookup(self, caller: Caller, parent: int, name: bytes) -> Attributes:
        """The inode that a name leads to. Counts a lookup. Raises ENOENT, EACCES, ENOTDIR, ENAMETOOLONG, ESTALE."""
        return await lookup.lookup(self._ctx, caller, parent, name)

    def forget(self, inode: int, count: int) -> None:
        """Take back lookups. With the last one, an unlinked inode that is not open goes."""
        lookup.forget(self._ctx, inode, count)

    @_raises_fs_error
    async def mknod(self, caller: Caller, parent: int, name: bytes, mode: int, rdev: int) -> Attributes:
        """Make a regular file, fifo, socket or device. Counts a lookup."""
        return await create.mknod(self._ctx, caller, parent, name, mode, rdev)

    @_raises_fs_error
    async def mkdir(self, caller: Caller, parent: int, name: bytes, mode: int) -> Attributes:
        """Make a directory. Counts a lookup."""
        return await create.mkdir(self._ctx, caller, parent, name, mode)

    @_raises_fs_error
    async def symlink(self, caller: Caller, parent: int, name: bytes, target: bytes) -> Attributes:
        """Make a symbolic link. Counts a lookup."""
        return await create.symlink(self._ctx, caller, parent, name, target)

    @_raises_fs_error
    async def link(self, caller: Caller, inode: int, parent: int, name: bytes) -> Attributes:
        """Give an inode another name. Counts a lookup."""
        return await link.link(self._ctx, caller, inode, parent, name)

    @_raises_fs_error
    async def readlink(self, inode: int) -> bytes:
        """The target of a symbolic link."""
        return await link.readlink(self._ctx, inode)

    @_raises_fs_error
    async def unlink(self, caller: Caller, parent: int, name: bytes) -> None:
        """Take away a name that leads to no directory."""
        await remove.unlink(self._ctx, caller, parent, name)

    @_raises_fs_error
    async def rmdir(self, caller: Caller, parent: int, name: bytes) -> None:
        """Take away an empty directory."""
        await remove.rmdir(self._ctx, caller, parent, name)

    @_raises_fs_error
    async def rename(
        self, caller: Caller, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """Move a name. `flags`: RENAME_NOREPLACE = 1, RENAME_EXCHANGE = 2."""
        await rename.rename(self._ctx, caller, parent, name, new_parent, new_name, flags)

    # attributes

    @_raises_fs_error
    async def getattr(self, inode: int) -> Attributes:
        """What stat(2) shows. Raises ESTALE."""
        return await attr.getattr_(self._ctx, inode)

    @_raises_fs_error
    async def setattr(
        self, caller: Caller, inode: int, changes: AttributeChanges, handle: int | None = None
    ) -> Attributes:
        """Change mode, owner, size and times, all in one commit."""
        return await attr.setattr_(self._ctx, caller, inode, changes, handle)

    @_raises_fs_error
    async def access(self, caller: Caller, inode: int, mask: int) -> None:
        """Raise EACCES or EROFS unless the access is granted."""
        await attr.access(self._ctx, caller, inode, mask)

    @_raises_fs_error
    async def getxattr(self, caller: Caller, inode: int, name: bytes) -> bytes:
        """The value of an extended attribute."""
        return await xattr.getxattr(self._ctx, caller, inode, name)

    @_raises_fs_error
    async def setxattr(self, caller: Caller, inode: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute. `flags`: XATTR_CREATE = 1, XATTR_REPLACE = 2."""
        await xattr.setxattr(self._ctx, caller, inode, name, value, flags)

    @_raises_fs_error
    async def listxattr(self, caller: Caller, inode: int) -> list[bytes]:
        """The names of the extended attributes."""
        return await xattr.listxattr(self._ctx, caller, inode)

    @_raises_fs_error
    async def removexattr(self, caller: Caller, inode: int, name: bytes) -> None:
        """Remove an extended attribute."""
        await xattr.removexattr(self._ctx, caller, inode, name)

    # files

    @_raises_fs_error
    async def create(
        self, caller: Caller, parent: int, name: bytes, mode: int, flags: int, keep_times: bool = False
    ) -> tuple[int, Attributes]:
        """Open a file, made if the name is free: (handle, attributes). Counts a lookup."""
        return await create.create(self._ctx, caller, parent, name, mode, flags, keep_times)

    @_raises_fs_error
    async def tmpfile(self, caller: Caller, parent: int, mode: int, flags: int) -> tuple[int, Attributes]:
        """Open a new file without a name: (handle, attributes). Counts a lookup. `link` may name it; see `create`."""
        return await create.tmpfile(self._ctx, caller, parent, mode, flags)

    @_raises_fs_error
    async def open(self, caller: Caller, inode: int, flags: int, keep_times: bool = False) -> int:
        """A handle on something that is no directory; O_TRUNC is obeyed, O_APPEND is the frontend's."""
        return await io.open_(self._ctx, caller, inode, flags, keep_times)

    @_raises_fs_error
    async def release(self, handle: int) -> None:
        """Close a handle. With the last one, an unlinked inode that the kernel has forgotten goes."""
        io.release(self._ctx, handle)

    @_raises_fs_error
    async def read(self, handle: int, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer at the end of the file only."""
        return b"".join(await io.read(self._ctx, handle, offset, size))

    @_raises_fs_error
    async def read_pieces(self, handle: int, offset: int, size: int) -> Sequence[Data]:
        """As `read`, in pieces that follow one another: for a frontend that can hand them on without joining them."""
        return await io.read(self._ctx, handle, offset, size)

    def lend(self, size_bytes: int) -> memoryview | None:
        """Memory to be filled, parts of which `write` keeps without a copy: see `ports.Engine.lend`."""
        return self._ctx.engine.lend(size_bytes)

    @_raises_fs_error
    async def write(
        self,
        handle: int,
        offset: int,
        data: bytes | memoryview,
        keep_times: bool = False,
        privileges_go: bool = False,
    ) -> int:
        """Put all of `data` at `offset`, or nothing; its length. `keep_times`: the caller sets the times itself."""
        return await io.write(self._ctx, handle, offset, data, keep_times=keep_times, privileges_go=privileges_go)

    @_raises_fs_error
    async def copy_range(self, source: int, source_offset: int, target: int, target_offset: int, size: int) -> int:
        """Copy up to `size` bytes between two handles; how many, often fewer. See `ops.copy`."""
        return await copy.copy_range(self._ctx, source, source_offset, target, target_offset, size)

    @_raises_fs_error
    async def allocate(self, handle: int, mode: int, offset: int, size: int) -> None:
        """fallocate(2): see that there is room, punch a hole, make zeros. See `ops.space`."""
        await space.allocate(self._ctx, handle, mode, offset, size)

    @_raises_fs_error
    async def flush(self, handle: int) -> None:
        """What close(2) reports. Makes nothing durable."""
        io.flush(self._ctx, handle)

    async def fsync(self, handle: int, datasync: bool = False) -> None:
        """Return when everything written before is durable, data and metadata. Raises EIO, also when fenced."""
        del datasync  # one cut takes data and metadata alike
        await self._durably(io.fsync(self._ctx, handle))

    @_raises_fs_error
    async def seek_data(self, handle: int, offset: int) -> int:
        """The first byte at or behind `offset` that is no hole. Raises ENXIO."""
        return await io.seek(self._ctx, handle, offset, hole=False)

    @_raises_fs_error
    async def seek_hole(self, handle: int, offset: int) -> int:
        """The first byte at or behind `offset` in a hole; the end counts as one. Raises ENXIO."""
        return await io.seek(self._ctx, handle, offset, hole=True)

    # directories

    @_raises_fs_error
    async def opendir(self, caller: Caller, inode: int) -> int:
        """A handle on a directory."""
        return await directory.opendir(self._ctx, caller, inode)

    @_raises_fs_error
    async def readdir(self, handle: int, after_cookie: int, limit: int) -> list[DirectoryEntry]:
        """Up to `limit` entries behind a cookie (0 = start), without "." and ".."; each counts a lookup."""
        return await directory.readdir(self._ctx, handle, after_cookie, limit)

    @_raises_fs_error
    async def releasedir(self, handle: int) -> None:
        """Close a directory's handle."""
        io.release(self._ctx, handle)

    async def fsyncdir(self, handle: int, datasync: bool = False) -> None:
        """As fsync."""
        del datasync
        await self._durably(io.fsync(self._ctx, handle))

    # the whole

    @_raises_fs_error
    async def statfs(self) -> FilesystemStatistics:
        """Size and room."""
        return self._ctx.usage.statistics()

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of files that were read and written so far; what the kernel has in its cache it does not ask for."""
        return self._ctx.read_bytes, self._ctx.written_bytes

    async def sync(self) -> None:
        """Return when everything written before is durable. Raises EIO, also when fenced."""
        await self._durably(io.sync(self._ctx))

    async def flush_all(self) -> None:
        """A sync, after which opening the volume has nothing to replay."""
        await self._durably(self._flush_all())

    def retire(self) -> None:
        """The mount ends: nobody refers to anything any more, orphans go. What is left is the engine's to store.

        Afterwards, `require_nothing_lost` has the last word.
        """
        self._ctx.handles.abandon()
        self._ctx.orphans.release_all()

    def require_nothing_lost(self) -> None:
        """Raise FsError(EIO) when a write was ever refused: to be told at the end, when everything else is stored."""
        if self._ctx.data_lost:
            raise FsError(errno.EIO, "a write was refused and its data is lost; the log names the inode")

    async def close(self) -> None:
        """Retire, and make everything durable. Raises EIO. The engine stays open: it belongs to whoever made it."""
        self.retire()
        await self._durably(io.sync(self._ctx))

    async def _flush_all(self) -> None:
        await io.sync(self._ctx)
        if not self._ctx.options.read_only:
            await self._ctx.engine.flush()

    async def _durably(self, work: Awaitable[None]) -> None:
        try:
            await work
        except FsError:
            raise
        except FencedError as error:
            raise FsError(errno.EIO, "another writer took the volume over: nothing more becomes durable") from error
        except ZerofsError as error:
            raise self._translated(error) from error

    def _translated(self, error: ZerofsError) -> FsError:
        if isinstance(error, FencedError | ReadOnlyError):
            return FsError(errno.EROFS, str(error))
        message = f"{type(error).__name__}: {error}"
        if message not in self._reported and len(self._reported) < _REPORTED_MAX:
            self._reported.add(message)
            _log.error("input/output error: %s", message)
        return FsError(errno.EIO, message)
