"""Opened chunks from wherever they are: memory, or a frame that is fetched; every frame verified.

What one read is fetching another one waits for. A frame is accepted only if it opens; one that does not is fetched once
more from the store itself, then it is corruption, never zeros.
"""

from collections.abc import Sequence

import trio

from zerofs.errors import CorruptionError
from zerofs.lsm.chunk import Chunk
from zerofs.lsm.format.pointer import Pointer
from zerofs.lsm.frames import Frame, FrameFetcher, Near, Wanted, origin_of
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.sealing.work import open_chunks
from zerofs.lsm.storage import Storage
from zerofs.transform.frame import Sealer, frame_nonce
from zerofs.units import CHUNK_SIZE, KIB
from zerofs.world import Lane

OFFLOAD_FROM_BYTES = 256 * KIB

Source = Chunk | Pointer | None


class ChunkReader:
    """Reads the chunks that rows point to."""

    def __init__(self, storage: Storage, options: LsmOptions) -> None:
        self._storage = storage
        self._fetcher = FrameFetcher(storage, options)
        self._coming: dict[bytes, trio.Event] = {}
        """By nonce, what somebody is fetching now."""
        self.misses = 0
        """Reads that found something missing in memory, unasked ones too."""

    def in_memory(self, source: Source) -> bytes | None:
        """The chunk, if it needs neither disk nor store nor decryption."""
        if type(source) is Chunk and source.data is not None:
            return source.data
        return self._storage.chunks.get(source.nonce) if source is not None else None

    async def read(
        self, sources: Sequence[Source], near: Near | None = None, *, unasked: bool = False
    ) -> list[bytes | None]:
        """The chunk of each source, None for None. No checkpoint when all are in memory.

        `near` finds the frames beside one, by its position in `sources`. `unasked`: nobody wants these yet. Raises
        CorruptionError naming the object, UnavailableError when the store does not answer.
        """
        look = self._peek if unasked else self.in_memory
        found: dict[int, bytes | None] = {position: look(source) for position, source in enumerate(sources)}
        missing = {
            position: source
            for position, source in enumerate(sources)
            if source is not None and found[position] is None
        }
        if missing:
            self.misses += 1
        while missing:
            theirs = {position: self._coming[it.nonce] for position, it in missing.items() if it.nonce in self._coming}
            mine = {position: source for position, source in missing.items() if position not in theirs}
            if mine:
                found |= await self._read_missing(mine, near, unasked)
            for position, event in theirs.items():
                await event.wait()
                found[position] = look(sources[position])
            # What the others failed to get, or memory has lost again.
            missing = {position: missing[position] for position in theirs if found[position] is None}
        return list(found.values())

    def _peek(self, source: Source) -> bytes | None:
        """As `in_memory`, without a trace."""
        if type(source) is Chunk and source.data is not None:
            return source.data
        return self._storage.chunks.peek(source.nonce) if source is not None else None

    async def _read_missing(
        self, sources: dict[int, Chunk | Pointer], near: Near | None, unasked: bool
    ) -> dict[int, bytes]:
        """Fetch and open the chunks of these sources; they are in memory then."""
        done = trio.Event()
        self._coming.update((source.nonce, done) for source in sources.values())
        frames: dict[int, Frame] = {}
        wanted: list[Wanted] = []
        for position, source in sources.items():
            if type(source) is Chunk and source.frame is not None:
                frames[position] = source.frame
                continue
            pointer = source.pointer if type(source) is Chunk else source
            assert type(pointer) is Pointer, "a chunk has data, a frame or a pointer"
            wanted.append((position, pointer))
        try:
            if wanted:
                frames |= await self._fetcher.fetch(wanted, near)
            return await self._open_all(sources, dict(wanted), frames, unasked)
        finally:
            for source in sources.values():
                self._coming.pop(source.nonce, None)
            done.set()

    async def _open_all(
        self,
        sources: dict[int, Chunk | Pointer],
        pointers: dict[int, Pointer],
        frames: dict[int, Frame],
        unasked: bool,
    ) -> dict[int, bytes]:
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
            if len(text) != source.size:
                raise CorruptionError(f"a chunk has {len(text)} bytes, its pointer says {source.size}")
            storage.chunks.put(source.nonce, text, len(text), unasked=unasked)
        return dict(zip(positions, texts, strict=True))

    def _sealer(self, pointer: Pointer | None) -> Sealer:
        """What opens a frame that was fetched for a pointer; one without was in memory, so it is our own."""
        return self._storage.sealers.chunk if pointer is None else origin_of(self._storage, pointer).chunk

    async def _open_frames(self, sealers: Sequence[Sealer], frames: Sequence[Frame]) -> list[bytes]:
        if sum(map(len, frames)) >= OFFLOAD_FROM_BYTES:
            return await self._storage.world.offload(Lane.CPU, open_chunks, sealers, frames)
        return open_chunks(sealers, frames)

    async def _open_or_refetch(self, frame: Frame, pointer: Pointer | None, source: Source) -> bytes:
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
            again = await self._fetcher.fetch_again(pointer)
            try:
                if frame_nonce(again) == pointer.nonce:
                    return sealer.open(again, b"", CHUNK_SIZE)
            except CorruptionError:
                pass
            where = f"{pointer.object_name} at byte {pointer.offset}{origin_of(self._storage, pointer).where}"
            raise CorruptionError(f"{where}: {error}") from error
