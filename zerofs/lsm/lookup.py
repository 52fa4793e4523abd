"""Where a key leads to: the memtables, then the trees of the current version."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from zerofs.errors import MissingObjectError
from zerofs.lsm.commits import Commits, Missing
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.pointer import Pointer, decode_pointer
from zerofs.lsm.format.rows import POINTER
from zerofs.lsm.format.trees import tree_of
from zerofs.lsm.memtable import Entry
from zerofs.lsm.reader import TreeView
from zerofs.lsm.sst import SstReader
from zerofs.lsm.storage import Storage

T = TypeVar("T")

Found = Entry | Pointer
"""What a key leads to: a value, a chunk in memory, or a pointer to one in the store."""


class Lookup:
    """Finds entries in whatever version is current. `current` tells which one that is."""

    def __init__(self, storage: Storage, commits: Commits, current: Callable[[], Manifest]) -> None:
        self._storage = storage
        self._commits = commits
        self._current = current
        self._view_of: Manifest | None = None
        self._views: dict[bytes, TreeView] = {}

    async def find(self, key: bytes) -> Found:
        """The newest entry of a key, None when it has none. No checkpoint when memory knows."""
        entry = self._commits.lookup(key)
        if not isinstance(entry, Missing):
            return entry
        row = await self.tree(key).get(key)
        if row is None:
            return None
        return decode_pointer(row[2]) if row[1] == POINTER else row[2]

    def tree(self, key: bytes) -> TreeView:
        """The tree that a key belongs to, as it is in the current version."""
        manifest = self._current()
        if manifest is not self._view_of:
            ssts = SstReader(self._storage, manifest.tokens)
            self._views = {tree.prefix: TreeView(tree, ssts) for tree in manifest.trees}
            self._view_of = manifest
        return self._views[tree_of(key)]

    async def steadily(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of a read, repeated when an object was collected under it.

        An object that a version lacks is an error only if that version is still the current one.
        """
        while True:
            version = self._current()
            try:
                return await attempt()
            except MissingObjectError:
                if self._current() is version:
                    raise
                self._storage.metrics.add("reads_repeated")
