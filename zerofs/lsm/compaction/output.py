"""The run that a compaction writes: rows cut into SSTs of the target size, moved SSTs between them."""

from bisect import bisect_left, bisect_right
from collections import deque
from itertools import accumulate

from zerofs.lsm.compaction.hiding import row_key
from zerofs.lsm.compaction.job import CompactionJob
from zerofs.lsm.compaction.plan import Plan
from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.lsm.format.rows import Row
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sst import SstWriter
from zerofs.lsm.storage import Storage

NO_RANGES = KeyRanges()


class Output:
    """Takes rows and moved SSTs in key order. Holds what `SstBuilder` does of one SST, no more."""

    def __init__(self, storage: Storage, job: CompactionJob, plan: Plan) -> None:
        assert all(epoch == job.epoch for epoch, _ in job.names), "the writer mints under its own epoch"
        assert len(job.names) >= plan.names_least, f"{len(job.names)} names for {plan.names_least} SSTs"
        self._storage = storage
        self._job = job
        self._names = iter(job.names)
        self._spare_names = len(job.names) - plan.names_least
        """Names that may be spent on cutting at the target size; without one, an SST grows until its cluster ends."""
        self._cuts = deque(plan.cuts)
        """Those that no row has passed yet."""
        self._ranges = plan.range_deletes
        """Range deletes that stand in no SST yet."""
        self._has_range_deletes = bool(plan.range_deletes)
        self._ssts: list[SstInfo] = []
        self._written: list[SstInfo] = []
        self._writer: SstWriter | None = None
        """Of the SST in the making."""
        self._size = 0
        """Bytes of its rows."""

    async def add(self, rows: list[Row]) -> None:
        """Rows that follow all before."""
        while rows and self._cuts and rows[-1][0] > self._cuts[0]:
            count = bisect_right(rows, self._cuts.popleft(), key=row_key)
            await self._add_sized(rows[:count])
            rows = rows[count:]
            await self.end_cluster()
        await self._add_sized(rows)

    async def _add_sized(self, rows: list[Row]) -> None:
        target = self._job.target_size_bytes
        ends = list(accumulate(map(_row_size, rows)))
        start = done = 0
        while ends and self._size + ends[-1] - done >= target and self._spare_names:
            stop = min(bisect_left(ends, target - self._size + done, lo=start) + 1, len(rows))
            await self._add(rows[start:stop])
            start, done = stop, ends[stop - 1]
            self._spare_names -= 1
            await self._put()
            if start == len(rows):
                return
        await self._add(rows[start:] if start else rows)
        self._size += ends[-1] - done if ends else 0

    async def end_cluster(self) -> None:
        """What follows has nothing to do with the rows so far."""
        if self._writer is not None:
            await self._put()

    async def move(self, sst: SstInfo) -> None:
        """Take over an SST as it is. Range deletes that have no place yet go before it: its own index is sealed."""
        if self._ranges:
            await self._put()
        self._ssts.append(sst)

    async def finish(self) -> tuple[Run | None, tuple[SstInfo, ...]]:
        """The run, if there is anything in it, and which of its SSTs are new."""
        if self._ranges:
            await self._put()
        run = Run(ssts=tuple(self._ssts), has_range_deletes=self._has_range_deletes) if self._ssts else None
        return run, tuple(self._written)

    async def _add(self, rows: list[Row]) -> None:
        if rows:
            await self._current().add(rows)

    def _current(self) -> SstWriter:
        job = self._job
        if self._writer is None:
            self._writer = SstWriter(self._storage, next(self._names), job.token, job.block_size_bytes)
        return self._writer

    async def _put(self) -> None:
        """Store what was added as the next SST of the run; range deletes go into its first."""
        writer, ranges = self._current(), self._ranges
        self._writer, self._size, self._ranges = None, 0, NO_RANGES
        info = await writer.put(ranges)
        self._ssts.append(info)
        self._written.append(info)
        self._storage.world.reached("compaction_after_output")


def _row_size(row: Row) -> int:
    return len(row[0]) + len(row[2]) + 7
