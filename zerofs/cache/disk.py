"""Sealed frames on the local disk, in lsm-db: exactly the bytes that the store holds, so nothing here is readable.

A ring of database files, each a fraction of the budget, because a database does not shrink when keys are deleted: new
entries go into the newest file, eviction drops the oldest file whole. Entries are not trusted: they are frames, and
whoever asked opens them; one that does not open is discarded by the caller and fetched again. A lock file gives the
folder one owner; a second process goes without a disk cache rather than wait.

lsm-db writes whole pages, and parts of them come from memory that it never cleared: without a remedy, what this process
freed before (contents, names, keys) would lie readable in the files. So the allocator clears what it hands out while
lsm-db runs, and where that cannot be had there is no disk cache (promise P1).

Not durable and not meant to be: no fsync, and files that do not open are deleted. The lock file holds the boot id while
the cache is open: after a power loss, when pages may be torn, everything is deleted unread.
"""

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lsm
import trio

from zerofs.units import MIB
from zerofs.world import Lane, World

log = logging.getLogger(__name__)

RING_FILES = 8
"""Eviction drops one eighth of the budget at a time."""

QUEUE_LIMIT_BYTES = 16 * MIB
"""Bytes waiting to be written; what comes on top is not cached."""

AUTOFLUSH_KIB = 4096
PAGE_SIZE = 32 * 1024
"""Large pages and flushes suit entries of 32 KiB: about twice the write rate of the library's defaults."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

FREE_SPACE_SHARE = 20
"""The cache takes nothing more when less than one part in so many of the disk is free."""


_M_PERTURB = -6
_libc = ctypes.CDLL(None)


class DiskCache:
    """One folder of sealed frames. All calls from the trio thread; the databases are used by one thread at a time."""

    def __init__(self, folder: Path, limit_bytes: int, world: World) -> None:
        self._folder = folder
        self._file_limit = max(limit_bytes // RING_FILES, MIB)
        self._files_max = max(2, limit_bytes // self._file_limit)
        self._world = world
        self._ring: list[_RingFile] = []
        self._lock_fd = -1
        self._access = trio.Lock()
        self._queue: dict[bytes, bytes] = {}
        self._queued_bytes = 0
        self._wanted = trio.Event()
        self.hits = 0
        self.misses = 0
        self.evicted_files = 0

    def open(self) -> bool:
        """Take the folder. False, and no cache, when another process has it, or disk or allocator refuse."""
        if not _memory_is_cleared():
            log.warning("no disk cache: this C library does not clear memory, so its files would show our own")
            return False
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            why = "another process uses it" if error.errno == errno.EWOULDBLOCK else os.strerror(error.errno or 0)
            log.warning("no disk cache in %s: %s", self._folder, why)
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
            self._lock_fd = -1
            return False
        self._wipe_after_power_loss()
        for path in sorted(self._folder.glob("*.cache")):
            ring_file = _RingFile.open(path)
            if ring_file is not None:
                self._ring.append(ring_file)
        return True

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The frame of each key, or None. One thread hop for all of them."""
        found: list[bytes | None] = [self._queue.get(key) for key in keys]
        missing = [index for index, value in enumerate(found) if value is None]
        if missing and self._ring:
            async with self._access:
                values = await self._world.offload(
                    Lane.DISK, _read, list(reversed(self._ring)), [keys[index] for index in missing]
                )
            for index, value in zip(missing, values, strict=True):
                found[index] = value
        hits = sum(value is not None for value in found)
        self.hits += hits
        self.misses += len(keys) - hits
        return found

    def put(self, key: bytes, frame: bytes) -> None:
        """Have a frame written in the background; dropped without a word when the queue is full."""
        if self._lock_fd < 0 or key in self._queue or self._queued_bytes + len(frame) > QUEUE_LIMIT_BYTES:
            return
        self._queue[key] = frame
        self._queued_bytes += len(frame)
        self._wanted.set()

    async def discard(self, key: bytes) -> None:
        """Forget an entry that turned out to be damaged."""
        self._queue.pop(key, None)
        async with self._access:
            await self._world.offload(Lane.DISK, _delete, list(self._ring), key)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what was put, until cancelled."""
        task_status.started()
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            async with self._access:
                batch, self._queue, self._queued_bytes = self._queue, {}, 0
                await self._write(batch)

    async def _write(self, batch: Mapping[bytes, bytes]) -> None:
        try:
            if not self._ring or self._ring[-1].size_bytes >= self._file_limit:
                await self._turn_ring()
            newest = self._ring[-1]
            await self._world.offload(Lane.DISK, newest.write, batch)
        except (OSError, MemoryError) as error:
            # A full or failing disk costs the cache, never a request.
            log.warning("disk cache in %s: write failed: %s; going on without it", self._folder, error)
            self.close()

    async def _turn_ring(self) -> None:
        disk = os.statvfs(self._folder)
        scarce = disk.f_bavail * FREE_SPACE_SHARE < disk.f_blocks
        while self._ring and (len(self._ring) >= self._files_max or scarce):
            oldest = self._ring.pop(0)
            await self._world.offload(Lane.DISK, oldest.remove)
            self.evicted_files += 1
            scarce = False
        number = self._ring[-1].number + 1 if self._ring else 1
        fresh = _RingFile.open(self._folder / f"{number:012d}.cache")
        if fresh is None:
            raise OSError(errno.EIO, "cannot create a database file")
        self._ring.append(fresh)

    def _wipe_after_power_loss(self) -> None:
        boot_id = BOOT_ID.read_bytes() if BOOT_ID.exists() else b"unknown"
        if os.pread(self._lock_fd, 100, 0) not in (b"", boot_id):
            for path in self._folder.glob("*.cache*"):
                path.unlink()
        os.pwrite(self._lock_fd, boot_id, 0)

    def close(self) -> None:
        """Give the folder up. What is cached stays for the next owner."""
        for ring_file in self._ring:
            ring_file.close()
        self._ring = []
        self._queue = {}
        self._close_lock()

    def statistics(self) -> dict[str, int]:
        """Bytes, files and counters since the start."""
        return {
            "bytes": sum(ring_file.size_bytes for ring_file in self._ring),
            "files": len(self._ring),
            "hits": self.hits,
            "misses": self.misses,
            "evicted_files": self.evicted_files,
        }

    def _close_lock(self) -> None:
        if self._lock_fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock_fd, 0)
            os.close(self._lock_fd)
        self._lock_fd = -1


class _RingFile:
    """One database file of the ring."""

    def __init__(self, path: Path, database: "lsm.LSM") -> None:
        self.path = path
        self.number = int(path.stem)
        self.database = database
        self.size_bytes = path.stat().st_size if path.exists() else 0

    @classmethod
    def open(cls, path: Path) -> "_RingFile | None":
        """Open or create a file; one that does not open is deleted."""
        try:
            # No log and no fsync: a cache needs no recovery. No mmap: a full disk must be an error, not a SIGBUS.
            with _cleared_memory():
                database = lsm.LSM(
                    os.fspath(path),
                    transaction_log=False,
                    multiple_processes=False,
                    write_safety=lsm.SAFETY_OFF,
                    mmap=0,
                    autoflush=AUTOFLUSH_KIB,
                    page_size=PAGE_SIZE,
                )
            os.chmod(path, 0o600)
            return cls(path, database)
        except (OSError, ValueError, MemoryError):
            log.info("disk cache file %s does not open; deleted", path)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def write(self, batch: Mapping[bytes, bytes]) -> None:
        """Insert all entries."""
        with _cleared_memory():
            self.database.update(batch)
        self.size_bytes += sum(len(key) + len(frame) for key, frame in batch.items())

    def close(self) -> None:
        """Flush what the database holds in memory and close it."""
        with contextlib.suppress(OSError), _cleared_memory():
            self.database.close()

    def remove(self) -> None:
        """Close and delete."""
        self.close()
        for path in (
            self.path,
            self.path.with_name(self.path.name + "-log"),
            self.path.with_name(self.path.name + "-shm"),
        ):
            with contextlib.suppress(OSError):
                path.unlink()


def _read(ring: Sequence[_RingFile], keys: Sequence[bytes]) -> list[bytes | None]:
    values: list[bytes | None] = []
    for key in keys:
        value = None
        for ring_file in ring:
            try:
                value = bytes(ring_file.database[key])
                break
            except KeyError:
                continue
            except OSError:
                break
        values.append(value)
    return values


def _delete(ring: Sequence[_RingFile], key: bytes) -> None:
    for ring_file in ring:
        with contextlib.suppress(KeyError, OSError), _cleared_memory():
            del ring_file.database[key]


@contextlib.contextmanager
def _cleared_memory() -> Iterator[None]:
    """Whatever malloc hands out meanwhile is zero, in all threads. Not to be nested; lsm-db has one caller at a time.

    Source: mallopt(3), M_PERTURB: new memory is set to the complement of the lowest byte.
    """
    _libc.mallopt(_M_PERTURB, 0xFF)
    try:
        yield
    finally:
        _libc.mallopt(_M_PERTURB, 0)


def _memory_is_cleared() -> bool:
    """Whether `_cleared_memory` works here: not with another C library, nor with another allocator put in its place."""
    if not hasattr(_libc, "mallopt"):
        return False
    malloc, free = _libc.malloc, _libc.free
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    with _cleared_memory():
        used = malloc(PAGE_SIZE)
        ctypes.memset(used, 0xAA, PAGE_SIZE)
        free(used)
        fresh = malloc(PAGE_SIZE)
        cleared = ctypes.string_at(fresh, PAGE_SIZE) == bytes(PAGE_SIZE)
        free(fresh)
    return cleared
