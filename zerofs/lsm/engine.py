"""The door of the room: commit, get, scan, sync, flush. `opening` makes one.

One trio task at a time touches the state; code between two awaits is atomic, and the places that rely on it say so.
Services run beside the callers: the WAL (cuts and appends), the flusher, the chunk writer, maintenance.

    commit ─▶ active memtable and unsynced set                     visible at once
    sync   ─▶ cut ─▶ chunks stored or carried ─▶ WAL object        durable
    flush  ─▶ cut, memtable frozen at it ─▶ runs ─▶ manifest       the WAL below may go
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from zerofs.errors import CloneError, FencedError, MissingObjectError, ReadOnlyError, ZerofsError
from zerofs.lsm.backpressure import Backpressure
from zerofs.lsm.checkpoints import Checkpoints
from zerofs.lsm.chunk import Chunk, Shared
from zerofs.lsm.chunkreader import ChunkReader
from zerofs.lsm.chunkwriter import ChunkWriter
from zerofs.lsm.commits import Commits, Missing
from zerofs.lsm.follower import Follower, State
from zerofs.lsm.format.manifest import Checkpoint, Manifest
from zerofs.lsm.format.pointer import Pointer
from zerofs.lsm.format.trees import CHUNK_PREFIX
from zerofs.lsm.lookup import Found, Lookup
from zerofs.lsm.maintenance import Maintenance
from zerofs.lsm.memtable import NewValue, Value
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.patch import Patch
from zerofs.lsm.patcher import Loss, Patcher
from zerofs.lsm.prefetcher import Prefetcher
from zerofs.lsm.sharing import Stored, find_stored, patch_of, shareable, stored_at
from zerofs.lsm.storage import Storage
from zerofs.lsm.syncer import Syncer
from zerofs.lsm.values import fetch_ahead, read_values

T = TypeVar("T")

Prepare = Callable[[Callable[[Sequence[bytes]], Awaitable[list[Value | None]]]], Awaitable[Callable[[], None]]]
"""Given how to read from a state that is not shown yet, returns what to do in the instant in which it is."""


@dataclass(slots=True, frozen=True, kw_only=True)
class WriterParts:
    """What an engine has only when it writes."""

    patcher: Patcher
    chunk_writer: ChunkWriter
    syncer: Syncer
    maintenance: Maintenance
    checkpoints: Checkpoints
    backpressure: Backpressure


class Engine:
    """An open volume as a map of keys to values. Made by `opening.open_engine`."""

    def __init__(
        self,
        *,
        storage: Storage,
        options: LsmOptions,
        commits: Commits,
        lookup: Lookup,
        chunk_reader: ChunkReader,
        current: Callable[[], Manifest],
        writer: "WriterParts | None",
        follower: Follower | None = None,
    ) -> None:
        self._storage = storage
        self._options = options
        self._commits = commits
        self._lookup = lookup
        self._current = current
        self._writer = writer
        self._follower = follower
        self._syncer = writer.syncer if writer is not None else None
        self._chunk_reader = chunk_reader
        self._prefetcher = Prefetcher(self._fetch_ahead, options.cache_memory_bytes // 10, storage.metrics)

    # --- changes -----------------------------------------------------------------------------------------------

    def commit(
        self, rows: Iterable[tuple[bytes, NewValue | None]], delete_ranges: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        """Apply one atomic operation: delete the ranges [start, stop), then put the rows (None deletes the key).

        Visible at once, durable by a later sync. Raises, before any effect, FencedError when the volume was lost to
        another writer, ReadOnlyError on a reader.
        """
        syncer = self._syncer
        if syncer is None:
            raise ReadOnlyError("this mount is read-only")
        self._raise_failure()
        self._commits.commit(rows, delete_ranges)
        syncer.committed()

    async def admit(self, size_bytes: int, *, unless_read_only: bool = False) -> None:
        """Wait until `size_bytes` more of chunk data may come. No checkpoint when they may.

        Three things hold a caller, each counted: too much chunk data that is not in the store yet, too many memtables
        that are not flushed yet, too many runs that are not merged yet. While the store is in trouble that may take
        long; a fenced mount holds nobody, and one that an outage made read-only none of those that ask `unless` it is.
        Others are let in in the order in which they came.
        """
        if self._writer is not None:
            await self._writer.backpressure.admit(size_bytes, unless_read_only=unless_read_only)

    def lend(self, size_bytes: int) -> memoryview | None:
        """Memory to be filled, whole chunks of which `commit` takes without a copy: see `ChunkSealer.lend`."""
        return self._storage.chunk_sealer.lend(size_bytes) if self._writer is not None else None

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
        self._prefetcher.stop()
        if self._writer is not None:
            await self._writer.maintenance.stop()
            await self._writer.syncer.close()

    async def run_prefetches(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fulfil what `prefetch` is asked for, until cancelled."""
        await self._prefetcher.run(task_status=task_status)

    @property
    def maintenance(self) -> Maintenance:
        """What the volume does for itself. Raises ReadOnlyError on a reader."""
        if self._writer is None:
            raise ReadOnlyError("this mount is read-only")
        return self._writer.maintenance

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the volume, to be changed, and its pins in others. Raises ReadOnlyError on a reader."""
        if self._writer is None:
            raise ReadOnlyError("this mount is read-only")
        return self._writer.checkpoints

    async def restore(self, name: str) -> Checkpoint:
        """Make the volume what it was then; see `Checkpoints.restore`. Close it afterwards, and open anew."""
        checkpoints = self.checkpoints
        await self.maintenance.stop()
        return await checkpoints.restore(name)

    async def detach(self, progress: Callable[[str, int, int], None]) -> None:
        """Make a clone stand alone; see `Maintenance.detach`. Raises CloneError naming checkpoints that forbid it."""
        points = await self.checkpoints.of_sources()
        if points:
            names = ", ".join(repr(point.name) for point in points)
            raise CloneError(
                f"checkpoints of this clone still need its source: {names}; delete them, or leave the clone as it is"
            )
        await self.maintenance.detach(progress)

    # --- reads -------------------------------------------------------------------------------------------------

    async def get(self, key: bytes) -> Value | None:
        """The value of a key, None if it has none. A live value comes back as the object that was put, or as its bytes.

        No checkpoint when the answer is in memory. Raises CorruptionError, UnavailableError.
        """
        entry = self._commits.lookup(key)
        if type(entry) is not Missing and type(entry) is not Chunk and type(entry) is not Patch:
            return entry  # type: ignore[return-value]  # not missing either
        if key.startswith(CHUNK_PREFIX):
            return (await self._steadily(partial(self._read, (key,))))[0]
        return await self._steadily(partial(self._row, key))

    async def _row(self, key: bytes) -> Value | None:
        return await self._lookup.find(key)  # type: ignore[return-value]  # it is no chunk

    async def multi_get(self, keys: Sequence[bytes]) -> list[Value | None]:
        """Like `get` for many keys; chunks that lie together are fetched together."""
        return await self._steadily(partial(self._read, keys))

    async def _read(self, keys: Sequence[bytes]) -> list[Value | None]:
        return await read_values(keys, self._lookup, self._chunk_reader)

    @property
    def misses(self) -> int:
        """How many reads and prefetches found data that was not in memory, so far."""
        return self._chunk_reader.misses

    def prefetch(self, keys: Sequence[bytes]) -> bool:
        """These chunk keys will be read soon: have them in memory then. False when that cannot be done. Never fails."""
        return self._prefetcher.want(keys)

    async def _fetch_ahead(self, keys: Sequence[bytes]) -> None:
        await fetch_ahead(keys, self._lookup, self._chunk_reader)

    async def contains(self, key: bytes) -> bool:
        """Whether the key has a value; never fetches chunk data."""
        return await self._steadily(lambda: self._lookup.find(key)) is not None

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, Value]]:
        """At most `limit` rows with start <= key < stop, in key order; chunk values are left out (empty bytes).

        Rows committed while the scan waits for the store may or may not be in it.
        """
        return await self._steadily(partial(self._scan, start, stop, limit))

    async def _scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, Value]]:
        rows = await self._lookup.scan(start, stop, limit)
        if start.startswith(CHUNK_PREFIX):
            return [(key, b"") for key, _, _ in rows]
        return [(key, value) for key, _, value in rows]  # type: ignore[misc]  # the deletes are gone

    async def shareable(self, keys: Sequence[bytes]) -> list[Shared | bytes | None]:
        """What to put under other chunk keys so that they have what these have; None for those that have nothing.

        A frame that is in a chunk SST is shared; other data is given as it is. All of it is of the instant of the
        return: commit it without an await, then whatever was shared stays although its own key may go. Raises
        CorruptionError, UnavailableError, ReadOnlyError.
        """
        return [shareable(found) for found in await self._find_stored(keys, stored_at)]

    async def bases(self, keys: Sequence[bytes]) -> list[Value | Patch | None]:
        """What to change when parts of these chunks are overwritten: as `get`, but what is stored need not be read.

        For that there is a patch, to be written to and put under its key. All of it is of the instant of the return:
        commit it without an await. Errors as of `shareable`; should the data under a patch turn out to be lost, the
        chunk keeps what it had, and `take_losses` tells.
        """
        found = await self._find_stored(keys, self._base_of)
        return [Patch(it) if type(it) is Pointer else it for it in found]

    def _base_of(self, entry: Found) -> Stored | None:
        origins = self._storage.origins
        return patch_of(entry, lambda pointer: origins.of(pointer.epoch) is origins.own)

    async def _find_stored(
        self, keys: Sequence[bytes], stored: Callable[[Found], Stored | None]
    ) -> list[Stored | Value | None]:
        if self._writer is None:
            raise ReadOnlyError("this mount is read-only")
        hold = self._writer.chunk_writer.hold
        return await self._steadily(
            lambda: find_stored(keys, stored, lookup=self._lookup, current=self._current, read=self._read, hold=hold)
        )

    def take_losses(self) -> list[Loss]:
        """Chunks that keep what they had although they were written to, each told once: see `bases`."""
        return self._writer.patcher.take_losses() if self._writer is not None else []

    async def _steadily(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of a read, repeated when an object was collected under it.

        An object that a version lacks is an error only if that version is still the current one: of the writer's own,
        or after a reader has looked for a newer one. A writer then asks who else may have collected it: from here on
        it is fenced if somebody took the volume over.
        """
        while True:
            version = self._current()
            try:
                return await attempt()
            except MissingObjectError:
                if self._current() is version and self._follower is not None:
                    await self._follower.renew()
                if self._current() is version:
                    if self._syncer is not None:
                        await self._syncer.look_for_winner()
                    raise
                self._storage.metrics.add("reads_repeated")

    async def patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """The result of reads that a write needs: asked for until the store answers, or this engine has failed.

        What cannot be read although the store is well is given up at the deadline of a sync: raises its error.
        """

        async def attempt() -> T:
            self._raise_failure()
            return await read()

        return await self._storage.held_read(attempt, self._options.sync_timeout_s)

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)

    # --- following -----------------------------------------------------------------------------------------------

    async def follow(self, prepare: Prepare) -> None:
        """Show what the writer stores, until cancelled. Returns at once on a writer or a checkpoint.

        Each newer state is read by `prepare` before it is shown. What that returns is called in the instant in which
        the state is shown: whoever reads from then on reads the new one.
        """
        follower = self._follower
        if follower is None:
            return

        async def accept(state: State) -> None:
            shown = await prepare(lambda keys: read_values(keys, state.lookup, self._chunk_reader))
            # atomic: no await between the last read of `prepare` and the end of this
            follower.state = state
            self._commits, self._lookup = state.commits, state.lookup
            shown()

        await follower.run(accept)

    @property
    def follower(self) -> Follower | None:
        """How a reader follows the writer; None for a writer or a checkpoint."""
        return self._follower

    # --- what the outside may know -----------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """The current version."""
        return self._current()

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
        pending_bytes = self._writer.chunk_writer.pending_bytes if self._writer is not None else 0
        return pending_bytes + self._commits.live_chunk_bytes

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
        """Of a writer `ok`, `waiting` while the store is in trouble, then `read-only`; `fenced`, `failed`.

        It is read-only once the trouble lasts longer than a sync waits. Of a reader `read-only`, or `waiting`.
        """
        quiet = self._storage.outage.is_quiet
        if self._writer is None:
            return "read-only" if quiet else "waiting"
        failure = self._writer.syncer.failure
        if failure is not None:
            return "fenced" if isinstance(failure, FencedError) else "failed"
        if quiet:
            return "ok"
        return "read-only" if self._writer.backpressure.in_long_outage else "waiting"

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
            "uploads_in_flight": self._writer.chunk_writer.uploads if self._writer is not None else 0,
            "dirty_bytes": self.dirty_bytes,
            "trees": trees,
            "chunk_cache": self._storage.chunks.statistics(),
            "block_cache": self._storage.blocks.statistics(),
            "index_cache": self._storage.indexes.statistics(),
            "disk_cache": disk.statistics() if disk is not None else None,
        }
