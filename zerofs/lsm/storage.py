"""The engine's hands: the store, the world, the keys, and the one way an object is created for good.

A create goes on until its outcome is known. A store that does not answer is a pause (`trouble` says since when and
why), never a reason to give up data that is in memory.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from zerofs.cache.disk import DiskCache
from zerofs.cache.memory import MemoryCache
from zerofs.errors import (
    CorruptionError,
    MissingObjectError,
    ObjectNotFoundError,
    ObjectStoreError,
    PreconditionFailedError,
    RangeError,
)
from zerofs.ids import PUT_ID_SIZE
from zerofs.lsm.chunk import Chunk
from zerofs.lsm.format.names import SstId
from zerofs.lsm.format.rows import Rows
from zerofs.lsm.format.sst import SstIndex
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.conditional import create
from zerofs.telemetry.metrics import Metrics
from zerofs.transform.frame import Sealer
from zerofs.world import World

log = logging.getLogger(__name__)

T = TypeVar("T")

CREATE_DEADLINE_S = 5.0
"""How long one round of a conditional create resolves an unknown outcome before the trouble is reported."""

PAUSE_S = (0.2, 2.0)
"""Shortest and longest pause between two rounds."""

NONCE_SIZE = 24

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
    ) -> None:
        self.store = store
        self.world = world
        self.sealers = sealers
        self.volume_id = volume_id
        self.metrics = metrics
        self.disk_cache = disk_cache
        self.chunks: MemoryCache[bytes, bytes] = MemoryCache(cache_memory_bytes * 9 // 10)
        """Opened chunks by nonce: valid wherever the frame moves."""
        self.blocks: MemoryCache[tuple[SstId, int], Rows] = MemoryCache(cache_memory_bytes // 20)
        """Decoded meta blocks by SST and number."""
        self.indexes: MemoryCache[SstId, SstIndex] = MemoryCache(cache_memory_bytes // 20)
        self.trouble = ""
        """Why the store does not take our objects at the moment; empty when it does."""

    def keep_decoded(self, chunk: Chunk) -> None:
        """A chunk's data is in the store now: from here on the cache decides how long memory keeps it."""
        if chunk.data is not None:
            self.chunks.put(chunk.nonce, chunk.data, chunk.size)
            chunk.data = None

    def new_put_id(self) -> bytes:
        """A fresh random put-id."""
        return self.world.entropy(PUT_ID_SIZE)

    def nonces(self, count: int) -> bytes:
        """`count` fresh nonces, joined."""
        return self.world.entropy(NONCE_SIZE * count)

    async def create(self, name: str, body: Body, put_id: bytes) -> None:
        """Put a new object; returns when it is stored.

        Raises PreconditionFailedError when another object has the name. Everything else is tried again until it is
        known, with growing pauses: only the caller's cancellation ends it.
        """
        await self._patiently(name, lambda: create(self.store, self.world, name, body, put_id, CREATE_DEADLINE_S))

    async def get_patiently(self, name: str) -> bytes | None:
        """A whole object, or None when it is absent; asked for until the store answers."""
        return await self._patiently(name, lambda: self.get_or_none(name))

    async def until_it_answers(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of an attempt that may be repeated, made again and again while the store does not answer.

        Raises whatever the attempt raises, but no UnavailableError.
        """
        return await self._patiently(what, attempt)

    async def _patiently(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        pause_s = PAUSE_S[0]
        while True:
            try:
                result = await attempt()
            except PreconditionFailedError:
                self.trouble = ""
                raise
            except ObjectStoreError as error:
                if not self.trouble:
                    log.warning("the object store is in trouble with %s: %s; the data stays in memory", name, error)
                self.trouble = str(error)
                self.metrics.add("store_pauses")
                await trio.sleep(pause_s * (0.5 + self.world.random.random()))
                pause_s = min(2 * pause_s, PAUSE_S[1])
            else:
                if self.trouble:
                    log.warning("the object store answers again")
                self.trouble = ""
                return result

    async def get_or_none(self, name: str) -> bytes | None:
        """A whole object, or None when it is absent."""
        try:
            return await self.store.get(name)
        except ObjectNotFoundError:
            return None

    async def get_part(self, name: str, start: int, length: int) -> bytes:
        """Part of an object that something refers to. Missing or too short is corruption, named."""
        try:
            return await self.store.get(name, start, length)
        except ObjectNotFoundError as error:
            raise missing(name) from error
        except RangeError as error:
            raise CorruptionError(f"{name}: cut short: {error}") from error

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
