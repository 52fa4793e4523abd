"""The rows of one run in a merge: read with few, large requests, and in no cache.

What is merged is read once and then dead: in the caches it would only push out what readers use. A block is verified
exactly as `SstReader` does it.
"""

from bisect import bisect_right
from collections.abc import Sequence

from zerofs.errors import CorruptionError
from zerofs.lsm.compaction.hiding import row_key
from zerofs.lsm.format.manifest import SstInfo
from zerofs.lsm.format.rows import Row, decode_rows
from zerofs.lsm.format.sst import MAX_BLOCK_SIZE, SstIndex, place
from zerofs.lsm.sst import SstReader
from zerofs.lsm.storage import Storage
from zerofs.telemetry.metrics import Metrics
from zerofs.units import KIB, MIB

READ_AHEAD_BYTES = 32 * MIB
"""Sealed blocks that all sources of a merge hold together."""

FETCH_BYTES = (256 * KIB, 4 * MIB)
"""Least and most that one request fetches, at least one block."""

PAGE_BYTES = 256 * KIB
"""Row bytes that a source decodes at a time, at least one block."""

INDEX_CACHE_BYTES = 4 * MIB


def uncached_reader(storage: Storage, tokens: dict[int, bytes]) -> SstReader:
    """A reader that leaves the caches of `storage` alone; it keeps a few indexes of its own."""
    private = Storage(
        store=storage.store,
        world=storage.world,
        sealers=storage.sealers,
        volume_id=storage.volume_id,
        metrics=Metrics(),
        cache_memory_bytes=20 * INDEX_CACHE_BYTES,  # of which indexes get a twentieth; the rest stays unused
        origins=storage.origins,
    )
    return SstReader(private, tokens)


class Reading:
    """What all sources of one merge have in common."""

    __slots__ = ("fetch_bytes", "reader", "storage", "tokens")

    def __init__(self, storage: Storage, tokens: dict[int, bytes], source_count: int) -> None:
        self.storage = storage
        self.tokens = tokens
        self.reader = uncached_reader(storage, tokens)
        least, most = FETCH_BYTES
        self.fetch_bytes = max(least, min(most, READ_AHEAD_BYTES // max(1, source_count)))


class Source:
    """SSTs of one run, in key order, as a stream of rows. Holds one fetched span and one page of rows."""

    __slots__ = ("_block", "_count", "_fetched", "_index", "_left", "_reading", "_span", "_sst", "rows")

    def __init__(self, reading: Reading, ssts: Sequence[SstInfo]) -> None:
        self.rows: list[Row] = []
        """Loaded and not taken yet, in key order."""
        self._reading = reading
        self._left = list(reversed(ssts))
        self._sst: SstInfo | None = None
        self._index: SstIndex | None = None
        self._block = 0
        """The next block to decode."""
        self._count = 0
        """Rows of this SST so far."""
        self._span = range(0)
        """The blocks in `_fetched`."""
        self._fetched = memoryview(b"")

    async def load(self) -> None:
        """Refill `rows`, which are empty. They stay empty only at the end of the run.

        Raises CorruptionError naming the object, UnavailableError.
        """
        size = 0
        while size < PAGE_BYTES:
            if self._sst is None or self._index is None:
                if not self._left:
                    return
                self._sst = self._left.pop()
                self._index = await self._reading.reader.index(self._sst)
                self._block, self._count, self._span = 0, 0, range(0)
            if self._block == len(self._index.last_keys):
                # The object is deleted after this: whatever it does not give now is gone.
                if self._count != self._sst.row_count:
                    raise CorruptionError(
                        f"{self._sst.name}: {self._count} rows, the manifest says {self._sst.row_count}"
                    )
                self._sst = None
                continue
            rows, row_bytes = await self._decode(self._sst, self._index)
            self.rows.extend(rows)
            self._block += 1
            self._count += len(rows)
            size += row_bytes

    def take(self, bound: bytes) -> list[Row]:
        """Remove and return the rows up to `bound`, which is included."""
        rows = self.rows
        if not rows or rows[-1][0] <= bound:
            self.rows = []
            return rows
        count = bisect_right(rows, bound, key=row_key)
        self.rows = rows[count:]
        return rows[:count]

    async def _decode(self, sst: SstInfo, index: SstIndex) -> tuple[Sequence[Row], int]:
        """The rows of the next block, and the bytes that they took."""
        reading, number = self._reading, self._block
        if number not in self._span:
            await self._fetch(sst, index)
        offset = index.offsets[number]
        begin = offset - index.offsets[self._span.start]
        frame = self._fetched[begin : begin + index.offsets[number + 1] - offset]
        try:
            where = place(sst.name, offset, reading.tokens[sst.sst[0]])
            text = reading.storage.origins.of(sst.sst[0]).block.open(frame, where, MAX_BLOCK_SIZE)
            return decode_rows(text, f"{sst.name} at byte {offset}"), len(text)
        except CorruptionError:
            # Perhaps damaged on the way: the reader asks for this block alone, and names it when it is no better.
            return await reading.reader.block(sst, index, number), len(frame)

    async def _fetch(self, sst: SstInfo, index: SstIndex) -> None:
        """Fetch as many blocks as one request may, from the next one on."""
        start = index.offsets[self._block]
        stop = bisect_right(index.offsets, start + self._reading.fetch_bytes) - 1
        self._span = range(self._block, max(self._block + 1, stop))
        length = index.offsets[self._span.stop] - start
        origin = self._reading.storage.origins.of(sst.sst[0])
        self._fetched = memoryview(await origin.get_part(sst.name, start, length))
