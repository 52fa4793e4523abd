"""Opened chunks from wherever they are: memory, or a frame that is fetched; every frame verified.

What one read is fetching another one waits for. A frame is accepted only if it opens; one that does not is fetched once
more from the store itself, then it is corruption, never zeros.
"""

from collections.abc import Sequence
from typing import NamedTuple

from zerofs.errors import CorruptionError
from zerofs.lsm.chunk import Chunk, Frame, Text
from zerofs.lsm.flights import Flights
from zerofs.lsm.format.pointer import Pointer
from zerofs.lsm.frames import FrameFetcher, Near, origin_of
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.sealing.work import open_chunks
from zerofs.lsm.storage import Storage
from zerofs.transform.frame import Sealer, frame_nonce
from zerofs.units import CHUNK_SIZE, KIB
from zerofs.world import Lane

OFFLOAD_FROM_BYTES = 256 * KIB

Source = Chunk | Pointer | None


class _Sealed(NamedTuple):
    """A chunk that is not in memory, as it was when it was asked for: what a chunk object holds may go meanwhile."""

    nonce: bytes
    size: int
    frame: Frame | None
    pointer: Pointer | None

    @property
    def place(self) -> Pointer:
        """Where its frame is stored."""
        assert self.pointer is not None, "a chunk has data, a frame or a pointer"
        return self.pointer


def _sealed(source: Chunk | Pointer) -> _Sealed:
    if type(source) is Chunk:
        return _Sealed(source.nonce, source.size, source.frame, source.pointer)
    assert type(source) is Pointer, "sources are chunks and pointers"
    return _Sealed(source.nonce, source.size, None, source)


class ChunkReader:
    """Reads the chunks that rows point to."""

    def __init__(self, storage: Storage, options: LsmOptions) -> None:
        self._storage = storage
        self._fetcher = FrameFetcher(storage, options)
        self._flights: Flights[bytes] = Flights()
        """By nonce."""
        self.misses = 0
        """Reads that found something missing in memory, unasked ones too."""

    async def read(
        self, sources: Sequence[Source], near: Near | None = None, *, unasked: bool = False
    ) -> list[Text | None]:
        """The chunk of each source, None for None. No checkpoint when all are in memory.

        `near` finds the frames beside one, by its position in `sources`. `unasked`: nobody wants these yet. Raises
        CorruptionError naming the object, UnavailableError when the store does not answer.
        """
        found = self._in_memory(sources, unasked)
        missing = {
            position: _sealed(source)
            for position, (source, text) in enumerate(zip(sources, found, strict=True))
            if text is None and source is not None
        }
        if missing:
            self.misses += 1
        while missing:
            flights = {position: self._flights.of(it.nonce) for position, it in missing.items()}
            theirs = {position: flight for position, flight in flights.items() if flight is not None}
            mine = {position: it for position, it in missing.items() if position not in theirs}
            if mine:
                for position, text in (await self._read_missing(mine, near, unasked)).items():
                    found[position] = text
            for position, flight in theirs.items():
                await flight.ended()
                found[position] = self._storage.chunks.get(missing[position].nonce)
                if found[position] is None:
                    flight.raise_trouble()
            # What the others did not get, or memory has lost again.
            missing = {position: missing[position] for position in theirs if found[position] is None}
        return found

    def _in_memory(self, sources: Sequence[Source], unasked: bool) -> list[Text | None]:
        """What of the chunks needs neither disk nor store nor decryption; what is unasked leaves no trace."""
        kept = self._storage.chunks.peek if unasked else self._storage.chunks.get
        return [
            None if source is None else (source.data if type(source) is Chunk else None) or kept(source.nonce)
            for source in sources
        ]

    async def _read_missing(self, wanted: dict[int, _Sealed], near: Near | None, unasked: bool) -> dict[int, Text]:
        """Fetch and open the chunks; they are in memory then. What needs no store does not wait for what does."""
        with self._flights.fetching((it.nonce for it in wanted.values()), unasked=unasked):
            frames = {position: it.frame for position, it in wanted.items() if it.frame is not None}
            elsewhere = [(position, it.place) for position, it in wanted.items() if it.frame is None]
            away = await self._fetcher.look(elsewhere, frames) if elsewhere else []
            found = await self._open_all(wanted, frames, unasked)
        if away:
            rest = {position: wanted[position] for position, _ in away}
            with self._flights.fetching((it.nonce for it in rest.values()), unasked=unasked):
                found |= await self._open_all(rest, await self._fetcher.fetch(away, near), unasked)
        return found

    async def _open_all(self, wanted: dict[int, _Sealed], frames: dict[int, Frame], unasked: bool) -> dict[int, Text]:
        positions = list(frames)
        sealed = [frames[position] for position in positions]
        try:
            texts = await self._open_frames([self._sealer(wanted[position]) for position in positions], sealed)
        except CorruptionError:
            texts = [
                await self._open_or_refetch(frame, wanted[position])
                for position, frame in zip(positions, sealed, strict=True)
            ]
        for position, text in zip(positions, texts, strict=True):
            it = wanted[position]
            if len(text) != it.size:
                raise CorruptionError(f"a chunk has {len(text)} bytes, its pointer says {it.size}")
            self._storage.chunks.put(it.nonce, text, len(text), unasked=unasked)
        return dict(zip(positions, texts, strict=True))

    def _sealer(self, wanted: _Sealed) -> Sealer:
        """What opens a frame that was fetched; one that was in memory is our own."""
        return self._storage.sealers.chunk if wanted.frame is not None else origin_of(self._storage, wanted.place).chunk

    async def _open_frames(self, sealers: Sequence[Sealer], frames: Sequence[Frame]) -> list[Text]:
        if sum(map(len, frames)) >= OFFLOAD_FROM_BYTES:
            return await self._storage.world.offload(Lane.CPU, open_chunks, sealers, frames)
        return open_chunks(sealers, frames)

    async def _open_or_refetch(self, frame: Frame, wanted: _Sealed) -> Text:
        """One frame at a time, after one of a batch did not open: find out which, and ask the store again.

        A frame that was in memory came with the WAL object that its pointer names: that was read from the store itself.
        """
        sealer = self._sealer(wanted)
        try:
            return sealer.open(frame, b"", CHUNK_SIZE)
        except CorruptionError as error:
            if wanted.pointer is None:
                raise CorruptionError(f"in memory, before it was stored: {error}") from error
            place = wanted.place
            if wanted.frame is not None:
                raise CorruptionError(f"{place.object_name} at byte {place.offset}: {error}") from error
            again = await self._fetcher.fetch_again(place)
            try:
                if frame_nonce(again) == wanted.nonce:
                    return sealer.open(again, b"", CHUNK_SIZE)
            except CorruptionError:
                pass
            where = f"{place.object_name} at byte {place.offset}{origin_of(self._storage, place).where}"
            raise CorruptionError(f"{where}: {error}") from error
