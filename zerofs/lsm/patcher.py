"""Patches made whole: what they lie on is read, many at a time, and the chunks go on to the chunk writer (0021).

Not the place where anything is decided about them: a patch comes here when a cut, or the room in memory, wants it
sealed. A chunk whose base cannot be read keeps what it had; the write is lost, and whoever syncs is told.
"""

import logging
from collections import deque
from collections.abc import Sequence
from functools import partial

import trio

from zerofs.errors import ZerofsError
from zerofs.lsm.chunk import Chunk, Text
from zerofs.lsm.chunkreader import ChunkReader
from zerofs.lsm.chunkwriter import ChunkWriter
from zerofs.lsm.format.pointer import Pointer
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.signal import Signal
from zerofs.lsm.storage import Storage

_log = logging.getLogger(__name__)

BATCH_CHUNKS = 32
"""Read together, and begun unasked when so many wait."""

JOBS_MAX = 4
"""Batches that are read at one time."""

Loss = tuple[bytes, ZerofsError]
"""The key of a chunk that keeps what it had although it was written to, and why."""


class Patcher:
    """Owned by one engine; all calls from its trio thread. `run` must be running."""

    def __init__(
        self, storage: Storage, reader: ChunkReader, chunk_writer: ChunkWriter, options: LsmOptions, progress: Signal
    ) -> None:
        self._storage = storage
        self._reader = reader
        self._chunk_writer = chunk_writer
        self._options = options
        self._progress = progress
        self._waiting: deque[Chunk] = deque()
        self._jobs = 0
        self._hurried = 0
        """How many wait for all that is here."""
        self._losses: list[Loss] = []
        self._nursery: trio.Nursery | None = None

    def add(self, chunk: Chunk) -> None:
        """Take charge of a chunk that is a patch still."""
        self._waiting.append(chunk)
        self._chunk_writer.pending_bytes += chunk.size
        self._pump()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            self._pump()
            await trio.sleep_forever()

    async def make_whole(self, chunks: Sequence[Chunk]) -> None:
        """Return when none of the chunks is a patch any more, except dead ones."""
        self._drop_dead()
        patched = [chunk for chunk in chunks if chunk.patch is not None]
        if not patched:
            return
        self._hurried += 1
        self._pump()
        try:
            while patched:  # the last one only: there may be thousands
                if patched[-1].patch is None or patched[-1].dead:
                    patched.pop()
                else:
                    await self._progress.wait()
        finally:
            self._hurried -= 1

    def take_losses(self) -> list[Loss]:
        """What was lost since the last call."""
        losses, self._losses = self._losses, []
        return losses

    def _drop_dead(self) -> None:
        """Nobody waits for them, so they would stay until others come."""
        self._chunk_writer.pending_bytes -= sum(chunk.size for chunk in self._waiting if chunk.dead)
        self._waiting = deque(chunk for chunk in self._waiting if not chunk.dead)

    def _pump(self) -> None:
        nursery = self._nursery
        if nursery is None:
            return
        while self._jobs < JOBS_MAX and len(self._waiting) >= (1 if self._hurried else BATCH_CHUNKS):
            batch = [self._waiting.popleft() for _ in range(min(BATCH_CHUNKS, len(self._waiting)))]
            self._jobs += 1
            nursery.start_soon(self._job, batch)

    async def _job(self, batch: Sequence[Chunk]) -> None:
        size_bytes = sum(chunk.size for chunk in batch)
        patched = [(chunk, chunk.patch) for chunk in batch if chunk.patch is not None and not chunk.dead]
        bases = await self._bases([patch.base for _, patch in patched])
        for (chunk, patch), base in zip(patched, bases, strict=True):
            chunk.patch = None
            if chunk.dead:
                continue
            if isinstance(base, ZerofsError):
                self._losses.append((chunk.key, base))
                chunk.point_to(patch.base)
            else:
                chunk.data = patch.over(base)
                self._storage.chunks.discard(patch.base.nonce)  # hardly anybody will ask for that any more
                self._chunk_writer.add(chunk)
        self._chunk_writer.pending_bytes -= size_bytes
        self._jobs -= 1
        self._pump()
        self._progress.notify()

    async def _bases(self, places: Sequence[Pointer]) -> Sequence[Text | ZerofsError]:
        """What lies at each place, or why it cannot be read. An outage holds this up."""
        try:
            return await self._read(places, self._options.sync_timeout_s)
        except ZerofsError as error:
            return await self._good_ones(places, error)

    async def _good_ones(self, places: Sequence[Pointer], error: ZerofsError) -> list[Text | ZerofsError]:
        """As `_bases`, where some are bad, and were waited for long enough: by halves."""
        if len(places) == 1:
            return [error]
        found: list[Text | ZerofsError] = []
        middle = len(places) // 2
        for part in (places[:middle], places[middle:]):
            try:
                found += await self._read(part, 0)
            except ZerofsError as again:
                found += await self._good_ones(part, again)
        return found

    async def _read(self, places: Sequence[Pointer], give_up_after_s: float) -> list[Text]:
        read = partial(self._reader.read, places, unasked=True)
        return [text or b"" for text in await self._storage.held_read(read, give_up_after_s, is_own=True)]
