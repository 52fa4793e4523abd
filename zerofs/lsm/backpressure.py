"""Who may write now: writers wait while the volume is behind, so that memory stays bounded.

Three things hold a writer: too much chunk data that is not in the store yet, too many memtables that are not flushed
yet, too many runs that are not merged yet. Not for errors: a volume that stores nothing any more holds nobody, its
commits fail.
"""

import math

import trio

from zerofs.lsm.chunkwriter import ChunkWriter
from zerofs.lsm.commits import Commits
from zerofs.lsm.maintenance import Maintenance
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.signal import Signal
from zerofs.lsm.storage import Storage
from zerofs.lsm.syncer import Syncer

LOOK_EVERY_S = 1.0
"""How often somebody who is held looks whether the outage has become a long one."""


class Backpressure:
    """Owned by one engine that writes; all calls from its trio thread."""

    def __init__(
        self,
        *,
        storage: Storage,
        options: LsmOptions,
        commits: Commits,
        chunk_writer: ChunkWriter,
        maintenance: Maintenance,
        syncer: Syncer,
        progress: Signal,
    ) -> None:
        self._storage = storage
        self._options = options
        self._commits = commits
        self._chunk_writer = chunk_writer
        self._maintenance = maintenance
        self._syncer = syncer
        self._progress = progress
        self._line = trio.Lock()

    @property
    def in_long_outage(self) -> bool:
        """Whether the store has not answered for longer than a sync waits."""
        age_s = self._storage.outage.age_s
        return age_s is not None and age_s >= self._options.sync_timeout_s

    async def admit(self, size_bytes: int, *, unless_read_only: bool) -> None:
        """See `Engine.admit`. Each reason that holds a caller is counted once for it."""
        held_by = self._held_by(size_bytes)
        if held_by:
            self._count(held_by)
        if unless_read_only:
            if held_by:
                await self._until_let_in(size_bytes, held_by, unless_read_only=True)
        elif held_by or self._line.locked():
            # Only the first in the line looks at each bit of progress: there may be hundreds behind it.
            async with self._line:
                await self._until_let_in(size_bytes, held_by, unless_read_only=False)

    async def _until_let_in(self, size_bytes: int, counted: str, *, unless_read_only: bool) -> None:
        while held_by := self._held_by(size_bytes):
            if unless_read_only and self.in_long_outage:
                return
            if held_by != counted:
                self._count(held_by)
                counted = held_by
            if self._syncer.durable_seqno < self._commits.seqno:
                self._syncer.want_sync()
            with trio.move_on_after(LOOK_EVERY_S if unless_read_only else math.inf):
                await self._progress.wait()

    def _count(self, held_by: str) -> None:
        self._storage.metrics.add("held_writes", by=held_by)

    def _held_by(self, size_bytes: int) -> str:
        """Why nobody may write now; empty when everybody may."""
        if self._syncer.failure is not None:
            return ""
        if self._commits.full:
            return "memtables"
        if self._maintenance.is_behind:
            return "runs"
        waiting = self._chunk_writer.pending_bytes + self._commits.live_chunk_bytes
        # What is larger than the whole budget may pass alone.
        return "chunks" if waiting and waiting + size_bytes > self._options.dirty_limit_bytes else ""
