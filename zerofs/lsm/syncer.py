"""Cuts and their WAL objects, freezes and their flushes: the two services that make commits durable (decision 0004)."""

import logging
from collections.abc import Callable

import trio

from zerofs.errors import FencedError, UnavailableError, UnsavedDataError, ZerofsError
from zerofs.lsm.chunk import Chunk
from zerofs.lsm.chunkwriter import ChunkWriter
from zerofs.lsm.commits import Commits
from zerofs.lsm.flusher import Flusher
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.names import SstNames
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.patcher import Patcher
from zerofs.lsm.signal import Signal
from zerofs.lsm.storage import Storage
from zerofs.lsm.versions import Versions
from zerofs.lsm.wal import Cut, WalWriter
from zerofs.lsm.witness import Seen, Witness
from zerofs.units import NS_PER_S
from zerofs.world import Lane

log = logging.getLogger(__name__)

GATHER_SHARE = 0.2
"""After an append, the next cut waits at most this part of its time for the next of those who were just answered."""

GATHER_LEAST_SHARE = GATHER_SHARE / 16
"""Half as long each time that they did not come, down to this."""

GATHER_MOST = 0.6
"""At most this part of the append for all of them: they come one after the other, as whoever answers them can."""

APPEND_MOST_S = 0.25
"""No append counts as longer than this: one that took longer met an outage, or a store where nothing is worth waiting
for."""

LOOK_TIMEOUT_S = 5.0
"""How long a read that found an object missing waits for the answer who else may have deleted it."""


class Syncer:
    """Owned by one engine. `run_wal` and `run_flushes` must be running."""

    def __init__(
        self,
        *,
        storage: Storage,
        options: LsmOptions,
        commits: Commits,
        patcher: Patcher,
        chunk_writer: ChunkWriter,
        wal: WalWriter,
        flusher: Flusher,
        versions: Versions,
        names: SstNames,
        witness: Witness,
        progress: Signal,
    ) -> None:
        self._storage = storage
        self._options = options
        self._commits = commits
        self._patcher = patcher
        self._chunk_writer = chunk_writer
        self._wal = wal
        self._flusher = flusher
        self._witness = witness
        self._versions = versions
        self._names = names
        self.durable_seqno = commits.seqno
        """Everything up to here is in the store."""
        self.failure: ZerofsError | None = None
        """Why nothing will ever be stored again: fenced, or a bug. Set once."""
        self._oldest_uncut_ns: int | None = None
        self._oldest_in_flight_ns: int | None = None
        self._progress = progress
        self._waiters = 0
        self._arrivals = 0
        """How often somebody began to wait."""
        self._gather_share = GATHER_SHARE
        self._append_s = 0.0
        self._sync_wanted = trio.Event()
        self._flush_wanted = False
        self._frozen_wanted = trio.Event()
        self._carried_bytes = 0
        self._is_looking = False
        self._closing = False
        versions.published = self._record_witness
        self._record_witness()

    @property
    def manifest(self) -> Manifest:
        """The current version."""
        return self._versions.current

    @property
    def oldest_unsynced_ns(self) -> int | None:
        """Monotonic time of the oldest commit that is not durable."""
        return self._oldest_in_flight_ns if self._oldest_in_flight_ns is not None else self._oldest_uncut_ns

    def committed(self) -> None:
        """To be called after each commit: starts a flush when the memtable is full."""
        if self._oldest_uncut_ns is None:
            self._oldest_uncut_ns = self._storage.world.monotonic_ns()
            self._progress.notify()  # the volume is at rest no more
        if self._commits.active.size_bytes >= self._options.memtable_size_bytes and not self._flush_wanted:
            self.want_flush()

    def want_sync(self) -> None:
        """Have everything committed so far stored soon, without waiting."""
        self._sync_wanted.set()

    def want_flush(self) -> None:
        """Have the active memtable flushed soon, without waiting."""
        self._flush_wanted = True
        self._sync_wanted.set()

    async def sync(self) -> None:
        """Everything committed before the call is durable on return.

        Raises UnavailableError at the deadline (the data stays, and goes on being tried), FencedError for good.
        """
        target = self._commits.seqno
        self._raise_failure()
        if self.durable_seqno >= target:
            return
        self.want_sync()
        await self._wait_until(lambda: self.durable_seqno >= target, "sync")

    async def flush(self) -> None:
        """Sync, and everything committed before the call is in the trees on return; the WAL mark follows."""
        target = self._commits.seqno
        self._raise_failure()
        if self.manifest.last_seqno >= target and self.manifest.wal_mark == self._wal.last_id and not self._closing:
            return
        self.want_flush()
        before = self.manifest.manifest_id
        await self._wait_until(
            lambda: self.manifest.last_seqno >= target and self.manifest.manifest_id > before, "flush"
        )

    async def close(self) -> None:
        """Flush for the last time; the manifest says that this writer ended cleanly. Nothing may be committed after.

        Raises UnsavedDataError when the store did not take everything in time, FencedError.
        """
        self._closing = True
        try:
            await self.flush()
        except UnavailableError as error:
            raise UnsavedDataError(
                f"the object store did not take everything within {self._options.close_timeout_s:g} s "
                f"({self._storage.outage.reason or 'it does not answer'}); what was written since the last sync is lost"
            ) from error

    async def run_wal(self) -> None:
        """Serve cuts until cancelled or fenced."""
        try:
            while True:
                await self._sync_wanted.wait()
                self._sync_wanted = trio.Event()
                await self._cut_once()
        except ZerofsError as error:
            await self.fail(error)

    async def run_flushes(self) -> None:
        """Serve frozen memtables until cancelled or fenced."""
        try:
            while True:
                await self._frozen_wanted.wait()
                self._frozen_wanted = trio.Event()
                while self._commits.frozen and self._commits.frozen[0].wal_put_id:
                    await self._storage.until_it_answers("a flush", self._flush_first)
        except ZerofsError as error:
            await self.fail(error)

    async def _cut_once(self) -> None:
        answered = self._waiters
        freeze = self._worth_freezing()
        if freeze:
            self._flush_wanted = False
        # atomic: the cut, the freeze and the age of what comes after belong to one instant
        cut, frozen = self._commits.cut(freeze=freeze)
        if frozen is not None:
            frozen.generation = self._names.freeze()
        self._oldest_uncut_ns, self._oldest_in_flight_ns = None, self._oldest_uncut_ns
        if cut is not None:
            await self._append(cut)
            self.durable_seqno = cut.last_seqno
            self._record_witness()
        self._oldest_in_flight_ns = None
        if frozen is not None:
            frozen.wal_id, frozen.wal_put_id = self._wal.last_id, self._wal.last_put_id
            self._carried_bytes = 0
            self._frozen_wanted.set()
        self._progress.notify()
        if answered and (answered > 1 or self._waiters > answered):
            await self._gather(answered)

    def _worth_freezing(self) -> bool:
        if len(self._commits.frozen) >= self._options.frozen_memtables_max:
            return False
        return (
            self._flush_wanted
            or self._carried_bytes >= self._options.wal_frames_size_bytes
            or self._wal.last_id - self.manifest.wal_mark >= self._options.wal_objects_max
        )

    async def _append(self, cut: Cut) -> None:
        chunks = cut.chunks()
        await self._patcher.make_whole(chunks)
        pending = [chunk for chunk in chunks if not chunk.stored]
        carried: list[Chunk] = []
        if sum(chunk.size for chunk in pending) <= self._options.inline_frames_size_bytes:
            carried = await self._chunk_writer.take(pending)
        else:
            await self._chunk_writer.store(pending)
        self._storage.world.reached("sync_after_chunks_before_wal")
        began_ns = self._storage.world.monotonic_ns()
        await self._wal.append(cut, carried)
        self._append_s = min((self._storage.world.monotonic_ns() - began_ns) / NS_PER_S, APPEND_MOST_S)
        self._storage.world.reached("sync_after_wal_before_wake")
        for chunk in carried:
            self._carried_bytes += len(chunk.frame or b"")
            self._storage.keep_decoded(chunk)

    async def _gather(self, answered: int) -> None:
        """Make one group of those who were just answered, and may come back at once, and of those who wait already.

        Otherwise each group would wait for the append of the other one, for ever.
        """
        enough = self._arrivals + answered
        with trio.move_on_after(GATHER_MOST * self._append_s):
            while self._arrivals < enough and not (self._flush_wanted or self._closing):
                arrived = self._arrivals
                with trio.move_on_after(self._gather_share * self._append_s) as patience:
                    while self._arrivals == arrived:
                        await self._progress.wait()
                if patience.cancelled_caught:
                    break
        share = GATHER_SHARE if self._arrivals >= enough else self._gather_share / 2
        self._gather_share = max(share, GATHER_LEAST_SHARE)

    async def _flush_first(self) -> None:
        frozen = self._commits.frozen[0]
        # With another one behind it there is, or will be, a WAL object above its mark.
        closing = self._closing and not self._commits.active and len(self._commits.frozen) == 1
        # atomic: the memtable leaves in the same instant as its rows are in the version
        await self._flusher.flush(frozen, closed=closing, in_force=lambda: self._commits.drop(frozen))
        self._storage.metrics.add("flushes")
        if self._flush_wanted:
            self._sync_wanted.set()
        self._progress.notify()
        await self._storage.world.offload(Lane.CPU, frozen.memtable.dismantle)

    async def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        timeout_s = self._options.close_timeout_s if self._closing else self._options.sync_timeout_s
        self._waiters += 1
        self._arrivals += 1
        self._progress.notify()
        try:
            with trio.move_on_after(timeout_s):
                while not condition():
                    self._raise_failure()
                    await self._progress.wait()
                return
        finally:
            self._waiters -= 1
        why = self._storage.outage.reason or "it does not answer"
        raise UnavailableError(
            f"{what} not finished after {timeout_s:g} s: the object store is in trouble: {why}. "
            "The data stays in memory and goes on being tried"
        )

    def _record_witness(self) -> None:
        self._witness.record(
            Seen(
                manifest_id=self.manifest.manifest_id,
                manifest_put_id=self.manifest.put_id,
                wal_id=self._wal.last_id,
                wal_put_id=self._wal.last_put_id,
            )
        )

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args) from self.failure

    async def look_for_winner(self) -> None:
        """End as fenced if another writer took the volume over, which else only the next sync would find out.

        One look at a time, and only for as long as a reader may wait for it: what the store does not tell then, the
        next sync will.
        """
        if self.failure is not None or self._is_looking:
            return
        self._is_looking = True
        winner = None
        try:
            with trio.move_on_after(LOOK_TIMEOUT_S):
                winner = await self._versions.name_winner()
        finally:
            self._is_looking = False
        if winner is not None and self.failure is None:
            self._end(winner)

    async def fail(self, error: ZerofsError) -> None:
        """Nothing is stored from here on. Who took over is asked for afterwards: nobody waits for that answer."""
        if self.failure is None:
            self.failure = error
            self._progress.notify()
            if isinstance(error, FencedError):
                error = await self._versions.name_winner() or error
            self._end(error)
        self._progress.notify()

    def _end(self, error: ZerofsError) -> None:
        self.failure = error
        level = logging.ERROR if isinstance(error, FencedError) else logging.CRITICAL
        log.log(level, "this mount stores nothing any more: %s", error)
        self._progress.notify()
