"""Where a key leads to: the memtables, then the trees of the current version."""

from collections.abc import Callable, Sequence
from itertools import groupby

from zerofs.lsm.blockfetcher import BlockFetcher
from zerofs.lsm.commits import Commits, Missing
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.pointer import Pointer, decode_pointer
from zerofs.lsm.format.rows import POINTER, Row
from zerofs.lsm.format.trees import tree_of
from zerofs.lsm.memtable import Entry
from zerofs.lsm.reader import TreeView, merge_slices
from zerofs.lsm.sst import SstReader
from zerofs.lsm.storage import Storage

SCAN_SLICE_ROWS = 256
"""Rows that a scan takes from each source at a time, at most."""

NEAR_MAX = 128
"""Rows that are looked at on each side for frames near one."""

Found = Entry | Pointer
"""What a key leads to: a value, a chunk in memory, or a pointer to one in the store."""


class Lookup:
    """Finds entries in whatever version is current. `current` tells which one that is."""

    def __init__(self, storage: Storage, commits: Commits, current: Callable[[], Manifest]) -> None:
        self._storage = storage
        self._commits = commits
        self._current = current
        self._fetcher = BlockFetcher(storage)
        self._view_of: Manifest | None = None
        self._views: dict[bytes, TreeView] = {}

    async def find(self, key: bytes) -> Found:
        """The newest entry of a key, None when it has none. No checkpoint when memory knows."""
        entry = self._commits.lookup(key)
        if not isinstance(entry, Missing):
            return entry
        return _entry(await self.tree(key).get(key))

    async def find_many(self, keys: Sequence[bytes]) -> list[Found]:
        """As `find` for many keys, all of one instant."""
        if len(keys) == 1:
            return [await self.find(keys[0])]
        # atomic: memtables and trees of one instant, no await until both are taken
        found = self._commits.lookup_many(keys)
        missing = sorted({key for key, entry in zip(keys, found, strict=True) if isinstance(entry, Missing)})
        if not missing:
            return found  # type: ignore[return-value]  # nothing is missing
        groups = [(self.tree(group[0]), group) for group in _by_tree(missing)]
        rows: dict[bytes, Row] = {}
        for view, group in groups:
            rows |= await view.get_many(group)
        return [
            _entry(rows.get(key)) if isinstance(entry, Missing) else entry
            for key, entry in zip(keys, found, strict=True)
        ]

    async def near(self, key: bytes, window_bytes: int) -> list[Pointer]:
        """Pointers to frames within `window_bytes` of that of a key, in the same object, without that one.

        A hint, for whoever fetches that one: some may be dead, and others missing.
        """
        rows, at = await self.tree(key).beside(key)
        if not rows or rows[at][1] != POINTER:
            return []  # not flushed yet, or data of another kind
        centre = decode_pointer(rows[at][2])
        found: list[Pointer] = []
        for numbers in (range(at + 1, min(len(rows), at + NEAR_MAX)), range(at - 1, max(-1, at - NEAR_MAX), -1)):
            for number in numbers:
                _, kind, value = rows[number]
                pointer = decode_pointer(value) if kind == POINTER else None
                if pointer is None or pointer[:3] != centre[:3] or abs(pointer.offset - centre.offset) > window_bytes:
                    break
                found.append(pointer)
        return found

    def is_newest(self, key: bytes, found: Found) -> bool:
        """Whether `found`, which this version gave for the key, is not overtaken by a memtable."""
        entry = self._commits.lookup(key)
        return isinstance(entry, Missing) or entry is found

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, int, object]]:
        """At most `limit` rows (key, kind, value) with start <= key < stop, in key order, deletes left out.

        Rows committed while the scan waits for the store may or may not be in it.
        """
        found: list[tuple[bytes, int, object]] = []
        while start < stop and len(found) < limit:
            count = min(SCAN_SLICE_ROWS, limit - len(found))
            # atomic: memtables and trees of one instant, no await until both are taken
            slices = self._commits.slices(start, stop, count)
            view = self.tree(start)
            slices.extend(await view.slices(start, stop, count))
            rows, start = merge_slices(slices, stop)
            found.extend(rows)
        return found[:limit]

    def tree(self, key: bytes) -> TreeView:
        """The tree that a key belongs to, as it is in the current version."""
        manifest = self._current()
        if manifest is not self._view_of:
            ssts = SstReader(self._storage, manifest.tokens, self._fetcher)
            self._views = {tree.prefix: TreeView(tree, ssts) for tree in manifest.trees}
            self._view_of = manifest
        return self._views[tree_of(key)]


def _by_tree(keys: list[bytes]) -> list[list[bytes]]:
    """Ascending keys, those of one tree together."""
    prefix = tree_of(keys[0])
    if keys[0].startswith(prefix) and keys[-1].startswith(prefix):
        return [keys]
    return [list(group) for _, group in groupby(keys, tree_of)]


def _entry(row: Row | None) -> Found:
    """What a row of a tree says."""
    if row is None:
        return None
    return decode_pointer(row[2]) if row[1] == POINTER else row[2]
