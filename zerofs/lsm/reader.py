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
        self._gaps.append((start, stop))


class _Place(NamedTuple):
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
        for view in self._runs:
            if view.empty_until(key) is None:
                place = await self._place(view, key)
                if place is not None and self._may_hold(place, (key,)):
                    rows = await self._ssts.block(*place)
                    row = rows.find(key)
                    if row is not None:
                        return None if row[1] == DELETE else row
                    _note_gap(view, place, rows, key)
            if view.run.has_range_deletes and (await self._range_deletes(view.run)).covers(key):
                return None
        return None

    async def beside(self, key: bytes) -> tuple[Sequence[Row], int]:
        """The rows of the block that holds the newest row of a key, and where in it that is. No rows without one."""
        for view in self._runs:
            place = await self._place(view, key)
            if place is not None and self._may_hold(place, (key,)):
                rows = await self._ssts.block(*place)
                at = rows.position(key)
                if at is not None:
                    return rows, at
        return (), 0

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """As `get` for ascending keys: the rows of those that have one. What lies in one block is looked up once."""
        found: dict[bytes, Row] = {}
        wanted = keys
        for view in self._runs:
            if not wanted:
                break
            rows = await self._rows_of(view, wanted)
            if rows:
                found.update((key, row) for key, row in rows.items() if row[1] != DELETE)
                wanted = [key for key in wanted if key not in rows]
            if view.run.has_range_deletes:
                ranges = await self._range_deletes(view.run)
                wanted = [key for key in wanted if not ranges.covers(key)]
        return found

    async def _rows_of(self, view: RunView, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """The rows that a run has of ascending keys."""
        found: dict[bytes, Row] = {}
        first = 0
        while first < len(keys):
            key = keys[first]
            empty_until = view.empty_until(key)
            if empty_until is not None:
                first = bisect_left(keys, empty_until, first)
                continue
            place = await self._place(view, key)
            if place is None:
                first += 1
                continue
            stop = bisect_right(keys, place.last_key, first)
            here = keys[first:stop]
            if self._may_hold(place, here):
                block = await self._ssts.block(*place)
                rows = block.find_many(here)
                found |= rows
                if not rows:
                    _note_gap(view, place, block, key)
            first = stop
        return found

    async def _place(self, view: RunView, key: bytes) -> _Place | None:
        sst = view.sst_for(key)
        if sst is None:
            return None
        index = await self._ssts.index(sst)
        number = index.block_for(key)
        return None if number is None else _Place(sst, index, number)

    def _may_hold(self, place: _Place, keys: Sequence[bytes]) -> bool:
        """Whether to look into a block for some of `keys`, which belong there: in memory that costs least."""
        if self._ssts.has_block(place.sst, place.number):
            return True
        bloom = place.sst_index.bloom
        return any(may_contain(bloom, hash_key(key)) for key in keys)

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


def _note_gap(view: RunView, place: _Place, rows: Rows, key: bytes) -> None:
    """A block lacks a key: nothing lies between its neighbours."""
    before, after = rows.beside(key)
    view.note_empty(before if before is not None else place.sst_index.last_keys[place.number - 1], after)


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
