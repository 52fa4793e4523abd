"""Chunks into chunk SSTs: compress and seal in batches on threads, gather, upload in parallel.

Chunks are taken in the order of their tickets. Three places hold them in turn: the queue (not sealed), the open list
(sealed, waiting for the SST to fill), the uploads. Every change that lets something start calls `_pump`; so no step
waits for a timer, and a drain only lowers the bar for closing the open list.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence

import trio

from zerofs.lsm.chunk import Chunk
from zerofs.lsm.format.header import CHUNK_SST_MAGIC, HEADER_SIZE, Header, encode_header
from zerofs.lsm.format.names import sst_name
from zerofs.lsm.format.pointer import IN_SST, NONCE_SIZE, Pointer
from zerofs.lsm.format.sst import DirectoryEntry, encode_directory, place
from zerofs.lsm.names import SstNames
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.signal import Signal
from zerofs.lsm.storage import Storage
from zerofs.units import CHUNK_SIZE
from zerofs.world import Lane

SEAL_JOBS_MAX = 4
"""Batches that are sealed at one time: more than there are processors, so that whoever seals finds the next one ready
while the loop is busy with requests."""


class ChunkWriter:
    """Owned by one engine; all calls from its trio thread. `run` must be running."""

    def __init__(self, storage: Storage, names: SstNames, options: LsmOptions, progress: Signal) -> None:
        self._storage = storage
        self._names = names
        self._options = options
        self._queue: deque[Chunk] = deque()
        self._queued_full_bytes = 0
        self._queued_part_bytes = 0
        self.pending_bytes = 0
        """Bytes of chunk data and frames that are in nobody else's care yet: queued, sealed or on their way."""
        self._sealing: set[int] = set()
        """Ticket of the first chunk of each running seal job."""
        self._open: list[Chunk] = []
        self._open_bytes = 0
        self._open_first: float = math.inf
        """The least ticket in the open list, or one below it."""
        self.uploads = 0
        """Chunk SSTs on their way to the store."""
        self._next_ticket = 1
        self._drain_to = 0
        self._progress = progress
        self._nursery: trio.Nursery | None = None

    def add(self, chunk: Chunk) -> None:
        """Take charge of a chunk."""
        chunk.ticket = self._next_ticket
        self._next_ticket += 1
        chunk.queued = True
        self._queue.append(chunk)
        self._count_queued(chunk, 1)
        self.pending_bytes += chunk.size
        if len(self._sealing) < SEAL_JOBS_MAX and self._enough_queued():
            self._pump()

    def hold(self, pointer: Pointer) -> None:
        """A row points, or is about to point, into a chunk SST that is there already: keep it until a version knows."""
        self._names.hold((pointer.epoch, pointer.number))

    def forget(self, chunk: Chunk, *, unsynced: bool, is_base: bool = False) -> None:
        """The chunk was overwritten. If no cut took it before (`unsynced`), it need not even be stored.

        `is_base`: it will be read once more, for what was left of it.
        """
        if chunk.nonce and not is_base:
            self._storage.chunks.discard(chunk.nonce)
        if unsynced:
            chunk.dead = True
            if chunk.queued:
                chunk.queued = False
                chunk.data = None
                self._count_queued(chunk, -1)
                self.pending_bytes -= chunk.size

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            self._pump()
            await trio.sleep_forever()

    async def store(self, chunks: Iterable[Chunk]) -> None:
        """Return when each of the chunks is in a chunk SST in the store, or dead."""
        waiting = [chunk for chunk in chunks if not (chunk.stored or chunk.dead)]
        if waiting:
            self._drain_to = max(self._drain_to, *(chunk.ticket for chunk in waiting))
            self._pump()
        # The last one only: there may be thousands, and progress is made often.
        while waiting:
            if waiting[-1].stored or waiting[-1].dead:
                waiting.pop()
            else:
                await self._progress.wait()

    async def take(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """Seal the chunks that are on the way to no SST yet and give them back to the caller, who stores the frames.

        Those that an upload holds already are waited for. Returns the chunks whose frames the caller now owns.
        """
        wanted = [chunk for chunk in chunks if not (chunk.stored or chunk.dead)]
        mine: set[int] = set()
        while True:
            fresh = [chunk for chunk in wanted if chunk.queued]
            if fresh:
                await self._seal_now(fresh)
                continue
            opened = {id(chunk) for chunk in self._open}
            mine.update(id(chunk) for chunk in wanted if id(chunk) in opened)
            self._remove_open(mine)
            if all(chunk.stored or chunk.dead or id(chunk) in mine for chunk in wanted):
                return [chunk for chunk in wanted if id(chunk) in mine and not chunk.dead]
            await self._progress.wait()

    async def _seal_now(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            chunk.queued = False
            self._count_queued(chunk, -1)
        self._queue = deque(chunk for chunk in self._queue if chunk.queued)
        self._sealing.add(chunks[0].ticket)
        await self._seal_job(chunks)

    def _remove_open(self, chosen: set[int]) -> None:
        self._open = [chunk for chunk in self._open if id(chunk) not in chosen]
        before, self._open_bytes = self._open_bytes, sum(len(chunk.frame or b"") for chunk in self._open)
        self.pending_bytes -= before - self._open_bytes

    def _pump(self) -> None:
        nursery = self._nursery
        if nursery is None:
            return
        while len(self._sealing) < SEAL_JOBS_MAX and self._worth_sealing():
            batch = self._next_batch()
            if batch:
                self._sealing.add(batch[0].ticket)
                nursery.start_soon(self._seal_job, batch)
        while self._worth_closing():
            if self.uploads >= self._options.uploads_max:
                self._storage.metrics.add("held_uploads")  # the first step of backpressure: then the budget fills
                break
            chunks, self._open, self._open_bytes, self._open_first = self._open, [], 0, math.inf
            chunks = self._living(chunks)
            if chunks:
                self.uploads += 1
                nursery.start_soon(self._upload, chunks)

    def _worth_sealing(self) -> bool:
        if not self._queue:
            return False
        return self._enough_queued() or self._queue[0].ticket <= self._drain_to

    def _count_queued(self, chunk: Chunk, sign: int) -> None:
        if chunk.size == CHUNK_SIZE:
            self._queued_full_bytes += sign * CHUNK_SIZE
        else:
            self._queued_part_bytes += sign * chunk.size

    def _enough_queued(self) -> bool:
        """Full chunks are sealed a batch at a time; parts wait longer, because they are often deleted or extended."""
        return (
            self._queued_full_bytes >= self._options.seal_batch_size_bytes
            or self._queued_part_bytes >= self._options.part_chunks_size_bytes
        )

    def _worth_closing(self) -> bool:
        if not self._open:
            return False
        if self._open_bytes >= self._options.chunk_sst_size_bytes:
            return True
        if self._drain_to < self._open_first:
            return False
        unsealed = min(self._sealing, default=math.inf)
        if self._queue:
            unsealed = min(unsealed, self._queue[0].ticket)
        return unsealed > self._drain_to

    def _next_batch(self) -> list[Chunk]:
        batch: list[Chunk] = []
        size = 0
        while self._queue and size < self._options.seal_batch_size_bytes:
            chunk = self._queue.popleft()
            if chunk.queued:
                chunk.queued = False
                self._count_queued(chunk, -1)
                batch.append(chunk)
                size += chunk.size
        return batch

    def _living(self, chunks: list[Chunk]) -> list[Chunk]:
        """Sealed chunks without those that were overwritten meanwhile."""
        self.pending_bytes -= sum(len(chunk.frame or b"") for chunk in chunks if chunk.dead)
        return [chunk for chunk in chunks if not chunk.dead]

    async def _seal_job(self, batch: Sequence[Chunk]) -> None:
        storage = self._storage
        nonces = storage.nonces(len(batch))
        texts = [chunk.data or b"" for chunk in batch]
        frames = await storage.chunk_sealer.seal(texts, nonces)
        for index, (chunk, frame) in enumerate(zip(batch, frames, strict=True)):
            chunk.frame = frame
            chunk.nonce = nonces[index * NONCE_SIZE : (index + 1) * NONCE_SIZE]
            if type(chunk.data) is memoryview:
                chunk.data = None  # lent
        self._sealing.discard(batch[0].ticket)
        self.pending_bytes += sum(map(len, frames)) - sum(map(len, texts))
        self._open.extend(batch)
        self._open_first = min(self._open_first, batch[0].ticket)
        self._open_bytes += sum(map(len, frames))
        self._advance()

    async def _upload(self, chunks: list[Chunk]) -> None:
        chunks.sort(key=lambda chunk: chunk.key)
        size = sum(len(chunk.frame or b"") for chunk in chunks)
        await put_chunk_sst(self._storage, self._names, chunks)
        self.pending_bytes -= size
        self.uploads -= 1
        self._advance()

    def _advance(self) -> None:
        self._pump()
        self._progress.notify()


async def put_chunk_sst(storage: Storage, names: SstNames, chunks: Sequence[Chunk]) -> None:
    """Store the frames of `chunks`, in their order, as one chunk SST; on return each chunk points into it.

    The frames stay in memory, and the old pointers in force, until the object is stored. From then on it is held.
    """
    sst = names.mint()
    name = sst_name(sst)
    frames = [chunk.frame for chunk in chunks if chunk.frame is not None]
    directory = encode_directory(
        [
            DirectoryEntry(chunk.key, len(frame), chunk.size, chunk.nonce)
            for chunk, frame in zip(chunks, frames, strict=True)
        ]
    )
    frames_length = sum(map(len, frames))
    put_id = storage.new_put_id()
    where = place(name, HEADER_SIZE + frames_length, put_id)
    sealed = await storage.world.offload(Lane.CPU, storage.sealers.directory.seal, directory, where, storage.nonces(1))
    header = encode_header(
        Header(
            magic=CHUNK_SST_MAGIC,
            epoch=sst[0],
            put_id=put_id,
            volume_id=storage.volume_id,
            first_length=frames_length,
            second_length=len(sealed),
        )
    )
    try:
        await storage.create(name, [header, *frames, sealed], put_id)
    except BaseException:
        names.settle([sst])
        raise
    names.stored(sst, frames_length)
    storage.metrics.add("chunk_ssts")
    storage.metrics.add("chunk_sst_bytes", frames_length)
    offset = HEADER_SIZE
    for chunk, frame in zip(chunks, frames, strict=True):
        chunk.pointer = Pointer(IN_SST, sst[0], sst[1], offset, len(frame), chunk.size, chunk.nonce)
        offset += len(frame)
        chunk.frame = None
        storage.keep_decoded(chunk)
