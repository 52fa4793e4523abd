"""The door of the room: open, commit, get, scan, sync, flush.

One trio task at a time touches the state; code between two awaits is atomic, and the places that rely on it say so.
Services run beside the callers: the WAL (cuts and appends), the flusher, the chunk writer.

    commit ─▶ active memtable and unsynced set                     visible at once
    sync   ─▶ cut ─▶ chunks stored or carried ─▶ WAL object        durable
    flush  ─▶ cut, memtable frozen at it ─▶ runs ─▶ manifest       the WAL below may go
"""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import trio

from zerofs.errors import FencedError, ReadOnlyError, ZerofsError
from zerofs.lsm.chunk import Chunk
from zerofs.lsm.chunkreader import ChunkReader, Source
from zerofs.lsm.chunkwriter import ChunkWriter
from zerofs.lsm.commits import Commits, Missing
from zerofs.lsm.flusher import Flusher
from zerofs.lsm.format.manifest import Manifest, WriterInfo
from zerofs.lsm.format.pointer import Pointer, decode_pointer
from zerofs.lsm.format.rows import POINTER
from zerofs.lsm.format.trees import tree_of
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.memtable import Entry, Value
from zerofs.lsm.names import SstNames
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.reader import TreeView, merge_slices
from zerofs.lsm.recovery import Recovered, open_reader, open_writer
from zerofs.lsm.signal import Signal
from zerofs.lsm.sst import SstReader
from zerofs.lsm.storage import Storage
from zerofs.lsm.syncer import Syncer
from zerofs.lsm.versions import Versions
from zerofs.lsm.witness import Witness

log = logging.getLogger(__name__)

SCAN_SLICE_ROWS = 256
"""Rows that a scan takes from each source at a time, at most."""


class Engine:
    """An open volume as a map of keys to values. Made by `open_engine`."""

    def __init__(
        self,
        *,
        storage: Storage,
        options: LsmOptions,
        commits: Commits,
        manifest: Manifest,
        progress: Signal,
        chunk_writer: ChunkWriter | None,
        syncer: Syncer | None,
    ) -> None:
        self._storage = storage
        self._options = options
        self._commits = commits
        self._reader_manifest = manifest
        self._progress = progress
        self._chunk_writer = chunk_writer
        self._syncer = syncer
        self._chunk_reader = ChunkReader(storage, options)
        self._view_of: Manifest | None = None
        self._views: dict[bytes, TreeView] = {}

    # --- changes -----------------------------------------------------------------------------------------------

    def commit(
        self, rows: Iterable[tuple[bytes, Value | None]], delete_ranges: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        """Apply one atomic operation: delete the ranges [start, stop), then put the rows (None deletes the key).

        Visible at once, durable by a later sync. Raises, before any effect, FencedError when the volume was lost to
        another writer, ReadOnlyError on a reader.
        """
        syncer = self._syncer
        if syncer is None:
            raise ReadOnlyError("this mount is read-only")
        if syncer.failure is not None:
            raise type(syncer.failure)(*syncer.failure.args)
        self._commits.commit(rows, delete_ranges)
        syncer.committed()

    async def admit(self, size_bytes: int) -> None:
        """Wait until `size_bytes` more of chunk data fit into the memory budget. No checkpoint when they do.

        While the store is in trouble this holds the caller; it fails only when the mount is fenced.
        """
        writer, commits, limit = self._chunk_writer, self._commits, self._options.dirty_limit_bytes
        if writer is None:
            return
        while writer.pending_bytes + commits.live_chunk_bytes + size_bytes > limit or commits.full:
            syncer = self._syncer
            if syncer is None or syncer.failure is not None:
                return
            self._storage.metrics.add("held_writes")
            if self._chunk_bytes() == 0 and not commits.full:
                return  # larger than the whole budget: alone, it may pass
            if syncer.durable_seqno < commits.seqno:
                syncer.want_sync()
            await self._progress.wait()

    async def sync(self) -> None:
        """Make everything committed before the call durable: one WAL object at most, shared with whoever waits.

        Raises FencedError for good, UnavailableError at the deadline; the data stays and goes on being tried.
        """
        if self._syncer is not None:
            await self._syncer.sync()

    async def flush(self) -> None:
        """Sync, and bring everything committed before the call into the trees, so that an open replays nothing."""
        if self._syncer is not None:
            await self._syncer.flush()

    async def close(self) -> None:
        """Flush for the last time. Nothing may be committed after this."""
        if self._syncer is not None:
            await self._syncer.close()

    # --- reads -------------------------------------------------------------------------------------------------

    async def get(self, key: bytes) -> Value | None:
        """The value of a key, None if it has none. A live value comes back as the object that was put.

        No checkpoint when the answer is in memory. Raises CorruptionError, UnavailableError.
        """
        entry = await self._find(key)
        if type(entry) is Chunk or type(entry) is Pointer:
            return (await self._chunk_reader.read([entry]))[0]
        return entry

    async def multi_get(self, keys: Sequence[bytes]) -> list[Value | None]:
        """Like `get` for many keys; chunks that lie together are fetched together."""
        entries = [await self._find(key) for key in keys]
        sources: list[Source] = [entry if type(entry) is Chunk or type(entry) is Pointer else None for entry in entries]
        if not any(sources):
            return entries  # type: ignore[return-value]  # values only
        data: list[Value | None] = list(await self._chunk_reader.read(sources))
        for position, entry in enumerate(entries):
            if type(entry) is not Chunk and type(entry) is not Pointer:
                data[position] = entry
        return data

    async def contains(self, key: bytes) -> bool:
        """Whether the key has a value; never fetches chunk data."""
        return await self._find(key) is not None

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, Value]]:
        """At most `limit` rows with start <= key < stop, in key order; chunk values are left out (empty bytes).

        Rows committed while the scan waits for the store may or may not be in it.
        """
        found: list[tuple[bytes, Value]] = []
        while start < stop and len(found) < limit:
            count = min(SCAN_SLICE_ROWS, limit - len(found))
            # atomic: memtables and trees of one instant, no await until both are taken
            slices = self._commits.slices(start, stop, count)
            view = self._tree_view(start)
            slices.extend(await view.slices(start, stop, count))
            rows, start = merge_slices(slices, stop)
            found.extend((key, _scanned(kind, value)) for key, kind, value in rows)
        return found[:limit]

    async def _find(self, key: bytes) -> "Found":
        entry = self._commits.lookup(key)
        if not isinstance(entry, Missing):
            return entry
        row = await self._tree_view(key).get(key)
        if row is None:
            return None
        return decode_pointer(row[2]) if row[1] == POINTER else row[2]

    def _tree_view(self, key: bytes) -> TreeView:
        manifest = self.manifest
        if manifest is not self._view_of:
            ssts = SstReader(self._storage, manifest.tokens)
            self._views = {tree.prefix: TreeView(tree, ssts) for tree in manifest.trees}
            self._view_of = manifest
        return self._views[tree_of(key)]

    # --- what the outside may know -----------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """The current version."""
        return self._syncer.manifest if self._syncer is not None else self._reader_manifest

    @property
    def read_only(self) -> bool:
        """Whether the volume was opened for reading."""
        return self._syncer is None

    @property
    def dirty_bytes(self) -> int:
        """About what a sync would have to store; 0 only when everything is durable."""
        syncer = self._syncer
        if syncer is None:
            return 0
        return self._chunk_bytes() + self._commits.unsynced_row_bytes + (syncer.durable_seqno < self._commits.seqno)

    def _chunk_bytes(self) -> int:
        writer = self._chunk_writer
        return (writer.pending_bytes if writer is not None else 0) + self._commits.live_chunk_bytes

    @property
    def oldest_unsynced_ns(self) -> int | None:
        """Monotonic time of the oldest commit that is not durable; None when everything is."""
        return self._syncer.oldest_unsynced_ns if self._syncer is not None else None

    @property
    def failure(self) -> ZerofsError | None:
        """Why this engine will never store anything again."""
        return self._syncer.failure if self._syncer is not None else None

    @property
    def state(self) -> str:
        """`ok`, `waiting` (the store is in trouble), `fenced`, `failed` or `read-only`."""
        syncer = self._syncer
        if syncer is None:
            return "read-only"
        if syncer.failure is not None:
            return "fenced" if isinstance(syncer.failure, FencedError) else "failed"
        return "waiting" if self._storage.trouble else "ok"

    def statistics(self) -> dict[str, object]:
        """One snapshot of numbers for status and tests."""
        trees = {
            tree.prefix.decode(): {"runs": len(tree.runs), "ssts": sum(len(run.ssts) for run in tree.runs)}
            for tree in self.manifest.trees
        }
        disk = self._storage.disk_cache
        return {
            "epoch": self.manifest.epoch,
            "manifest": self.manifest.manifest_id,
            "wal_mark": self.manifest.wal_mark,
            "seqno": self._commits.seqno,
            "memtable_bytes": self._commits.active.size_bytes,
            "frozen_memtables": len(self._commits.frozen),
            "dirty_bytes": self.dirty_bytes,
            "trees": trees,
            "chunk_cache": self._storage.chunks.statistics(),
            "block_cache": self._storage.blocks.statistics(),
            "index_cache": self._storage.indexes.statistics(),
            "disk_cache": disk.statistics() if disk is not None else None,
        }


Found = Entry | Pointer
"""What a key leads to: a value, a chunk in memory, or a pointer to one in the store."""


def _scanned(kind: int, value: object) -> Value:
    if kind == POINTER or type(value) is Chunk:
        return b""
    return value  # type: ignore[return-value]  # the deletes are gone: bytes or a live value


@asynccontextmanager
async def open_engine(
    storage: Storage,
    options: LsmOptions,
    *,
    writer: WriterInfo,
    witness: Witness,
    read_only: bool = False,
    accept_rollback: bool = False,
) -> AsyncIterator[Engine]:
    """Open the volume in `storage`, which has at least its first manifest.

    Leaving the block normally syncs and flushes; an error of that is raised. Leaving it by an exception stores nothing
    more: what was not synced is as lost as after a crash.
    """
    manifests = ManifestStore(storage)
    seen = witness.load()
    if read_only:
        recovered = await open_reader(storage, manifests, seen, accept_rollback=accept_rollback)
        commits = Commits(None, recovered.memtable, recovered.last_seqno, options)
        yield Engine(
            storage=storage,
            options=options,
            commits=commits,
            manifest=recovered.manifest,
            progress=Signal(),
            chunk_writer=None,
            syncer=None,
        )
        return
    recovered = await open_writer(storage, manifests, writer, seen, accept_rollback=accept_rollback)
    try:
        async with trio.open_nursery() as nursery:
            engine = await _start(storage, options, manifests, recovered, witness, nursery)
            if accept_rollback:
                await engine.flush()
            yield engine
            await engine.close()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None  # the caller's own error, or that of the close
        raise
    finally:
        witness.close()


async def _start(
    storage: Storage,
    options: LsmOptions,
    manifests: ManifestStore,
    recovered: Recovered,
    witness: Witness,
    nursery: trio.Nursery,
) -> Engine:
    """Put the parts of a writer together and start its services."""
    assert recovered.wal is not None, "a writer has a WAL"
    progress = Signal()
    names = SstNames(recovered.manifest.epoch, recovered.referred)
    versions = Versions(storage, manifests, recovered.manifest)
    chunk_writer = ChunkWriter(storage, names, options, progress)
    commits = Commits(chunk_writer, recovered.memtable, recovered.last_seqno, options)
    syncer = Syncer(
        storage=storage,
        options=options,
        commits=commits,
        chunk_writer=chunk_writer,
        wal=recovered.wal,
        flusher=Flusher(storage, versions, names, options),
        versions=versions,
        names=names,
        witness=witness,
        progress=progress,
    )
    await nursery.start(chunk_writer.run)
    nursery.start_soon(syncer.run_wal)
    nursery.start_soon(syncer.run_flushes)
    return Engine(
        storage=storage,
        options=options,
        commits=commits,
        manifest=recovered.manifest,
        progress=progress,
        chunk_writer=chunk_writer,
        syncer=syncer,
    )
