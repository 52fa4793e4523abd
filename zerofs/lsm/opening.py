"""Opening a volume: recovery, then the parts of an engine put together and its services started."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from zerofs.lsm.backpressure import Backpressure
from zerofs.lsm.checkpoints import Checkpoints
from zerofs.lsm.chunkreader import ChunkReader
from zerofs.lsm.chunkwriter import ChunkWriter
from zerofs.lsm.collector import Collector
from zerofs.lsm.commits import Commits
from zerofs.lsm.compaction.worker import InlineWorker, Worker
from zerofs.lsm.compactor import Compactor
from zerofs.lsm.engine import Engine, WriterParts
from zerofs.lsm.flusher import Flusher
from zerofs.lsm.follower import Follower, state_of
from zerofs.lsm.format.manifest import WriterInfo
from zerofs.lsm.lineage import claim_of
from zerofs.lsm.lookup import Lookup
from zerofs.lsm.maintenance import Maintenance
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.names import SstNames
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.patcher import Patcher
from zerofs.lsm.recovery import Recovered, open_checkpoint, open_reader, open_writer
from zerofs.lsm.registers import KnownRegisters
from zerofs.lsm.repacker import Repacker
from zerofs.lsm.replay import Replay
from zerofs.lsm.signal import Signal
from zerofs.lsm.storage import Storage
from zerofs.lsm.syncer import Syncer
from zerofs.lsm.versions import Versions
from zerofs.lsm.witness import Witness


@asynccontextmanager
async def open_engine(
    storage: Storage,
    options: LsmOptions,
    *,
    writer: WriterInfo,
    witness: Witness,
    read_only: bool = False,
    checkpoint: str | None = None,
    accept_rollback: bool = False,
    worker: Worker | None = None,
    manifests: ManifestStore | None = None,
) -> AsyncIterator[Engine]:
    """Open the volume in `storage`, which has at least its first manifest.

    `checkpoint` opens the volume as it was then, for reading. `worker` merges runs; without one it is done here, in
    line. `manifests`: with it, a writer begins with the manifest that was loaded through it just now.

    Leaving the block normally syncs and flushes; an error of that is raised. Leaving it by an exception stores nothing
    more: what was not synced is as lost as after a crash.
    """
    manifests = manifests or ManifestStore(storage)
    began_ns = storage.world.monotonic_ns()
    seen = witness.load()
    with storage.opening():
        if checkpoint is not None:
            recovered = await open_checkpoint(storage, manifests, checkpoint, seen, accept_rollback=accept_rollback)
        elif read_only:
            recovered = await open_reader(storage, manifests, seen, accept_rollback=accept_rollback)
        else:
            recovered = await open_writer(storage, manifests, writer, seen, accept_rollback=accept_rollback)
    if recovered.wal is None:
        if not accept_rollback:
            witness.raise_to(recovered.seen)
            witness.close()
        async with _services() as nursery:
            reader = _reader(storage, options, manifests, recovered, began_ns)
            await nursery.start(reader.run_prefetches)
            yield reader
        return
    witness.claim = claim_of(recovered.manifest)
    worker = worker or InlineWorker(storage)
    try:
        async with _services() as nursery:
            engine = await _Parts(storage, options, manifests, recovered, witness, worker).start(nursery)
            nursery.start_soon(worker.run)
            await nursery.start(engine.run_prefetches)
            if accept_rollback:
                await engine.flush()
            yield engine
            await engine.close()
    finally:
        witness.close()
        with trio.CancelScope(shield=True):
            await worker.aclose()


@asynccontextmanager
async def _services() -> AsyncIterator[trio.Nursery]:
    """A nursery for what runs as long as the engine is open. A single error comes out as itself."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None  # the caller's own error, or that of the close
        raise


def _reader(
    storage: Storage, options: LsmOptions, manifests: ManifestStore, recovered: Recovered, as_of_ns: int
) -> Engine:
    manifest = recovered.manifest
    state = state_of(storage, options, manifest, recovered.replay or Replay(manifest))
    # A checkpoint has nothing to follow.
    follower = Follower(storage, manifests, options, state, as_of_ns) if recovered.replay is not None else None
    return Engine(
        storage=storage,
        options=options,
        commits=state.commits,
        lookup=state.lookup,
        chunk_reader=ChunkReader(storage, options),
        current=lambda: follower.state.manifest if follower is not None else manifest,
        writer=None,
        follower=follower,
    )


class _Parts:
    """The parts of a writer. Who knows whom is all here."""

    def __init__(
        self,
        storage: Storage,
        options: LsmOptions,
        manifests: ManifestStore,
        recovered: Recovered,
        witness: Witness,
        worker: Worker,
    ) -> None:
        assert recovered.wal is not None, "a writer has a WAL"
        self._storage, self._options = storage, options
        self._progress = progress = Signal()
        names = SstNames(recovered.manifest.epoch, recovered.referred)
        self._versions = versions = Versions(storage, manifests, recovered.manifest, names)
        known = KnownRegisters()
        self._chunk_writer = ChunkWriter(storage, names, options, progress)
        self._chunk_reader = ChunkReader(storage, options)
        self._patcher = Patcher(storage, self._chunk_reader, self._chunk_writer, options, progress)
        self._commits = Commits(
            self._chunk_writer, recovered.memtable, recovered.last_seqno, options, patcher=self._patcher
        )
        self._lookup = Lookup(storage, self._commits, lambda: versions.current)
        self._syncer = Syncer(
            storage=storage,
            options=options,
            commits=self._commits,
            patcher=self._patcher,
            chunk_writer=self._chunk_writer,
            wal=recovered.wal,
            flusher=Flusher(storage, versions, names, options, known),
            versions=versions,
            names=names,
            witness=witness,
            progress=progress,
        )
        self._maintenance = Maintenance(
            storage=storage,
            options=options,
            commits=self._commits,
            versions=versions,
            compactor=Compactor(
                storage=storage, versions=versions, names=names, options=options, known=known, worker=worker
            ),
            repacker=Repacker(
                storage=storage,
                options=options,
                commits=self._commits,
                chunk_writer=self._chunk_writer,
                names=names,
                versions=versions,
                lookup=self._lookup,
                committed=self._syncer.committed,
            ),
            collector=Collector(storage, manifests, versions, names),
            known=known,
            syncer=self._syncer,
            progress=progress,
        )
        self._checkpoints = Checkpoints(storage, manifests, versions, self._syncer)

    async def start(self, nursery: trio.Nursery) -> Engine:
        """Start the services. They end when the nursery is cancelled."""
        await nursery.start(self._chunk_writer.run)
        await nursery.start(self._patcher.run)
        nursery.start_soon(self._syncer.run_wal)
        nursery.start_soon(self._syncer.run_flushes)
        nursery.start_soon(self._maintenance.run)
        return Engine(
            storage=self._storage,
            options=self._options,
            commits=self._commits,
            lookup=self._lookup,
            chunk_reader=self._chunk_reader,
            current=lambda: self._versions.current,
            writer=WriterParts(
                patcher=self._patcher,
                chunk_writer=self._chunk_writer,
                syncer=self._syncer,
                maintenance=self._maintenance,
                checkpoints=self._checkpoints,
                backpressure=Backpressure(
                    storage=self._storage,
                    options=self._options,
                    commits=self._commits,
                    chunk_writer=self._chunk_writer,
                    maintenance=self._maintenance,
                    syncer=self._syncer,
                    progress=self._progress,
                ),
            ),
        )
