"""Lookups in one version of the trees: point get, and slices for scans. Memtables are the engine's business.

In a run the SSTs' key ranges are disjoint, so a key has at most one SST, one block, one row there. Runs are asked from
the newest to the oldest; the first that has the key, or hides it by a range delete, decides.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from zerofs.lsm.format.bloom import hash_key, may_contain
from zerofs.lsm.format.manifest import Run, SstInfo, Tree
from zerofs.lsm.format.rows import DELETE, Row, Rows
from zerofs.lsm.format.sst import SstIndex
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sst import SstReader

NO_RANGES = KeyRanges()

GAPS_MAX = 4
"""Of each run that is searched: names and inodes, each in two places."""


class RunView:
    """A run, ready to be searched.

    Keys come in no order, but those of one directory or file lie together. So it is remembered where the run turned out
    to have no rows, as a run of new files has none of the older ones between the rows that every change writes anew.
    """

    __slots__ = ("_gaps", "_last_keys", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self._last_keys = [sst.last_key for sst in run.ssts]
        self._gaps: deque[tuple[bytes, bytes]] = deque(maxlen=GAPS_MAX)
        """Stretches without rows; both ends have one, and do not belong to it."""

    def position(self, key: bytes) -> int:
        """Index of the first SST whose last key is not below `key`."""
        return bisect_left(self._last_keys, key)

    def sst_for(self, key: bytes) -> SstInfo | None:
        """The one SST that can hold the key."""
        position = self.position(key)
        if position == len(self._last_keys):
            return None
        sst = self.run.ssts[position]
        return sst if sst.first_key <= key and sst.row_count else None

    def empty_until(self, key: bytes) -> bytes | None:
        """If it is known that the run has no row from `key` on: up to which key. Else None."""
        for start, stop in self._gaps:
            if start < key < stop:
                return stop
        return None

    def note_empty(self, start: bytes, stop: bytes) -> None:
        """Nothing lies between these two."""
        if (start, stop) not in self._gaps:  # several may have looked at the same time
            self._gaps.append((start, stop))


class _Spot(NamedTuple):
    """The one block of a run that can hold a key."""

    sst: SstInfo
    sst_index: SstIndex
    number: int

    @property
    def last_key(self) -> bytes:
        return self.sst_index.last_keys[self.number]


class TreeView:
    """One tree of one version."""

    def __init__(self, tree: Tree, ssts: SstReader) -> None:
        self.tree = tree
        self._ssts = ssts
        self._runs = [RunView(run) for run in tree.runs]

    async def get(self, key: bytes) -> Row | None:
        """The newest row of a key; None when it has none or a delete hides it. No checkpoint when all is cached."""
        hashes: dict[bytes, int] = {}
        for view in self._runs:
            if view.empty_until(key) is None:
                spot = await self._spot(view, key)
                row = None if spot is None else (await self._rows_at(spot, view, (key,), hashes)).get(key)
                if row is not None:
                    return None if row[1] == DELETE else row
            if view.run.has_range_deletes and (await self._range_deletes(view.run)).covers(key):
                return None
        return None

    async def beside(self, key: bytes) -> tuple[Sequence[Row], int]:
        """The rows of the block that holds the newest row of a key, and where in it that is. No rows without one."""
        hashes: dict[bytes, int] = {}
        for view in self._runs:
            spot = await self._spot(view, key)
            if spot is not None and _may_hold(spot, (key,), hashes):
                rows = await self._ssts.block(*spot)
                at = rows.position(key)
                if at is not None:
                    return rows, at
        return (), 0

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """As `get` for ascending keys: the rows of those that have one. What lies in one block is looked up once."""
        found: dict[bytes, Row] = {}
        hashes: dict[bytes, int] = {}
        wanted = keys
        for view in self._runs:
            if not wanted:
                break
            rows = await self._rows_of(view, wanted, hashes)
            if rows:
                found.update((key, row) for key, row in rows.items() if row[1] != DELETE)
                wanted = [key for key in wanted if key not in rows]
            if view.run.has_range_deletes:
                ranges = await self._range_deletes(view.run)
                wanted = [key for key in wanted if not ranges.covers(key)]
        return found

    async def _rows_of(self, view: RunView, keys: Sequence[bytes], hashes: dict[bytes, int]) -> dict[bytes, Row]:
        """The rows that a run has of ascending keys."""
        found: dict[bytes, Row] = {}
        first = 0
        while first < len(keys):
            key = keys[first]
            empty_until = view.empty_until(key)
            if empty_until is not None:
                first = bisect_left(keys, empty_until, first)
                continue
            spot = await self._spot(view, key)
            if spot is None:
                first += 1
                continue
            stop = bisect_right(keys, spot.last_key, first)
            found |= await self._rows_at(spot, view, keys[first:stop], hashes)
            first = stop
        return found

    async def _spot(self, view: RunView, key: bytes) -> _Spot | None:
        sst = view.sst_for(key)
        if sst is None:
            return None
        index = await self._ssts.index(sst)
        number = index.block_for(key)
        return None if number is None else _Spot(sst, index, number)

    async def _rows_at(
        self, spot: _Spot, view: RunView, keys: Sequence[bytes], hashes: dict[bytes, int]
    ) -> dict[bytes, Row]:
        """The rows that a block has of `keys`, which belong there.

        One in memory is looked into at once: that costs less than to ask the filter. If it has none of them it was of
        no use, and must not look popular for it.
        """
        rows = self._ssts.block_in_memory(spot.sst, spot.number)
        was_there = rows is not None
        if rows is None:
            if not _may_hold(spot, keys, hashes):
                return {}
            rows = await self._ssts.block(*spot)
        found = rows.find_many(keys)
        if not found:
            _note_gap(view, spot, rows, keys[0])
        elif was_there:
            self._ssts.used(spot.sst, spot.number)
        return found

    async def slices(self, start: bytes, stop: bytes, limit: int) -> list["Slice"]:
        """For each run, newest first, its rows from `start` on: at least `limit` of them or all before `stop`."""
        return [await self._slice(view, start, stop, limit) for view in self._runs]

    async def _slice(self, view: RunView, start: bytes, stop: bytes, limit: int) -> "Slice":
        rows: list[Row] = []
        ranges = (await self._range_deletes(view.run)) if view.run.has_range_deletes else NO_RANGES
        for position in range(view.position(start), len(view.run.ssts)):
            sst = view.run.ssts[position]
            if sst.first_key >= stop:
                break
            index = await self._ssts.index(sst)
            first = index.block_for(start) if start > sst.first_key else 0
            for number in range(first or 0, len(index.last_keys)):
                rows.extend((await self._ssts.block(sst, index, number)).slice(start, stop, limit - len(rows)))
                if len(rows) == limit:
                    return Slice(rows, rows[-1][0] + b"\0", ranges)
                if index.last_keys[number] >= stop:
                    break
        return Slice(rows, stop, ranges)

    async def _range_deletes(self, run: Run) -> KeyRanges:
        return (await self._ssts.index(run.ssts[0])).range_deletes


def _may_hold(spot: _Spot, keys: Sequence[bytes], hashes: dict[bytes, int]) -> bool:
    """What the filter says of some of `keys`. `hashes`: of those that a filter was asked for before."""
    bloom = spot.sst_index.bloom
    for key in keys:
        key_hash = hashes.get(key)
        if key_hash is None:
            key_hash = hashes[key] = hash_key(key)
        if may_contain(bloom, key_hash):
            return True
    return False


def _note_gap(view: RunView, spot: _Spot, rows: Rows, key: bytes) -> None:
    """A block lacks a key: nothing lies between its neighbours."""
    before, after = rows.gap_around(key)
    view.note_empty(before if before is not None else spot.sst_index.last_keys[spot.number - 1], after)


class Slice:
    """Part of one source for a scan: all its rows in [start, bound), and the range deletes it hides older ones by."""

    __slots__ = ("bound", "ranges", "rows")

    def __init__(self, rows: Sequence[tuple[bytes, int, object]], bound: bytes, ranges: KeyRanges) -> None:
        self.rows = rows
        self.bound = bound
        self.ranges = ranges


def merge_slices(slices: Sequence[Slice], stop: bytes) -> tuple[list[tuple[bytes, int, object]], bytes]:
    """Merge sources given newest first: the newest row per key, deletes and hidden rows left out.

    Returns the rows in key order and the bound up to which they are complete: the least bound of all sources.
    """
    busy = [piece for piece in slices if piece.rows or piece.ranges]
    if len(busy) == 1 and all(piece is busy[0] or piece.bound >= busy[0].bound for piece in slices):
        return [row for row in busy[0].rows if row[1] != DELETE], busy[0].bound
    bound = min((piece.bound for piece in slices), default=stop)
    merged: dict[bytes, tuple[bytes, int, object]] = {}
    hiding: list[KeyRanges] = []
    for piece in slices:
        for row in piece.rows:
            key = row[0]
            if key >= bound:
                break
            if key not in merged and not any(ranges.covers(key) for ranges in hiding):
                merged[key] = row
        if piece.ranges:
            hiding.append(piece.ranges)
    return [merged[key] for key in sorted(merged) if merged[key][1] != DELETE], bound
