"""Rows into a new run: meta SSTs of the usual size."""

from collections.abc import Sequence

from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.lsm.format.names import SstId
from zerofs.lsm.format.rows import Row, split_rows
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
        return await self.put_parts(token, list(split_rows(rows, self._options.meta_sst_size_bytes)), ranges, minted)

    async def put_parts(
        self, token: bytes, parts: Sequence[Sequence[Row]], ranges: KeyRanges, minted: list[SstId]
    ) -> Run:
        """As `put`, of rows that `split_rows` has split; none, if there are range deletes only."""
        options = self._options
        ssts: list[SstInfo] = []
        for part in parts or [()]:
            minted.append(self._names.mint())
            deleted = KeyRanges() if ssts else ranges
            block_size = options.block_size_bytes
            ssts.append(await put_meta_sst(self._storage, minted[-1], token, part, deleted, block_size))
        return Run(ssts=tuple(ssts), has_range_deletes=bool(ranges))
