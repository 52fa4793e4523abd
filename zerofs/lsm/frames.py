"""Sealed frames from wherever they are: with a neighbour, the disk cache, the store; in few requests (decision 0019).

Frames of one object that lie close together come with one ranged GET. What comes carries the nonce that its pointer
names, or is refused; whether it opens is for the caller to see.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import trio

from zerofs.cache.disk import key_of_nonce
from zerofs.cache.memory import MemoryCache
from zerofs.errors import CorruptionError
from zerofs.lsm.chunk import Frame
from zerofs.lsm.format.pointer import IN_SST, Pointer
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.origins import Origin
from zerofs.lsm.storage import Storage
from zerofs.transform.frame import frame_nonce
from zerofs.units import CHUNK_SIZE, KIB

FETCHES_MAX = 8
"""Ranged GETs of one read at one time."""

WINDOW_BYTES = (64 * KIB, 512 * KIB)
"""How far on each side neighbours are looked for, at least and at most."""

PATIENCE = 8
"""So many fetches in a row whose neighbours nobody wanted make the window smaller."""

Wanted = tuple[int, Pointer]
"""Position in the request, and where the frame is."""

Near = Callable[[int, int], Awaitable[list[Pointer]]]
"""Position in the request and window → pointers to frames beside that one, as far as is known. A hint."""


@dataclass(slots=True, kw_only=True)
class Span:
    """Neighbouring frames of one object: one ranged GET."""

    start: int
    stop: int
    wanted: list[Wanted]

    @property
    def name(self) -> str:
        """The object."""
        return self.wanted[0][1].object_name

    def origin(self, storage: Storage) -> Origin:
        """Where the object lies."""
        return origin_of(storage, self.wanted[0][1])


def origin_of(storage: Storage, pointer: Pointer) -> Origin:
    """Where the object that a pointer leads into lies."""
    return storage.origins.of(pointer.epoch) if pointer.holder == IN_SST else storage.origins.own


def plan_spans(wanted: Sequence[Wanted], gap_bytes: int, span_bytes: int) -> list[Span]:
    """Which ranges to fetch: frames at most `gap_bytes` apart share one, up to `span_bytes`."""
    spans: list[Span] = []
    holder: tuple[object, ...] = ()
    for item in sorted(wanted, key=itemgetter(1)):  # a pointer begins with its object, then the offset
        pointer = item[1]
        offset = pointer.offset
        stop = offset + pointer.length
        last = spans[-1] if holder == pointer[:3] else None
        if last is not None and offset - last.stop <= gap_bytes and stop - last.start <= span_bytes:
            last.stop = max(last.stop, stop)
            last.wanted.append(item)
        else:
            holder = pointer[:3]
            spans.append(Span(start=offset, stop=stop, wanted=[item]))
    return spans


class FrameFetcher:
    """Fetches the frames that pointers lead to."""

    def __init__(self, storage: Storage, options: LsmOptions) -> None:
        self._storage = storage
        self._options = options
        self._neighbours: MemoryCache[bytes, bytes] = MemoryCache(options.cache_memory_bytes // 20)
        """Sealed frames that came with others, by nonce, until somebody wants them."""
        self._window_bytes = WINDOW_BYTES[0]
        self._unused = 0

    async def look(self, wanted: Sequence[Wanted], frames: dict[int, Frame]) -> list[Wanted]:
        """Take what came with others, and what the disk cache has. The rest."""
        return await self._look_on_disk(self._look_at_neighbours(wanted, frames), frames)

    async def fetch(self, wanted: Sequence[Wanted], near: Near | None = None) -> dict[int, Frame]:
        """The frame of each pointer, by position, from the store. With `near`, small frames bring their neighbours.

        Raises CorruptionError naming the object, MissingObjectError, UnavailableError.
        """
        frames: dict[int, Frame] = {}
        extra = await self._neighbours_of(wanted, near) if near is not None else []
        spans = plan_spans([*wanted, *extra], self._options.read_gap_bytes, self._options.read_span_bytes)
        spans = [span for span in spans if any(position >= 0 for position, _ in span.wanted)]
        if len(spans) == 1:
            await self._fetch_span(spans[0], frames)
        elif spans:
            limit = trio.CapacityLimiter(FETCHES_MAX)
            try:
                async with trio.open_nursery() as nursery:
                    for span in spans:
                        nursery.start_soon(self._fetch_span, span, frames, limit)
            except BaseExceptionGroup as group:
                raise _first(group) from group
        return frames

    async def fetch_again(self, pointer: Pointer) -> bytes:
        """The frame from the store itself, after a copy of it did not open."""
        origin = origin_of(self._storage, pointer)
        disk = self._storage.disk_cache_for(origin)
        if disk is not None:
            await disk.discard(key_of_nonce(pointer.nonce))
        return await self._fetch_part(origin, pointer.object_name, pointer.offset, pointer.length)

    # --- what is near

    def _look_at_neighbours(self, wanted: Sequence[Wanted], frames: dict[int, Frame]) -> list[Wanted]:
        """Take what came with others. The rest."""
        missing: list[Wanted] = []
        for position, pointer in wanted:
            frame = self._neighbours.get(pointer.nonce)
            if frame is None:
                missing.append((position, pointer))
                continue
            frames[position] = frame
            self._neighbours.discard(pointer.nonce)  # opened, it is kept elsewhere
            self._unused = 0
            self._window_bytes = min(2 * self._window_bytes, WINDOW_BYTES[1])
            self._storage.metrics.add("neighbours_used")
        return missing

    async def _neighbours_of(self, missing: Sequence[Wanted], near: Near) -> list[Wanted]:
        """What to fetch together with a small frame, marked by a position below zero."""
        position, centre = missing[0]
        if len(missing) != 1 or centre.size == CHUNK_SIZE or centre.holder != IN_SST:
            return []
        self._unused += 1
        if self._unused % PATIENCE == 0:
            self._window_bytes = max(self._window_bytes // 2, WINDOW_BYTES[0])
        held, opened = self._neighbours, self._storage.chunks
        return [
            (-1, pointer)
            for pointer in await near(position, self._window_bytes)
            # The rows may be older than what is wanted, and lead into an object that is not there any more.
            if pointer[:3] == centre[:3]
            and pointer.nonce != centre.nonce
            and held.peek(pointer.nonce) is None
            and opened.peek(pointer.nonce) is None
        ]

    # --- where they are

    async def _look_on_disk(self, wanted: Sequence[Wanted], frames: dict[int, Frame]) -> list[Wanted]:
        """Take what the disk cache has. The rest."""
        storage = self._storage
        disk = storage.disk_cache
        if disk is None or not wanted:
            return list(wanted)
        missing: list[Wanted] = []
        kept: list[Wanted] = []
        for item in wanted:
            is_kept = storage.disk_cache_for(origin_of(storage, item[1])) is not None
            (kept if is_kept else missing).append(item)
        if not kept:
            return missing
        found = await disk.get_many([key_of_nonce(pointer.nonce) for _, pointer in kept])
        for (position, pointer), frame in zip(kept, found, strict=True):
            if frame is not None and len(frame) == pointer.length and frame_nonce(frame) == pointer.nonce:
                frames[position] = frame
            else:
                missing.append((position, pointer))
        return missing

    async def _fetch_span(
        self, span: Span, frames: dict[int, Frame], limit: trio.CapacityLimiter | None = None
    ) -> None:
        storage = self._storage
        origin, name = span.origin(storage), span.name
        if limit is None:
            body = await self._fetch_part(origin, name, span.start, span.stop - span.start)
        else:
            async with limit:
                body = await self._fetch_part(origin, name, span.start, span.stop - span.start)
        view = memoryview(body)
        # A view keeps the whole body while it waits to be written.
        is_dense = 2 * sum(pointer.length for _, pointer in span.wanted) >= len(body)
        disk = storage.disk_cache_for(origin)
        for position, pointer in span.wanted:
            start = pointer.offset - span.start
            frame = view[start : start + pointer.length]
            if frame_nonce(frame) == pointer.nonce:
                if position >= 0:
                    frames[position] = frame
                else:
                    self._neighbours.put(pointer.nonce, bytes(frame), pointer.length)
            elif position >= 0:
                where = f"{name} at byte {pointer.offset}{origin.where}"
                raise CorruptionError(f"{where}: not the frame that its pointer row names")
            else:
                continue  # whoever wants it will be told
            if disk is None:
                continue
            key = key_of_nonce(pointer.nonce)
            if position >= 0 or not disk.has(key):
                disk.put(key, frame if is_dense else bytes(frame))

    async def _fetch_part(self, origin: Origin, name: str, start: int, length: int) -> bytes:
        body = await origin.get_part(name, start, length)
        self._storage.metrics.add("chunk_fetches")
        self._storage.metrics.add("chunk_fetch_bytes", length)
        return body


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of the errors that parallel fetches ended with: each of them is reason enough."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
