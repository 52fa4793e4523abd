"""Sealed sections of meta SSTs from wherever they are: with a neighbour, the disk cache, the store (decision 0019).

Whoever reads the blocks of an SST one behind the other gets more and more of them with each request. What came along
stays sealed, in a small cache of its own, until somebody wants it.
"""

import contextlib
from collections.abc import Iterator, Sequence

import trio

from zerofs.cache.disk import key_of_place
from zerofs.lsm.chunk import Frame
from zerofs.lsm.format.manifest import SstInfo
from zerofs.lsm.format.names import SstId
from zerofs.lsm.origins import Origin
from zerofs.lsm.storage import Storage
from zerofs.units import KIB

SPAN_BYTES = 512 * KIB
"""The longest range of blocks that one request fetches, but for a block that is longer itself."""

_STREAMS = 4
"""So many readers may have blocks in the cache that came along."""

_Place = tuple[SstId, int]
"""An SST, and the number of one of its blocks."""


class BlockFetcher:
    """Fetches the sections that an index or a manifest names."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._along = storage.sealed_blocks
        self._span_bytes = min(SPAN_BYTES, self._along.limit_bytes // _STREAMS)
        self._next: dict[SstId, range] = {}
        """Of each SST that was read: the blocks that are fetched if the first of them is missed next."""
        self._coming: dict[_Place, trio.Event] = {}

    async def others(self, info: SstInfo, number: int) -> bool:
        """Wait until another task has fetched a block. False at once when none is fetching it."""
        coming = self._coming.get((info.sst, number))
        if coming is None:
            return False
        await coming.wait()
        return True

    async def block(self, info: SstInfo, offsets: Sequence[int], number: int) -> Frame:
        """A block; `offsets` of all blocks, and of the end of the last one, as the index says.

        Raises CorruptionError when the object is shorter, MissingObjectError, UnavailableError.
        """
        place = (info.sst, number)
        frame = self._along.get(place)
        if frame is not None:
            self._along.discard(place)  # opened, it is kept elsewhere
            self._storage.metrics.add("neighbours_used")
            return frame
        start = offsets[number]
        with self._fetching(info.sst, range(number, number + 1)):
            frame = await self._on_disk(info, start, offsets[number + 1] - start)
            if frame is not None:
                return frame
            wanted = self._wanted(info, offsets, number)
            with self._fetching(info.sst, wanted[1:]):
                return await self._fetch(info, offsets, wanted)

    @contextlib.contextmanager
    def _fetching(self, sst: SstId, numbers: range) -> Iterator[None]:
        """Within the block others wait for these blocks instead of fetching them, too."""
        done = trio.Event()
        self._coming.update(((sst, number), done) for number in numbers)
        try:
            yield
        finally:
            for number in numbers:
                if self._coming.get((sst, number)) is done:
                    del self._coming[sst, number]
            done.set()

    def _wanted(self, info: SstInfo, offsets: Sequence[int], number: int) -> range:
        """The block that was missed, and those that come with it: none, twice as many as last time, as many as may."""
        guess = self._next.get(info.sst)
        count = len(guess) if guess is not None and guess.start == number else 1
        stop = min(number + count, len(offsets) - 1)
        while stop > number + 1 and (
            offsets[stop] - offsets[number] > self._span_bytes or (info.sst, stop - 1) in self._coming
        ):
            stop -= 1
        self._next[info.sst] = range(stop, stop + 2 * (stop - number))
        return range(number, stop)

    async def _fetch(self, info: SstInfo, offsets: Sequence[int], wanted: range) -> Frame:
        """The first of the blocks; the others are kept."""
        start = offsets[wanted.start]
        body = await self._origin(info).get_part(info.name, start, offsets[wanted.stop] - start)
        self._storage.metrics.add("block_fetches")
        self._storage.metrics.add("block_fetch_bytes", len(body))
        disk = self._storage.disk_cache_for(self._origin(info))
        frames = [body[offsets[number] - start : offsets[number + 1] - start] for number in wanted]
        for number, frame in zip(wanted, frames, strict=True):
            if number != wanted.start:
                self._along.put((info.sst, number), frame, len(frame))
            if disk is not None:
                disk.put(key_of_place(info.name, offsets[number]), frame)
        return frames[0]

    async def section(self, info: SstInfo, offset: int, length: int) -> Frame:
        """Any part of an SST that was sealed as one. Errors as of `block`."""
        frame = await self._on_disk(info, offset, length)
        if frame is None:
            frame = await self._origin(info).get_part(info.name, offset, length)
            self._storage.metrics.add("block_fetches")
            self._storage.metrics.add("block_fetch_bytes", length)
            disk = self._storage.disk_cache_for(self._origin(info))
            if disk is not None:
                disk.put(key_of_place(info.name, offset), frame)
        return frame

    async def again(self, info: SstInfo, offset: int, length: int) -> Frame:
        """A section from the store itself, after a copy of it did not open."""
        disk = self._storage.disk_cache_for(self._origin(info))
        if disk is not None:
            await disk.discard(key_of_place(info.name, offset))
        return await self._origin(info).get_part(info.name, offset, length)

    async def _on_disk(self, info: SstInfo, offset: int, length: int) -> Frame | None:
        disk = self._storage.disk_cache_for(self._origin(info))
        if disk is None:
            return None
        (frame,) = await disk.get_many([key_of_place(info.name, offset)])
        return frame if frame is not None and len(frame) == length else None

    def _origin(self, info: SstInfo) -> Origin:
        return self._storage.origins.of(info.sst[0])
