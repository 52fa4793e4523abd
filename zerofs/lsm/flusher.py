"""A frozen memtable becomes runs: frames out of the WAL, rows into meta SSTs, then one manifest (decision 0004)."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zerofs.errors import FencedError, ZerofsError
from zerofs.lsm.chunk import Chunk
from zerofs.lsm.chunkwriter import put_chunk_sst
from zerofs.lsm.format.manifest import Manifest, Run, SstInfo, Tree
from zerofs.lsm.format.rows import DELETE, Row
from zerofs.lsm.manifests import ManifestLost, ManifestStore, fenced
from zerofs.lsm.memtable import Entry, Memtable
from zerofs.lsm.names import SstNames
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sst import put_meta_sst
from zerofs.lsm.storage import Storage
from zerofs.lsm.wal import encode_row
from zerofs.world import Lane


@dataclass(slots=True, kw_only=True)
class Frozen:
    """A memtable that takes no more rows, and the WAL object up to which it holds everything."""

    memtable: Memtable
    last_seqno: int
    wal_id: int = 0
    wal_put_id: bytes = b""
    """Empty until that WAL object is stored; only then may the memtable be flushed."""


class Flusher:
    """Turns frozen memtables into a new version, one after the other, oldest first."""

    def __init__(self, storage: Storage, manifests: ManifestStore, names: SstNames, options: LsmOptions) -> None:
        self._storage = storage
        self._manifests = manifests
        self._names = names
        self._options = options

    async def flush(self, frozen: Frozen, manifest: Manifest, *, closing: bool) -> Manifest:
        """Store a frozen memtable whose WAL objects are stored, and return the manifest that takes it in.

        Raises FencedError when another writer's manifest came first; the memtable is unchanged then.
        """
        storage = self._storage
        await self._move_frames_out_of_wal(frozen.memtable)
        storage.world.reached("flush_after_frames_before_runs")
        trees = [await self._add_run(tree, frozen.memtable, manifest) for tree in manifest.trees]
        storage.world.reached("flush_after_runs_before_manifest")
        successor = replace(
            manifest,
            manifest_id=manifest.manifest_id + 1,
            created_at_ns=storage.world.now_ns(),
            closed=closing,
            wal_mark=frozen.wal_id,
            wal_mark_put_id=frozen.wal_put_id,
            last_seqno=frozen.last_seqno,
            trees=tuple(trees),
            tokens=_needed_tokens(manifest, trees),
        )
        try:
            return await self._manifests.create(successor)
        except ManifestLost as error:
            raise FencedError(f"another writer took over this volume: {error}") from error

    async def name_winner(self, manifest: Manifest) -> FencedError | None:
        """The error that tells who took the volume over from the writer of `manifest`, if the store still knows."""
        with contextlib.suppress(ZerofsError):
            winner = await self._manifests.newer_than(manifest)
            if winner is not None:
                return fenced(winner)
        return None

    async def _move_frames_out_of_wal(self, memtable: Memtable) -> None:
        """The frames that WAL objects carried, still in memory, into chunk SSTs: ciphertext as it is."""
        carried = sorted((chunk for chunk in memtable.chunks() if chunk.frame is not None), key=_chunk_key)
        batch: list[Chunk] = []
        size = 0
        for chunk in carried:
            batch.append(chunk)
            size += len(chunk.frame or b"")
            if size >= self._options.chunk_sst_size_bytes:
                await put_chunk_sst(self._storage, self._names.mint(), batch)
                batch, size = [], 0
        if batch:
            await put_chunk_sst(self._storage, self._names.mint(), batch)

    async def _add_run(self, tree: Tree, memtable: Memtable, manifest: Manifest) -> Tree:
        stop = tree.prefix[:-1] + bytes((tree.prefix[-1] + 1,))
        ranges = memtable.ranges.within(tree.prefix, stop)
        rows = await self._storage.world.offload(Lane.CPU, _encoded_rows, memtable.rows, tree.prefix)
        if not tree.runs:
            # Nothing older is left that a delete could hide.
            rows = [row for row in rows if row[1] != DELETE]
            ranges = KeyRanges()
        if not rows and not ranges:
            return tree
        ssts: list[SstInfo] = []
        for part in _split(rows, self._options.meta_sst_size_bytes):
            ssts.append(
                await put_meta_sst(
                    self._storage,
                    self._names.mint(),
                    manifest.token,
                    part,
                    KeyRanges() if ssts else ranges,
                    self._options.block_size_bytes,
                )
            )
        return replace(tree, runs=(Run(ssts=tuple(ssts), has_range_deletes=bool(ranges)), *tree.runs))


def _encoded_rows(entries: Mapping[bytes, Entry], prefix: bytes) -> list[Row]:
    """The rows of a frozen memtable whose keys start with `prefix`, in order. Runs in a thread: nobody changes them."""
    return [encode_row(key, entries[key], {}) for key in sorted(entries) if key.startswith(prefix)]


def _chunk_key(chunk: Chunk) -> bytes:
    return chunk.key


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


def _needed_tokens(manifest: Manifest, trees: Sequence[Tree]) -> dict[int, bytes]:
    """The tokens of every epoch that made a live meta SST, and of this writer's own."""
    epochs = {sst.sst[0] for tree in trees for run in tree.runs for sst in run.ssts} | {manifest.epoch}
    return {epoch: manifest.tokens[epoch] for epoch in epochs}
