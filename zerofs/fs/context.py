"""What every verb works with: the nouns of one mount, the clock, and the way to the engine.

The order in which each changing verb does things, and why:

1. `admit`: wait for room in memory, holding nothing.
2. Look names up, lock the inodes, look the names up again.
3. Read whatever is needed, check permissions and shapes. All awaits end here.
4. `require_writable`: the last moment to refuse. From here to the commit there is no await, so nothing can change
   underneath and no step has to be undone.
5. Change the inodes, stage rows, `commit`.
"""

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from zerofs.errors import CorruptionError, FsError, ZerofsError
from zerofs.fs.dentries import Dentries
from zerofs.fs.format.keys import decode_key
from zerofs.fs.format.records import Dentry, Inode
from zerofs.fs.handles import Handles
from zerofs.fs.inodes import Inodes
from zerofs.fs.locks import InodeLocks
from zerofs.fs.options import FilesystemOptions
from zerofs.fs.orphans import Orphans
from zerofs.fs.ports import ALIVE, Engine, KeyRange, Row
from zerofs.fs.readahead import Streams
from zerofs.fs.usage import Usage
from zerofs.world import World

_log = logging.getLogger(__name__)

T = TypeVar("T")

_ROWS_SIZE = 2048
"""Bytes in memory that an operation on metadata makes dirty, about."""

_NOTHING: tuple[KeyRange, ...] = ()


class Context:
    """One mount."""

    __slots__ = (
        "_data_lost",
        "broken",
        "dentries",
        "engine",
        "handles",
        "inodes",
        "locks",
        "now",
        "options",
        "orphans",
        "read_bytes",
        "streams",
        "usage",
        "world",
        "written_bytes",
    )

    def __init__(self, engine: Engine, options: FilesystemOptions, world: World, usage: Usage) -> None:
        self.engine = engine
        self.options = options
        self.world = world
        self.usage = usage
        self.locks = InodeLocks()
        self.handles = Handles()
        self.inodes = Inodes(engine, options.inode_cache_count)
        self.dentries = Dentries(engine, options.dentry_cache_count)
        self.orphans = Orphans(engine, self.inodes, self.handles, self.locks, usage)
        self.streams = Streams(options.read_ahead_bytes)
        self.now = world.now_ns
        self.read_bytes = 0
        self.written_bytes = 0
        """Contents of files that were asked for, and given, so far."""
        self._data_lost = False
        self.broken = False
        """A commit failed after memory was changed: memory and engine differ, so nothing more is written."""

    async def admit(self, size_bytes: int = _ROWS_SIZE, *, held: bool = False) -> None:
        """Wait while too much is dirty; refuse early on a read-only mount. `require_writable` has the last word.

        In a long outage a change is refused at once with EROFS, but `held` until it can be taken if the program that
        made it was told long ago that it succeeded.
        """
        if self.options.read_only:
            raise FsError(errno.EROFS)
        await self.engine.admit(size_bytes, unless_read_only=not held)
        if not held:
            self.require_no_long_outage()

    def require_no_long_outage(self) -> None:
        """Raise FsError(EROFS) while the store is away for so long that nothing new is begun."""
        if self.engine.state == "read-only":
            raise FsError(errno.EROFS, "the object store does not answer; the mount is read-only until it does")

    async def patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """The result of reads without which a write would be lost: an outage holds the caller.

        Raises what else the reads raise, and as `require_writable` when the mount ends meanwhile.
        """
        try:
            return await self.engine.patiently(read)
        except ZerofsError:
            self.require_writable()
            raise

    def require_writable(self) -> None:
        """Raise FsError(EROFS) on a read-only or fenced mount, FsError(EIO) when something else has ended it."""
        if self.options.read_only:
            raise FsError(errno.EROFS)
        state = self.engine.state
        if self.broken or state not in ALIVE:
            if state == "fenced":
                raise FsError(errno.EROFS, "another writer took the volume over")
            raise FsError(errno.EIO, f"the filesystem takes no more changes: the engine is {state}")

    def is_writable(self) -> bool:
        """Whether a change that nobody asked for (an access time) may be made, and one that is asked for would be."""
        return self.is_alive() and not self.options.read_only and self.engine.state != "read-only"

    def is_alive(self) -> bool:
        """Whether what was accepted goes on being stored."""
        return not self.broken and self.engine.state in ALIVE

    def commit(self, rows: list[Row], ranges: list[KeyRange] | tuple[KeyRange, ...] = _NOTHING) -> None:
        """One operation. `require_writable` was called, and nothing awaited since."""
        try:
            self.engine.commit(rows, ranges)
        except BaseException:
            self.broken = True
            _log.exception("a commit failed half-way; the mount takes no more changes")
            raise

    async def directory(self, number: int) -> Inode:
        """The inode of a directory. Raises FsError(ESTALE, ENOTDIR)."""
        node = self.inodes.cached(number) or await self.inodes.get(number)
        if not node.is_directory:
            raise FsError(errno.ENOTDIR)
        return node

    async def target(self, directory: int, dentry: Dentry) -> Inode:
        """The inode that a name leads to. Raises CorruptionError if there is none: call it with the name held."""
        node = self.inodes.cached(dentry.inode) or await self.inodes.find(dentry.inode)
        if node is None:
            raise CorruptionError(f"directory {directory}: an entry leads to inode {dentry.inode}, which is missing")
        return node

    @property
    def data_lost(self) -> bool:
        """Whether a write was refused for want of the store, or lost: what the kernel had promised for it is gone."""
        self.note_losses()
        return self._data_lost

    def note_losses(self) -> None:
        """What turned out to be lost when it was to be stored counts as refused."""
        for key, error in self.engine.take_losses():
            if self.is_alive():  # else that says enough
                self.note_refused_write(decode_key(key).inode, error)

    def clear_data_lost(self) -> None:
        """Somebody knows what was lost so far."""
        if self.data_lost:
            self._data_lost = False

    def note_refused_write(self, number: int, error: Exception) -> None:
        """A write to the inode failed: from now on its open handles say so at fsync and flush."""
        if isinstance(error, FsError):
            self.handles.mark_failed(number, error.errno)
            return
        self.handles.mark_failed(number, errno.EIO)
        if not self._data_lost:
            self._data_lost = True
            _log.error("a write to inode %d was refused and its data is lost: %s", number, error)
