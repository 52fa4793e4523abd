"""Sealed sections of meta SSTs from wherever they are: with a neighbour, the disk cache, the store (decision 0019).

Whoever reads the blocks of an SST one behind the other gets more and more of them with each request. What came along
stays sealed, in a small cache of its own, until somebody wants it.
"""

from collections.abc import Sequence

from zerofs.cache.disk import key_of_place
from zerofs.lsm.chunk import Frame
from zerofs.lsm.flights import Flights
from zerofs.lsm.format.manifest import SstInfo
from zerofs.lsm.format.names import SstId
from zerofs.lsm.origins import Origin
from zerofs.lsm.storage import Storage
from zerofs.units import KIB

SPAN_BYTES = 512 * KIB
"""The longest range of blocks that one request fetches, but for a block that is longer itself."""

_STREAMS = 4
"""So many readers may have blocks in the cache that came along."""

STREAMS_MAX = 1024
"""SSTs of which it is known how they are read."""

_Place = tuple[SstId, int]
"""An SST, and the number of one of its blocks."""


class BlockFetcher:
    """Fetches the sections that an index or a manifest names. One serves all versions of a volume's trees."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._along = storage.sealed_blocks
        self._span_bytes = min(SPAN_BYTES, self._along.limit_bytes // _STREAMS)
        self._next: dict[SstId, range] = {}
        """Of each SST that was read: the blocks that are fetched if the first of them is missed next."""
        self._flights: Flights[_Place] = Flights()

    async def others(self, info: SstInfo, number: int) -> bool:
        """Wait until another task has fetched a block. False at once when none is fetching it.

        Raises UnavailableError when the store did not answer that one.
        """
        flight = self._flights.of((info.sst, number))
        if flight is None:
            return False
        await flight.ended()
        flight.raise_trouble()
        return True

    async def block(self, info: SstInfo, offsets: Sequence[int], number: int) -> Frame:
        """A block; `offsets` of all blocks, and of the end of the last one, as the index says.

        Raises CorruptionError when the object is shorter, MissingObjectError, UnavailableError.
        """
        place = (info.sst, number)
        frame = self._along.get(place)
        if frame is not None:
            self._along.discard(place)  # opened, it is kept elsewhere
            self._storage.metrics.add("blocks_along_used")
            return frame
        start = offsets[number]
        with self._flights.fetching([place]):
            frame = await self._on_disk(info, start, offsets[number + 1] - start)
            if frame is not None:
                return frame
            wanted = self._wanted(info, offsets, number)
            with self._flights.fetching([(info.sst, other) for other in wanted[1:]]):
                return await self._fetch(info, offsets, wanted)

    def _wanted(self, info: SstInfo, offsets: Sequence[int], number: int) -> range:
        """The block that was missed, and those that come with it: none, twice as many as last time, as many as may."""
        guess = self._next.get(info.sst)
        most = len(guess) if guess is not None and guess.start == number else 1
        stop = number + 1
        while (
            stop < min(number + most, len(offsets) - 1)
            and offsets[stop + 1] - offsets[number] <= self._span_bytes
            and not self._is_known((info.sst, stop))
        ):
            stop += 1
        if len(self._next) >= STREAMS_MAX:
            self._next.clear()
        self._next[info.sst] = range(stop, stop + 2 * (stop - number))
        return range(number, stop)

    def _is_known(self, place: _Place) -> bool:
        storage = self._storage
        return bool(
            self._flights.of(place) or storage.blocks.peek(place) is not None or self._along.peek(place) is not None
        )

    async def _fetch(self, info: SstInfo, offsets: Sequence[int], wanted: range) -> Frame:
        """The first of the blocks; the others are kept."""
        start = offsets[wanted.start]
        body = await self._from_store(info, start, offsets[wanted.stop] - start)
        disk = self._storage.disk_cache_for(self.origin(info))
        frames = [body[offsets[number] - start : offsets[number + 1] - start] for number in wanted]
        for number, frame in zip(wanted, frames, strict=True):
            if number != wanted.start:
                self._along.put((info.sst, number), frame, len(frame), unasked=True)
            key = key_of_place(info.name, offsets[number])
            if disk is not None and (number == wanted.start or not disk.has(key)):
                disk.put(key, frame)
        return frames[0]

    async def section(self, info: SstInfo, offset: int, length: int) -> Frame:
        """Any part of an SST that was sealed as one. Errors as of `block`."""
        frame = await self._on_disk(info, offset, length)
        if frame is None:
            frame = await self._from_store(info, offset, length)
            disk = self._storage.disk_cache_for(self.origin(info))
            if disk is not None:
                disk.put(key_of_place(info.name, offset), frame)
        return frame

    async def again(self, info: SstInfo, offset: int, length: int) -> Frame:
        """A section from the store itself, after a copy of it did not open."""
        disk = self._storage.disk_cache_for(self.origin(info))
        if disk is not None:
            await disk.discard(key_of_place(info.name, offset))
        return await self._from_store(info, offset, length)

    async def _from_store(self, info: SstInfo, offset: int, length: int) -> bytes:
        body = await self.origin(info).get_part(info.name, offset, length)
        self._storage.metrics.add("block_fetches")
        self._storage.metrics.add("block_fetch_bytes", length)
        return body

    async def _on_disk(self, info: SstInfo, offset: int, length: int) -> Frame | None:
        disk = self._storage.disk_cache_for(self.origin(info))
        if disk is None:
            return None
        (frame,) = await disk.get_many([key_of_place(info.name, offset)])
        return frame if frame is not None and len(frame) == length else None

    def origin(self, info: SstInfo) -> Origin:
        """Where an SST lies."""
        return self._storage.origins.of(info.sst[0])
