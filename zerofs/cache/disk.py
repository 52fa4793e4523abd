"""Sealed frames on the local disk: exactly the bytes that the store holds, so nothing here is readable (decision 0020).

A ring of segments, each a fraction of the budget: new frames go to the end of the newest, eviction drops the oldest
whole. A lock file gives the folder one owner; a second process goes without a disk cache rather than wait.

Entries are not trusted: they are frames, and whoever asked opens them. One that turns out to be damaged goes with its
segment: who knows what else is damaged. What a killed owner left is taken over like anything else.
"""

import contextlib
import errno
import logging
import os
import re
import struct
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import trio

from zerofs.cache.folders import CACHE_FILE, remove_unused, take_lock
from zerofs.cache.segment import ENTRIES_MAX, FRAME_MAX_BYTES, Frame, Place, Segment, paths_of
from zerofs.telemetry.metrics import ratio
from zerofs.units import MIB
from zerofs.world import Lane, World

log = logging.getLogger(__name__)

RING_SEGMENTS = 8
"""Eviction drops one eighth of the budget at a time."""

QUEUE_LIMIT_BYTES = 16 * MIB
"""Bytes waiting to be written; what comes on top is not cached."""

FREE_SPACE_SHARE = 20
"""When less than one part in so many of the disk is free, the oldest segment goes before a new one begins."""

_NONCE = struct.Struct("<8xQQ")

_SEGMENT = re.compile(r"([0-9]{12})\.frames", re.ASCII)


class DiskCache:
    """One folder of sealed frames. All calls from the trio thread.

    Keys are numbers of 64 bits. If two frames have the same, one of them is never found: what is found does not open.
    """

    def __init__(self, folder: Path, limit_bytes: int, world: World) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._segment_limit = max(limit_bytes // RING_SEGMENTS, MIB)
        self._segments_max = max(2, limit_bytes // self._segment_limit)
        self._world = world
        self._ring: list[Segment] = []
        """Oldest first; the last one may be written to."""
        self._next_number = 1
        self._lock_fd = -1
        self._queue: dict[int, Frame] = {}
        self._queued_bytes = 0
        self._writing: dict[int, Frame] = {}
        self._discarded: set[int] = set()
        """What was discarded while it was being written."""
        self._wanted = trio.Event()
        self.device = -1
        """The disk that the folder is on, while this is open."""
        self.hits = 0
        self.misses = 0
        self.evicted_files = 0

    def open(self) -> bool:
        """Take the folder. False, and no cache, when another process has it, or the disk refuses."""
        try:
            self._lock_fd = take_lock(self._folder)
            self._note_use()
            self.device = os.fstat(self._lock_fd).st_dev
            names = sorted(os.listdir(self._folder))
        except OSError as error:
            why = "another process uses it" if error.errno == errno.EWOULDBLOCK else error.strerror
            log.warning("no disk cache in %s: %s", self._folder, why)
            self._close_lock()
            return False
        numbers = [int(match[1]) for match in map(_SEGMENT.fullmatch, names) if match is not None]
        self._next_number = max(numbers, default=0) + 1
        self._load(numbers)
        self._delete_others(names)
        return True

    def _load(self, numbers: Sequence[int]) -> None:
        """Take over what the budget, which may have become smaller, has room for, newest first."""
        room_bytes = self._limit_bytes + FRAME_MAX_BYTES
        for number in reversed(numbers):
            with contextlib.suppress(OSError, MemoryError):  # what cannot be taken over is deleted with the rest
                segment = Segment.load(self._folder, number, room_bytes)
                room_bytes -= segment.size_bytes
                self._ring.insert(0, segment)
            if len(self._ring) == self._segments_max:
                break

    def _delete_others(self, names: Sequence[str]) -> None:
        kept = {path.name for segment in self._ring for path in paths_of(self._folder, segment.number)}
        for name in names:
            if name not in kept and CACHE_FILE.fullmatch(name):
                with contextlib.suppress(OSError):
                    (self._folder / name).unlink()

    async def get_many(self, keys: Sequence[int]) -> list[Frame | None]:
        """The frame of each key, or None. A thread hop for each segment of which the page cache does not hold them."""
        found: list[Frame | None] = [None] * len(keys)
        wanted: dict[Segment, list[tuple[int, Place]]] = {}
        for position, key in enumerate(keys):
            found[position] = self._queue.get(key) or self._writing.get(key)
            if found[position] is None and (holder := self._find(key)) is not None:
                wanted.setdefault(holder[0], []).append((position, holder[1]))
        with contextlib.ExitStack() as held:
            for segment in wanted:  # all of them before the first wait, in which the ring may turn
                segment.hold()
                held.callback(segment.let_go)
            for segment, places in wanted.items():
                frames = await self._read(segment, [place for _, place in places])
                for (position, _), frame in zip(places, frames, strict=True):
                    found[position] = frame
        hits = sum(frame is not None for frame in found)
        self.hits += hits
        self.misses += len(keys) - hits
        return found

    async def _read(self, segment: Segment, places: Sequence[Place]) -> Sequence[Frame | None]:
        """What is at those places of a segment that is held: from the page cache at once, from the disk in a thread."""
        frames = segment.read_cached(places)
        return frames if frames is not None else await self._world.offload(Lane.DISK, segment.read, places)

    def _find(self, key: int) -> tuple[Segment, Place] | None:
        for segment in reversed(self._ring):
            place = segment.index.find(key)
            if place is not None:
                return segment, place
        return None

    def has(self, key: int) -> bool:
        """Whether there is an entry, which may be damaged."""
        return key in self._queue or key in self._writing or self._find(key) is not None

    def put(self, key: int, frame: Frame) -> None:
        """Have a frame written in the background, in place of what there is; dropped when the queue is full."""
        if self._lock_fd < 0 or self._queued_bytes + len(frame) > QUEUE_LIMIT_BYTES:
            return
        if key not in self._queue and key not in self._writing:
            self._queue[key] = frame
            self._queued_bytes += len(frame)
            self._wanted.set()

    async def discard(self, key: int) -> None:
        """Forget an entry that turned out to be damaged, with the segment that gave it."""
        queued = self._queue.pop(key, None)
        if queued is not None:
            self._queued_bytes -= len(queued)
            return
        if key in self._writing:
            self._discarded.add(key)
        holder = self._find(key)
        if holder is not None:
            log.warning("disk cache in %s: a damaged entry; the file that it is in is given up", self._folder)
            await self._drop(holder[0])

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what was put, until cancelled. Begins with deleting the folders of others that nobody uses any more."""
        task_status.started()
        await self._remove_unused()
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            self._writing, self._queue, self._queued_bytes = self._queue, {}, 0
            try:
                await self._write(list(self._writing.items()))
            finally:
                self._writing = {}
                self._discarded = set()

    async def _remove_unused(self) -> None:
        parent = self._folder.parent
        try:
            names = await self._world.offload(Lane.DISK, remove_unused, parent, self._world.now_ns())
        except OSError as error:
            log.warning("unused disk caches in %s cannot be looked for: %s", parent, error.strerror)
            return
        for name in names:
            log.info("disk cache %s had not been used for a month; deleted", parent / name)

    async def _write(self, frames: Sequence[tuple[int, Frame]]) -> None:
        try:
            while frames:
                if not self._ring or self._is_full(self._ring[-1]):
                    await self._turn_ring()
                newest = self._ring[-1]
                count = self._how_many_fit(newest, frames)
                newest.hold()
                try:
                    entries = await self._world.offload(Lane.DISK, newest.write, frames[:count])
                    newest.note(entries, self._discarded)
                finally:
                    newest.let_go()
                frames = frames[count:]
        except (OSError, MemoryError) as error:
            # A full or failing disk costs the cache, never a request.
            log.warning("disk cache in %s: write failed: %s; going on without it", self._folder, error)
            self.close()

    def _is_full(self, segment: Segment) -> bool:
        return segment.size_bytes >= self._segment_limit or len(segment.index) >= ENTRIES_MAX

    def _how_many_fit(self, segment: Segment, frames: Sequence[tuple[int, Frame]]) -> int:
        """At least one into a segment that is not full."""
        size_bytes, count = segment.size_bytes, 0
        for _, frame in frames[: ENTRIES_MAX - len(segment.index)]:
            if size_bytes >= self._segment_limit:
                break
            size_bytes += len(frame)
            count += 1
        return count

    async def _turn_ring(self) -> None:
        """Raises OSError."""
        disk = os.statvfs(self._folder)
        scarce = disk.f_bavail * FREE_SPACE_SHARE < disk.f_blocks
        while self._ring and (len(self._ring) >= self._segments_max or scarce):
            await self._drop(self._ring[0])
            self.evicted_files += 1
            scarce = False
        if self._ring:
            full = self._ring[-1]
            full.index = await self._world.offload(Lane.DISK, full.index.frozen)
        number, self._next_number = self._next_number, self._next_number + 1
        self._ring.append(await self._world.offload(Lane.DISK, Segment.create, self._folder, number))

    async def _drop(self, segment: Segment) -> None:
        if segment in self._ring:
            self._ring.remove(segment)
            segment.close()
            with trio.CancelScope(shield=True):  # else its files would stay, outside ring and budget
                await self._world.offload(Lane.DISK, segment.delete)

    def close(self) -> None:
        """Give the folder up. What is cached stays for the next owner."""
        for segment in self._ring:
            segment.close()
        self._ring = []
        self._close_lock()

    def statistics(self) -> dict[str, int | float | None]:
        """Bytes, files and counters since the start."""
        return {
            "bytes": sum(segment.size_bytes for segment in self._ring),
            "files": len(self._ring),
            "hits": self.hits,
            "misses": self.misses,
            "hit_ratio": ratio(self.hits, self.hits + self.misses),
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


def key_of_place(name: str, offset: int) -> int:
    """The key of a frame that is known by where it stands: an object and a byte of it."""
    return int.from_bytes(blake2b(f"{name}@{offset}".encode(), digest_size=8).digest(), "little")


def key_of_nonce(nonce: bytes) -> int:
    """The key of a frame that is known by its nonce alone, wherever it stands.

    Of nonces that are sealed together the first 16 bytes are the same, and random; the others count.
    """
    low, high = _NONCE.unpack(nonce)
    return int(low ^ high)
