"""Lookups in one version of the trees: point get, and slices for scans. Memtables are the engine's business.

In a run the SSTs' key ranges are disjoint, so a key has at most one SST, one block, one row there. Runs are asked from
the newest to the oldest; the first that has the key, or hides it by a range delete, decides.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from zerofs.lsm.format.bloom import hash_key, may_contain
from zerofs.lsm.format.manifest import Run, SstInfo, Tree
from zerofs.lsm.format.rows import DELETE, Row, Rows
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sst import SstReader

NO_RANGES = KeyRanges()


class RunView:
    """A run, ready to be searched."""

    __slots__ = ("_last_keys", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self._last_keys = [sst.last_key for sst in run.ssts]

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


class TreeView:
    """One tree of one version."""

    def __init__(self, tree: Tree, ssts: SstReader) -> None:
        self.tree = tree
        self._ssts = ssts
        self._runs = [RunView(run) for run in tree.runs]

    async def get(self, key: bytes) -> Row | None:
        """The newest row of a key; None when it has none or a delete hides it. No checkpoint when all is cached."""
        key_hash = None
        for view in self._runs:
            sst = view.sst_for(key)
            if sst is not None:
                index = await self._ssts.index(sst)
                if key_hash is None:
                    key_hash = hash_key(key)
                if may_contain(index.bloom, key_hash):
                    number = index.block_for(key)
                    if number is not None:
                        row = (await self._ssts.block(sst, index, number)).find(key)
                        if row is not None:
                            return None if row[1] == DELETE else row
            if view.run.has_range_deletes and (await self._range_deletes(view.run)).covers(key):
                return None
        return None

    async def beside(self, key: bytes) -> tuple[Sequence[Row], int]:
        """The rows of the block that holds the newest row of a key, and where in it that is. No rows without one."""
        for view in self._runs:
            found = await self._block(view, key)
            at = None if found is None else found[0].position(key)
            if found is not None and at is not None:
                return found[0], at
        return (), 0

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """As `get` for ascending keys: the rows of those that have one. What lies in one block is looked up once."""
        found: dict[bytes, Row] = {}
        wanted = keys
        for view in self._runs:
            if not wanted:
                break
            rows = await self._rows_of(view, wanted)
            ranges = (await self._range_deletes(view.run)) if view.run.has_range_deletes else NO_RANGES
            found.update((key, row) for key, row in rows.items() if row[1] != DELETE)
            wanted = [key for key in wanted if key not in rows and not ranges.covers(key)]
        return found

    async def _rows_of(self, view: RunView, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """The rows that a run has of ascending keys."""
        found: dict[bytes, Row] = {}
        first = 0
        while first < len(keys):
            block = await self._block(view, keys[first])
            if block is None:
                first += 1
                continue
            rows, last_key = block
            stop = bisect_right(keys, last_key, first)
            found |= rows.find_many(keys[first:stop])
            first = stop
        return found

    async def _block(self, view: RunView, key: bytes) -> tuple[Rows, bytes] | None:
        """The one block of a run that can hold a key, and the last key of it; None when the run surely has no such."""
        sst = view.sst_for(key)
        if sst is None:
            return None
        index = await self._ssts.index(sst)
        number = index.block_for(key)
        if number is None or not may_contain(index.bloom, hash_key(key)):
            return None
        return await self._ssts.block(sst, index, number), index.last_keys[number]

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
