"""Rows into a new run: meta SSTs of the usual size."""

from collections.abc import Sequence

from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.lsm.format.names import SstId
from zerofs.lsm.format.rows import Row
from zerofs.lsm.names import SstNames
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sst import put_meta_sst
from zerofs.lsm.storage import Storage


class RunWriter:
    """Makes runs under names of one writer."""

    def __init__(self, storage: Storage, names: SstNames, options: LsmOptions) -> None:
        self._storage = storage
        self._names = names
        self._options = options

    async def put(self, token: bytes, rows: Sequence[Row], ranges: KeyRanges, minted: list[SstId]) -> Run:
        """Store rows, in ascending key order, and range deletes of older runs, as a run. `token`: of our epoch.

        The names are added to `minted` as they are made: the caller settles them, whatever happens.
        """
        options = self._options
        ssts: list[SstInfo] = []
        for part in _split(rows, options.meta_sst_size_bytes):
            minted.append(self._names.mint())
            deleted = KeyRanges() if ssts else ranges
            block_size = options.block_size_bytes
            ssts.append(await put_meta_sst(self._storage, minted[-1], token, part, deleted, block_size))
        return Run(ssts=tuple(ssts), has_range_deletes=bool(ranges))


def _split(rows: Sequence[Row], size_bytes: int) -> list[Sequence[Row]]:
    """Parts of about `size_bytes`; one empty part when there are no rows."""
    parts: list[Sequence[Row]] = []
    start = size = 0
    for index, (key, _, value) in enumerate(rows):
        size += len(key) + len(value) + 7
        if size >= size_bytes:
            parts.append(rows[start : index + 1])
            start, size = index + 1, 0
    if start < len(rows) or not rows:
        parts.append(rows[start:])
    return parts
