"""A volume in memory for engine tests: one store, any number of openings, tiny limits."""

from contextlib import asynccontextmanager
from pathlib import Path

import trio

from zerofs.lsm.format.manifest import WriterInfo
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.opening import open_engine
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.recovery import create_volume
from zerofs.lsm.storage import Storage
from zerofs.lsm.witness import Witness
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.metered import MeteredStore, Traced
from zerofs.telemetry.metrics import Metrics
from zerofs.testing.sealers import simulated_sealers
from zerofs.testing.world import SimWorld

VOLUME_ID = bytes(range(16))
TINY = LsmOptions(
    memtable_size_bytes=64 * 1024,
    chunk_sst_size_bytes=256 * 1024,
    meta_sst_size_bytes=8 * 1024,
    block_size_bytes=1024,
    seal_batch_size_bytes=64 * 1024,
    part_chunks_size_bytes=64 * 1024,
    inline_frames_size_bytes=64 * 1024,
    wal_frames_size_bytes=256 * 1024,
    dirty_limit_bytes=1024 * 1024,
    sync_timeout_s=5.0,
)
WRITER = WriterInfo(host="here", pid=1, mountpoint="/mnt")


def chunk_key(inode: int, index: int) -> bytes:
    """A key of the chunk family."""
    return b"chunk" + inode.to_bytes(8) + index.to_bytes(8)


class Bed:
    """One store, as several writers and readers would share it."""

    def __init__(self, folder: Path, *, options: LsmOptions = TINY, cache_bytes: int = 256 * 1024) -> None:
        self.world = SimWorld()
        self.store = MemoryStore()
        self.folder = folder
        self.options = options
        self.cache_bytes = cache_bytes
        self.metrics = Metrics()
        self.trace: list[Traced] = []
        """Every call that reached the store."""
        self.volume_id = VOLUME_ID
        self.sealers = simulated_sealers(VOLUME_ID)
        self.open_source = None
        """How a clone reaches its sources."""
        self.chunk_sealer = None
        """Who seals chunks, if not threads."""

    def storage(self, store=None) -> Storage:
        return Storage(
            store=MeteredStore(store or self.store, self.metrics, self.trace),
            world=self.world,
            sealers=self.sealers,
            volume_id=self.volume_id,
            metrics=self.metrics,
            cache_memory_bytes=self.cache_bytes,
            open_source=self.open_source,
            chunk_sealer=self.chunk_sealer,
        )

    def requests(self) -> int:
        """How many calls reached the store so far."""
        return len(self.trace)

    async def create(self) -> None:
        storage = self.storage()
        await create_volume(storage, ManifestStore(storage), WRITER)

    @asynccontextmanager
    async def open(self, *, store=None, host: str = "here", **kwargs):
        """An engine. `host` names whose memory of the volume is used."""
        async with open_engine(
            self.storage(store),
            self.options,
            writer=WRITER,
            witness=Witness(self.folder / host, self.volume_id),
            **kwargs,
        ) as engine:
            yield engine


class GatedStore:
    """A store whose reads wait at a gate, and may fail once behind it."""

    def __init__(self, inner):
        self._inner = inner
        self.gate = trio.Event()
        self.gate.set()
        self.error = None

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def get(self, *args, **kwargs):
        await self.gate.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error
        return await self._inner.get(*args, **kwargs)


class Crash(Exception):
    """Raised inside an open block: the engine ends as if the process had died."""
