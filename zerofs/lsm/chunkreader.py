"""Chunk data from wherever it is: memory, the disk cache, the store; few requests, every frame verified.

Frames of one object that lie close together are fetched with one ranged GET. A frame is accepted only if it carries
the nonce that its pointer names and opens; one that does not is fetched once more from the store itself, then it is
corruption, never zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from zerofs.errors import CorruptionError
from zerofs.lsm.chunk import Chunk
from zerofs.lsm.format.pointer import IN_SST, Pointer
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.origins import Origin
from zerofs.lsm.sealing.work import open_chunks
from zerofs.lsm.sst import disk_key
from zerofs.lsm.storage import Storage
from zerofs.transform.frame import Sealer, frame_nonce
from zerofs.units import CHUNK_SIZE, KIB
from zerofs.world import Lane

OFFLOAD_FROM_BYTES = 256 * KIB

FETCHES_MAX = 8
"""Ranged GETs of one read at one time."""

Source = Chunk | Pointer | None


@dataclass(slots=True, kw_only=True)
class _Span:
    """Neighbouring frames of one object: one ranged GET. `wanted`: (position in the request, pointer)."""

    name: str
    start: int
    stop: int
    wanted: list[tuple[int, Pointer]] = field(default_factory=list)

    def origin(self, storage: Storage) -> Origin:
        """Where the object lies."""
        return origin_of(storage, self.wanted[0][1])


def origin_of(storage: Storage, pointer: Pointer) -> Origin:
    """Where the object that a pointer leads into lies."""
    return storage.origins.of(pointer.epoch) if pointer.holder == IN_SST else storage.origins.own


def plan_spans(wanted: Sequence[tuple[int, Pointer]], gap_bytes: int, span_bytes: int) -> list[_Span]:
    """Which ranges to fetch: frames at most `gap_bytes` apart share one, up to `span_bytes`."""
    spans: list[_Span] = []
    for position, pointer in sorted(wanted, key=lambda item: (item[1].object_name, item[1].offset)):
        stop = pointer.offset + pointer.length
        last = spans[-1] if spans else None
        if (
            last is not None
            and last.name == pointer.object_name
            and pointer.offset - last.stop <= gap_bytes
            and stop - last.start <= span_bytes
        ):
            last.stop = max(last.stop, stop)
        else:
            last = _Span(name=pointer.object_name, start=pointer.offset, stop=stop)
            spans.append(last)
        last.wanted.append((position, pointer))
    return spans


class ChunkReader:
    """Reads the chunks that rows point to."""

    def __init__(self, storage: Storage, options: LsmOptions) -> None:
        self._storage = storage
        self._options = options

    def in_memory(self, source: Source) -> bytes | None:
        """The chunk, if it needs neither disk nor store nor decryption."""
        if type(source) is Chunk and source.data is not None:
            return source.data
        return self._storage.chunks.get(source.nonce) if source is not None else None

    async def read(self, sources: Sequence[Source]) -> list[bytes | None]:
        """The chunk of each source, None for None. No checkpoint when all are in memory.

        Raises CorruptionError naming the object, UnavailableError when the store does not answer.
        """
        found: list[bytes | None] = [self.in_memory(source) for source in sources]
        frames: dict[int, bytes | memoryview] = {}
        wanted: list[tuple[int, Pointer]] = []
        for position, source in enumerate(sources):
            if source is None or found[position] is not None:
                continue
            if type(source) is Chunk:
                if source.frame is not None:
                    frames[position] = source.frame
                    continue
                assert source.pointer is not None, "a chunk has data, a frame or a pointer"
                wanted.append((position, source.pointer))
            else:
                wanted.append((position, source))
        if wanted:
            await self._fetch(wanted, frames)
        if frames:
            await self._open_all(sources, dict(wanted), frames, found)
        return found

    async def _open_all(
        self,
        sources: Sequence[Source],
        pointers: dict[int, Pointer],
        frames: dict[int, bytes | memoryview],
        found: list[bytes | None],
    ) -> None:
        storage = self._storage
        positions = list(frames)
        sealed = [frames[position] for position in positions]
        try:
            texts = await self._open_frames([self._sealer(pointers.get(position)) for position in positions], sealed)
        except CorruptionError:
            texts = [
                await self._open_or_refetch(frame, pointers.get(position), sources[position])
                for position, frame in zip(positions, sealed, strict=True)
            ]
        for position, text in zip(positions, texts, strict=True):
            source = sources[position]
            assert source is not None, "only sources have frames"
            if len(text) != source.size:
                raise CorruptionError(f"a chunk has {len(text)} bytes, its pointer says {source.size}")
            found[position] = text
            storage.chunks.put(source.nonce, text, len(text))

    def _sealer(self, pointer: Pointer | None) -> Sealer:
        """What opens a frame that was fetched for a pointer; one without was in memory, so it is our own."""
        return self._storage.sealers.chunk if pointer is None else origin_of(self._storage, pointer).chunk

    async def _open_frames(self, sealers: Sequence[Sealer], frames: Sequence[bytes | memoryview]) -> list[bytes]:
        if sum(map(len, frames)) >= OFFLOAD_FROM_BYTES:
            return await self._storage.world.offload(Lane.CPU, open_chunks, sealers, frames)
        return open_chunks(sealers, frames)

    async def _open_or_refetch(self, frame: bytes | memoryview, pointer: Pointer | None, source: Source) -> bytes:
        """One frame at a time, after one of a batch did not open: find out which, and ask the store again.

        A frame without `pointer` came with the WAL object that its source names: that was read from the store itself.
        """
        sealer = self._sealer(pointer)
        try:
            return sealer.open(frame, b"", CHUNK_SIZE)
        except CorruptionError as error:
            if pointer is None:
                stored = source.pointer if type(source) is Chunk else source
                assert type(stored) is Pointer, "a frame in memory is in a stored object too"
                raise CorruptionError(f"{stored.object_name} at byte {stored.offset}: {error}") from error
            if self._storage.disk_cache is not None:
                await self._storage.disk_cache.discard(disk_key(pointer.object_name, pointer.offset))
            origin = origin_of(self._storage, pointer)
            again = await self._fetch_part(origin, pointer.object_name, pointer.offset, pointer.length)
            try:
                if frame_nonce(again) == pointer.nonce:
                    return sealer.open(again, b"", CHUNK_SIZE)
            except CorruptionError:
                pass
            where = f"{pointer.object_name} at byte {pointer.offset}{origin.where}"
            raise CorruptionError(f"{where}: {error}") from error

    async def _fetch(self, wanted: Sequence[tuple[int, Pointer]], frames: dict[int, bytes | memoryview]) -> None:
        disk = self._storage.disk_cache
        missing = list(wanted)
        if disk is not None:
            keys = [disk_key(pointer.object_name, pointer.offset) for _, pointer in wanted]
            missing = []
            for (position, pointer), frame in zip(wanted, await disk.get_many(keys), strict=True):
                if frame is not None and len(frame) == pointer.length and frame_nonce(frame) == pointer.nonce:
                    frames[position] = frame
                else:
                    missing.append((position, pointer))
        spans = plan_spans(missing, self._options.read_gap_bytes, self._options.read_span_bytes)
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

    async def _fetch_span(
        self, span: _Span, frames: dict[int, bytes | memoryview], limit: trio.CapacityLimiter | None = None
    ) -> None:
        storage = self._storage
        origin = span.origin(storage)
        if limit is None:
            body = await self._fetch_part(origin, span.name, span.start, span.stop - span.start)
        else:
            async with limit:
                body = await self._fetch_part(origin, span.name, span.start, span.stop - span.start)
        view = memoryview(body)
        for position, pointer in span.wanted:
            start = pointer.offset - span.start
            frame = view[start : start + pointer.length]
            if frame_nonce(frame) != pointer.nonce:
                where = f"{span.name} at byte {pointer.offset}{origin.where}"
                raise CorruptionError(f"{where}: not the frame that its pointer row names")
            frames[position] = frame
            if storage.disk_cache is not None:
                storage.disk_cache.put(disk_key(span.name, pointer.offset), bytes(frame))

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
