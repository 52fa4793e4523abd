"""Runs made to order, in a store whose every call is noted, and what a reader sees of them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.unit.lsm.kit import VOLUME_ID
from zerofs.lsm.compaction.job import CompactionJob, names_needed
from zerofs.lsm.format.manifest import Run, SstInfo, Tree
from zerofs.lsm.format.pointer import IN_SST, Pointer, encode_pointer
from zerofs.lsm.format.register import referred_bytes
from zerofs.lsm.format.rows import DELETE, POINTER, PUT, Row
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.reader import TreeView, merge_slices
from zerofs.lsm.sst import SstReader, put_meta_sst
from zerofs.lsm.storage import Storage
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.metered import MeteredStore, Traced
from zerofs.telemetry.metrics import Metrics
from zerofs.testing.sealers import simulated_sealers
from zerofs.testing.world import SimWorld

OLD_TOKEN, TOKEN = b"o" * 16, b"n" * 16
TOKENS = {1: OLD_TOKEN, 2: TOKEN}
PREFIX = b"chunk"
FIRST, LAST = b"chunk", b"chunl"


def key(number: int) -> bytes:
    return b"chunk%06d" % number


def pointer(sst: int, length: int, holder: int = IN_SST) -> bytes:
    return encode_pointer(
        Pointer(holder, 1 if holder == IN_SST else 0, sst, 64, length, 1000, sst.to_bytes(8) + length.to_bytes(16))
    )


@dataclass
class RunSpec:
    """Rows by the number of their key: bytes are put, None deletes, (chunk SST, length) points. Cuts: rows per SST."""

    rows: dict[int, bytes | tuple[int, int] | None] = field(default_factory=dict)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    cuts: Sequence[int] = (1000,)

    def encoded(self) -> list[Row]:
        return [(key(number), *_encode(value)) for number, value in sorted(self.rows.items())]

    def key_ranges(self) -> KeyRanges:
        return KeyRanges((key(start), key(stop)) for start, stop in self.ranges)


def _encode(value) -> tuple[int, bytes]:
    if value is None:
        return DELETE, b""
    return (POINTER, pointer(*value)) if isinstance(value, tuple) else (PUT, value)


class Bench:
    """A store with runs in it. `calls` holds every call that reached the store."""

    def __init__(self, *, block_size_bytes: int = 100) -> None:
        self.store = MemoryStore()
        self.calls: list[Traced] = []
        self.metrics = Metrics()
        self.block_size_bytes = block_size_bytes
        self.storage = self.make_storage()
        self._counter = 0

    def make_storage(self, store=None) -> Storage:
        return Storage(
            store=MeteredStore(store or self.store, self.metrics, self.calls),
            world=SimWorld(),
            sealers=simulated_sealers(VOLUME_ID),
            volume_id=VOLUME_ID,
            metrics=self.metrics,
            cache_memory_bytes=1 << 20,
        )

    async def put(self, spec: RunSpec) -> Run:
        rows, ssts = spec.encoded(), []
        cuts = itertools.cycle(spec.cuts)
        while rows or not ssts:
            count = next(cuts)
            part, rows = rows[:count], rows[count:]
            self._counter += 1
            ranges = KeyRanges() if ssts else spec.key_ranges()
            name = 1, self._counter
            ssts.append(await put_meta_sst(self.storage, name, OLD_TOKEN, part, ranges, self.block_size_bytes))
        return Run(ssts=tuple(ssts), has_range_deletes=bool(spec.ranges))

    def job(self, runs: Sequence[Run], *, drop_deletes: bool, target: int = 1000, names: int | None = None):
        count = names_needed(runs, target) if names is None else names
        return CompactionJob(
            prefix=PREFIX,
            runs=tuple(runs),
            drop_deletes=drop_deletes,
            tokens=TOKENS,
            epoch=2,
            token=TOKEN,
            names=tuple((2, number) for number in range(1, count + 1)),
            target_size_bytes=target,
            block_size_bytes=self.block_size_bytes,
        )

    async def rows_of(self, run: Run | None) -> list[Row]:
        """Every row of a run, hidden or not."""
        reader = SstReader(self.make_storage(), TOKENS)
        rows: list[Row] = []
        for sst in run.ssts if run else ():
            index = await reader.index(sst)
            found = [row for number in range(len(index.last_keys)) for row in await reader.block(sst, index, number)]
            assert (len(found), found[:1], found[-1:]) == (sst.row_count, *_ends(found, sst))
            rows += found
        assert [row[0] for row in rows] == sorted({row[0] for row in rows})
        return rows

    async def ranges_of(self, run: Run) -> list[tuple[bytes, bytes]]:
        if not run.has_range_deletes:
            return []
        return list((await SstReader(self.make_storage(), TOKENS).index(run.ssts[0])).range_deletes)

    async def referred(self, runs: Sequence[Run | None]) -> dict[tuple[int, int], int]:
        return referred_bytes([row for run in runs for row in await self.rows_of(run)])

    async def seen(self, runs: Sequence[Run]) -> dict[bytes, Row]:
        """What a reader sees of a tree, by scan; and by get, which must agree."""
        view = TreeView(Tree(prefix=PREFIX, runs=tuple(runs)), SstReader(self.make_storage(), TOKENS))
        start, seen = FIRST, {}
        while start < LAST:
            rows, start = merge_slices(await view.slices(start, LAST, 7), LAST)
            seen |= {row[0]: row for row in rows}
        keys = {row[0] for run in runs for row in await self.rows_of(run)}
        assert {key: row for key in keys if (row := await view.get(key)) is not None} == seen
        return seen


def _ends(found: list[Row], sst: SstInfo) -> tuple[list[Row], list[Row]]:
    if not found:
        return [], []
    assert (found[0][0], found[-1][0]) == (sst.first_key, sst.last_key)
    return found[:1], found[-1:]
