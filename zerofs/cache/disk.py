"""Sealed frames on the local disk, in lsm-db: exactly the bytes that the store holds, so nothing here is readable.

A ring of database files, each a fraction of the budget, because a database does not shrink when keys are deleted: new
entries go into the newest file, the others are open for reading only, eviction drops the oldest file whole. A lock file
gives the folder one owner; a second process goes without a disk cache rather than wait.

Entries are not trusted: they are frames, and whoever asked opens them. Files are not trusted either (see `ringfile`). A
clean close brings them to the disk and writes a record of what they look like; the next owner takes the record away
first, and deletes unread what is not as it says. After a kill, a crash or a power loss there is no record, hence no
cache: a file that crashed one process never gets another. A file that gave a damaged entry is abandoned too.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from zerofs.cache.folders import remove_unused, take_lock
from zerofs.cache.record import Shape, take_record, write_record
from zerofs.cache.ringfile import RingFile, memory_is_cleared, unused_path
from zerofs.units import MIB
from zerofs.world import Lane, World

log = logging.getLogger(__name__)

RING_FILES = 8
"""Eviction drops one eighth of the budget at a time."""

QUEUE_LIMIT_BYTES = 16 * MIB
"""Bytes waiting to be written; what comes on top is not cached."""

FREE_SPACE_SHARE = 20
"""The cache takes nothing more when less than one part in so many of the disk is free."""


class DiskCache:
    """One folder of sealed frames. All calls from the trio thread; the databases are used by one thread at a time."""

    def __init__(self, folder: Path, limit_bytes: int, world: World) -> None:
        self._folder = folder
        self._file_limit = max(limit_bytes // RING_FILES, MIB)
        self._files_max = max(2, limit_bytes // self._file_limit)
        self._world = world
        self._ring: list[RingFile] = []
        self._lock_fd = -1
        self._access = trio.Lock()
        self._queue: dict[bytes, bytes] = {}
        self._queued_bytes = 0
        self._wanted = trio.Event()
        self.device = -1
        """The disk that the folder is on, while this is open."""
        self.hits = 0
        self.misses = 0
        self.evicted_files = 0

    def open(self) -> bool:
        """Take the folder. False, and no cache, when another process has it, or disk or allocator refuse."""
        if not memory_is_cleared():
            log.warning("no disk cache: this C library does not clear memory, so its files would show our own")
            return False
        try:
            self._lock_fd = take_lock(self._folder)
            self._note_use()
            self.device = os.fstat(self._lock_fd).st_dev
            shapes = take_record(self._folder)
        except OSError as error:
            why = "another process uses it" if error.errno == errno.EWOULDBLOCK else error.strerror
            log.warning("no disk cache in %s: %s", self._folder, why)
            self._close_lock()
            return False
        _delete_others(self._folder, shapes)
        for name in sorted(shapes):
            self._ring.append(RingFile(self._folder / name, shapes[name], writable=name == max(shapes)))
        self._forget_abandoned()
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
            self._forget_abandoned()
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
        """Forget an entry that turned out to be damaged, with the file that gave it: who knows what else is damaged."""
        queued = self._queue.pop(key, None)
        if queued is not None:
            self._queued_bytes -= len(queued)
            return
        async with self._access:
            await self._world.offload(Lane.DISK, _abandon_holder, list(reversed(self._ring)), key)
        self._forget_abandoned()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what was put, until cancelled. Begins with deleting the folders of others that nobody uses any more."""
        task_status.started()
        await self._remove_unused()
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            async with self._access:
                batch, self._queue, self._queued_bytes = self._queue, {}, 0
                await self._write(batch)

    async def _remove_unused(self) -> None:
        parent = self._folder.parent
        try:
            names = await self._world.offload(Lane.DISK, remove_unused, parent, self._world.now_ns())
        except OSError as error:
            log.warning("unused disk caches in %s cannot be looked for: %s", parent, error.strerror)
            return
        for name in names:
            log.info("disk cache %s had not been used for a month; deleted", parent / name)

    async def _write(self, batch: Mapping[bytes, bytes]) -> None:
        try:
            if not self._ring or not self._ring[-1].writable or self._ring[-1].size_bytes >= self._file_limit:
                await self._turn_ring()
            newest = self._ring[-1]
            await self._world.offload(Lane.DISK, newest.write, batch)
            self._forget_abandoned()
        except (OSError, MemoryError) as error:
            # A full or failing disk costs the cache, never a request.
            log.warning("disk cache in %s: write failed: %s; going on without it", self._folder, error)
            ring, self._ring = self._ring, []
            await self._world.offload(Lane.DISK, _close_files, self._folder, ring)
            self._close_lock()

    async def _turn_ring(self) -> None:
        disk = os.statvfs(self._folder)
        scarce = disk.f_bavail * FREE_SPACE_SHARE < disk.f_blocks
        while self._ring and (len(self._ring) >= self._files_max or scarce):
            oldest = self._ring.pop(0)
            await self._world.offload(Lane.DISK, oldest.remove)
            self.evicted_files += 1
            scarce = False
        number = 1
        if self._ring:
            number = int(self._ring[-1].path.stem) + 1
            await self._world.offload(Lane.DISK, self._ring[-1].freeze)
            self._forget_abandoned()
        fresh = RingFile(unused_path(self._folder, number), None, writable=True)
        if fresh.abandoned:
            raise OSError(errno.EIO, "cannot create a database file")
        self._ring.append(fresh)

    def _forget_abandoned(self) -> None:
        self._ring = [ring_file for ring_file in self._ring if not ring_file.abandoned]

    def close(self) -> None:
        """Give the folder up. What is cached stays for the next owner."""
        if self._lock_fd >= 0:
            _close_files(self._folder, self._ring)
        self._ring = []
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

    def _note_use(self) -> None:
        now_ns = self._world.now_ns()
        os.utime(self._lock_fd, ns=(now_ns, now_ns))

    def _close_lock(self) -> None:
        self._queue, self._queued_bytes = {}, 0
        if self._lock_fd >= 0:
            with contextlib.suppress(OSError):
                self._note_use()
            os.close(self._lock_fd)
        self._lock_fd = -1


def _delete_others(folder: Path, shapes: Mapping[str, Shape]) -> None:
    for path in folder.glob("*.cache*"):
        if path.name not in shapes:
            with contextlib.suppress(OSError):
                path.unlink()


def _read(ring: Sequence[RingFile], keys: Sequence[bytes]) -> list[bytes | None]:
    found: dict[bytes, bytes] = {}
    for ring_file in ring:
        missing = [key for key in keys if key not in found]
        if missing:
            found |= ring_file.read(missing)
    return [found.get(key) for key in keys]


def _abandon_holder(ring: Sequence[RingFile], key: bytes) -> None:
    for ring_file in ring:
        if ring_file.read([key]):
            ring_file.abandon()
            return


def _close_files(folder: Path, ring: Sequence[RingFile]) -> None:
    shapes = {ring_file.path.name: ring_file.close() for ring_file in ring}
    try:
        write_record(folder, shapes)
    except OSError as error:
        log.warning("disk cache in %s: %s; the next mount begins with an empty one", folder, error.strerror)
