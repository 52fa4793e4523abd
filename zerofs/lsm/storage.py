"""The engine's hands: the store, the world, the keys, and the one way an object is created for good.

A create goes on until its outcome is known. A store that does not answer is a pause (`outage` says since when and
why), never a reason to give up data that is in memory. While a volume is being opened there is no such data yet: then
somebody waits for an answer, and gets the error.
"""

import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from zerofs.cache.disk import DiskCache
from zerofs.cache.memory import MemoryCache
from zerofs.crypto import aead
from zerofs.errors import (
    CorruptionError,
    MissingObjectError,
    ObjectNotFoundError,
    ObjectStoreError,
    PreconditionFailedError,
    UnavailableError,
)
from zerofs.ids import PUT_ID_SIZE
from zerofs.lsm.chunk import Chunk, Frame, Text
from zerofs.lsm.format.names import FLOOR_NAME, SstId
from zerofs.lsm.format.rows import Rows
from zerofs.lsm.format.sst import SstIndex
from zerofs.lsm.origins import OpenSource, Origin, Origins
from zerofs.lsm.outage import Outage
from zerofs.lsm.sealing.sealer import ChunkSealer, ThreadSealer
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.conditional import create
from zerofs.objectstore.open import local_device
from zerofs.objectstore.probe import probe_name
from zerofs.telemetry.metrics import Metrics
from zerofs.transform.frame import Sealer
from zerofs.world import World

log = logging.getLogger(__name__)

T = TypeVar("T")

CREATE_DEADLINE_S = 5.0
"""How long one round of a conditional create resolves an unknown outcome before the trouble is reported."""

OPENING_DEADLINE_S = 60.0
"""How long a store that does not answer is asked again while the volume is being opened."""

PAUSE_S = (0.2, 2.0)
"""Shortest and longest pause between two rounds."""

Body = Sequence[bytes | bytearray | memoryview]


@dataclass(slots=True, frozen=True, kw_only=True)
class Sealers:
    """One sealer for each kind of thing that the engine stores."""

    block: Sealer
    index: Sealer
    chunk: Sealer
    directory: Sealer
    wal: Sealer
    manifest: Sealer


class Storage:
    """Shared by all parts of one engine."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        world: World,
        sealers: Sealers,
        volume_id: bytes,
        metrics: Metrics,
        cache_memory_bytes: int,
        disk_cache: DiskCache | None = None,
        open_source: OpenSource | None = None,
        origins: Origins | None = None,
        chunk_sealer: ChunkSealer | None = None,
    ) -> None:
        """`open_source` opens what a clone reads of other volumes; `origins`: those of another storage, shared.

        `chunk_sealer` seals batches of chunks as `sealers.chunk` does, which without it threads do.
        """
        self.store = store
        self.world = world
        self.sealers = sealers
        self.chunk_sealer: ChunkSealer = chunk_sealer or ThreadSealer(world, sealers.chunk)
        self.volume_id = volume_id
        self.metrics = metrics
        self.disk_cache = disk_cache
        own = Origin(
            store=store,
            volume_id=volume_id,
            block=sealers.block,
            index=sealers.index,
            chunk=sealers.chunk,
            directory=sealers.directory,
            device=local_device(store.url),
        )
        self.origins = origins or Origins(own, world, open_source)
        """Where SSTs lie, and what opens them: to be asked by whoever reads one."""
        self.chunks: MemoryCache[bytes, Text] = MemoryCache(cache_memory_bytes * 3 // 4)
        """Opened chunks by nonce: valid wherever the frame moves."""
        self.blocks: MemoryCache[tuple[SstId, int], Rows] = MemoryCache(cache_memory_bytes // 25)
        """Decoded meta blocks by SST and number."""
        self.sealed_blocks: MemoryCache[tuple[SstId, int], Frame] = MemoryCache(cache_memory_bytes // 100)
        """Meta blocks that came with others, until somebody wants them."""
        self.indexes: MemoryCache[SstId, SstIndex] = MemoryCache(cache_memory_bytes // 20)
        self.outage = Outage(metrics)
        self._is_opening = False
        self._strangers: set[str] = set()

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Within the block an error of the store is raised: at once, or a transient one at the deadline."""
        before, self._is_opening = self._is_opening, True
        try:
            yield
        finally:
            self._is_opening = before

    def disk_cache_for(self, origin: Origin) -> DiskCache | None:
        """Where copies of an origin's frames are kept. None where reading one would cost as much as the original."""
        cache = self.disk_cache
        return None if cache is None or (origin.device is not None and origin.device == cache.device) else cache

    def keep_decoded(self, chunk: Chunk) -> None:
        """A chunk's data is in the store now: from here on the cache decides how long memory keeps it."""
        if isinstance(chunk.data, bytes):
            self.chunks.put(chunk.nonce, chunk.data, chunk.size)
        chunk.data = None

    def new_put_id(self) -> bytes:
        """A fresh random put-id."""
        return self.world.entropy(PUT_ID_SIZE)

    def nonces(self, count: int) -> bytes:
        """`count` fresh nonces, joined: for frames that are sealed together."""
        return aead.nonces(self.world.entropy(aead.NONCE_SIZE), count)

    async def create(self, name: str, body: Body, put_id: bytes) -> None:
        """Put a new object; returns when it is stored.

        Raises PreconditionFailedError when another object has the name. Everything else is tried again until it is
        known, with growing pauses: only the caller's cancellation ends it, or the deadline of an opening.
        """
        await self._patiently(
            name, lambda: create(self.store, self.world, name, body, put_id, CREATE_DEADLINE_S), sum(map(len, body))
        )

    async def get_patiently(self, name: str, limit_bytes: int) -> bytes | None:
        """A whole object, or None when it is absent; asked for until the store answers."""
        return await self._patiently(name, lambda: self.get_or_none(name, limit_bytes), 0)

    async def until_it_answers(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of work that may be repeated, done again and again while the store does not answer.

        Raises whatever the attempt raises, but no ObjectStoreError unless the volume is being opened.
        """
        return await self._patiently(what, attempt, None)

    async def until_it_takes_objects(self) -> None:
        """Return when the store has taken a small object, which goes again: before that is an outage."""
        name, put_id = probe_name(self.world), self.new_put_id()
        await self.create(name, [put_id], put_id)
        with contextlib.suppress(ObjectStoreError):
            await self.store.delete(name)

    async def held_read(
        self, attempt: Callable[[], Awaitable[T]], give_up_after_s: float, *, is_own: bool = False
    ) -> T:
        """The result of a read without which a write would be lost: asked for again and again.

        It begins no outage: one object may be unreadable in a store that is well, and what a clone reads may lie in
        another store. An error that is not transient is raised when it has lasted for so long, while our own store was
        in no trouble. `is_own`: what is read lies in that. Then it is asked, by putting an object, whether it is in
        trouble; while it is, that is an outage, and while it is not, transient errors are raised like others.
        """
        pause_s, refused_since_s, is_told = PAUSE_S[0], math.inf, False
        while True:
            try:
                return await attempt()
            except ObjectStoreError as error:
                now_s, failures = trio.current_time(), self.outage.failures
                if is_own:
                    await self.until_it_takes_objects()
                is_transient = isinstance(error, UnavailableError) and not is_own
                if is_transient or self.outage.age_s is not None or self.outage.failures != failures:
                    refused_since_s = math.inf
                else:
                    refused_since_s = min(refused_since_s, now_s)
                    if now_s - refused_since_s >= give_up_after_s:
                        raise
                if not is_told:
                    log.warning("a write waits for what it has to read first: %s", error)
                is_told = True
            self.metrics.add("held_reads")
            await trio.sleep(pause_s * (0.5 + self.world.random.random()))
            pause_s = min(2 * pause_s, PAUSE_S[1])

    async def _patiently(self, name: str, attempt: Callable[[], Awaitable[T]], body_size_bytes: int | None) -> T:
        pause_s = PAUSE_S[0]
        deadline = trio.current_time() + OPENING_DEADLINE_S
        while True:
            asked_s = trio.current_time()
            try:
                with self._question(name, body_size_bytes):
                    result = await attempt()
            except PreconditionFailedError:
                self.outage.ended()
                raise
            except ObjectStoreError as error:
                if self._is_opening:
                    if not isinstance(error, UnavailableError) or trio.current_time() >= deadline:
                        self.outage.ended()
                        raise
                    log.info("%s: the object store does not answer, asking again: %s", name, error)
                elif not self.outage.has_failed:
                    log.warning("the object store is in trouble with %s: %s; the data stays in memory", name, error)
                if body_size_bytes is None:  # work, of which requests may be the smallest part
                    self.outage.failed(str(error), trio.current_time())
                else:
                    self.outage.failed(str(error), asked_s, body_size_bytes)
                self.metrics.add("store_pauses")
                await trio.sleep(pause_s * (0.5 + self.world.random.random()))
                pause_s = min(2 * pause_s, PAUSE_S[1])
            else:
                if self.outage.has_failed:
                    log.log(logging.INFO if self._is_opening else logging.WARNING, "the object store answers again")
                self.outage.ended()
                return result

    def _question(self, name: str, body_size_bytes: int | None) -> contextlib.AbstractContextManager[None]:
        if body_size_bytes is None:
            return contextlib.nullcontext()
        return self.outage.question(name, body_size_bytes)

    async def get_or_none(self, name: str, limit_bytes: int) -> bytes | None:
        """A whole object, or None when it is absent. Raises CorruptionError for one above the limit of its kind."""
        try:
            return await self.store.get(name, limit_bytes=limit_bytes)
        except ObjectNotFoundError:
            return None

    async def list_ids(self, prefix: str, parse: Callable[[str], T], start_after: str = "") -> list[T]:
        """What the names below a prefix spell, in their order. A name of another form is not ours: logged, once."""
        ids: list[T] = []
        for info in await self.store.list(prefix, start_after):
            try:
                ids.append(parse(info.name))
            except CorruptionError:
                if info.name not in self._strangers and info.name != FLOOR_NAME:
                    self._strangers.add(info.name)
                    log.warning("%s: not a name that zerofs gives: ignored; somebody else put it there", info.name)
        return ids

    async def get_part(self, name: str, start: int, length: int) -> bytes:
        """Part of an object of this volume's own that something refers to. Errors as of `Origin.get_part`."""
        return await self.origins.own.get_part(name, start, length)

    async def exists(self, name: str) -> bool:
        """Whether an object of this name is there."""
        try:
            await self.store.head(name)
        except ObjectNotFoundError:
            return False
        return True


def missing(name: str) -> MissingObjectError:
    """The error for an object that is not there although something refers to it."""
    return MissingObjectError(f"{name}: missing, although the volume refers to it")
