"""The composition root: settings and a password become an open volume, and the order in which it is closed.

    store ─▶ probe ─▶ bucket id ─▶ key sidecar ─▶ keyring ─▶ caches ─▶ engine ─▶ filesystem
    close: filesystem drained, engine flushed, services ended, caches given up, store closed, keys wiped

Commands, tests and simulation open volumes through here and nowhere else. Which frontend serves one is not its
business.
"""

import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio

from zerofs import admission, workers
from zerofs.admin import checkpoints
from zerofs.admission import MEMORY_URL, OpenOptions
from zerofs.budget import engine_options, read_ahead_bytes
from zerofs.cache.disk import DiskCache
from zerofs.config.settings import Settings
from zerofs.crypto.kdf import Purpose
from zerofs.crypto.secret import Secret
from zerofs.errors import NoVolumeError
from zerofs.fs.filesystem import Filesystem
from zerofs.fs.options import FilesystemOptions
from zerofs.keys.keyring import Keyring
from zerofs.lsm.compaction.worker import Worker
from zerofs.lsm.engine import Engine
from zerofs.lsm.format.foreign import Foreign
from zerofs.lsm.format.manifest import WriterInfo
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.opening import open_engine
from zerofs.lsm.origins import OpenSource
from zerofs.lsm.recovery import create_volume
from zerofs.lsm.sealing.sealer import ThreadSealer
from zerofs.lsm.storage import Sealers, Storage
from zerofs.lsm.witness import Witness
from zerofs.objectstore import probe
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.open import open_store
from zerofs.process import tune_interpreter
from zerofs.telemetry.metrics import Metrics, Number, ratio
from zerofs.transform.compression import Compression
from zerofs.transform.frame import Kind
from zerofs.units import NS_PER_S, format_duration
from zerofs.world import World

log = logging.getLogger(__name__)


STATES = ("ok", "waiting", "read-only", "data-lost", "fenced", "failed")
"""What a volume says of itself; docs/durability.md tells what each means, and how it ends."""


class Volume:
    """An open volume. Made by `open_volume`."""

    def __init__(self, *, fs: Filesystem, engine: Engine, storage: Storage, mountpoint: str, recovered_ns: int) -> None:
        self.fs = fs
        self.engine = engine
        self._storage = storage
        self._mountpoint = mountpoint
        self._opened_ns = recovered_ns

    @property
    def volume_id(self) -> str:
        """The volume's id, hexadecimal."""
        return self._storage.volume_id.hex()

    async def flush(self) -> None:
        """Return when everything accepted so far is in the store. Raises FencedError, UnavailableError."""
        await self.fs.flush_all()

    async def checkpoint(self, action: object, name: object, of: object = None) -> dict[str, Any]:
        """See `admin.checkpoints.change`."""
        return await checkpoints.change(self.engine, action, name, of)

    async def collect(self, *, dry_run: bool) -> dict[str, Any]:
        """See `admin.checkpoints.collect`."""
        return await checkpoints.collect(self.engine, dry_run=dry_run)

    def clear_data_lost(self) -> bool:
        """The operator knows that a write was lost: fsync succeeds again. Whether one was."""
        was_lost = self.fs.data_lost
        if was_lost:
            log.warning("the lost write is cleared by an operator: fsync and close succeed again")
        self.fs.clear_data_lost()
        return was_lost

    @property
    def state(self) -> str:
        """One of STATES."""
        return "data-lost" if self.fs.data_lost and self.engine.failure is None else self.engine.state

    @property
    def lifetime(self) -> Callable[[], float] | None:
        """How long answers stay true, in seconds, for a follower; None where nothing changes behind our back."""
        follower = self.engine.follower
        return None if follower is None else lambda: follower.holds_s

    def status(self) -> dict[str, Any]:
        """What `zerofs status` shows: numbers, ids and states; no file name, no content, no key."""
        world, oldest_ns = self._storage.world, self.engine.oldest_unsynced_ns
        follower, state, outage = self.engine.follower, self.state, self._storage.outage
        for known in STATES:
            self._storage.metrics.set("mount_state", int(known == state), state=known)
        return {
            "pid": os.getpid(),
            "mountpoint": self._mountpoint,
            "volume_id": self.volume_id,
            "store": self._storage.store.url,
            "state": state,
            "reason": self._reason(),
            "outage_s": outage.age_s or 0.0,
            "epoch": self.engine.manifest.epoch,
            "sources": [source.url for source in self.engine.manifest.foreign if source.is_read],
            "dirty_bytes": self.engine.dirty_bytes,
            "oldest_unsynced_s": 0.0 if oldest_ns is None else (world.monotonic_ns() - oldest_ns) / NS_PER_S,
            "uptime_s": (world.monotonic_ns() - self._opened_ns) / NS_PER_S,
            **({} if follower is None else {"shown_age_s": follower.age_ns / NS_PER_S}),
            **({} if follower is None else {"poll_interval_s": follower.interval_s}),
            "traffic": self._traffic(),
            "engine": self.engine.statistics(),
            "metrics": self._storage.metrics.snapshot(),
        }

    def _traffic(self) -> dict[str, Number | None]:
        """What programs moved and what the store did; also as metrics, for those who collect nothing else."""
        metrics = self._storage.metrics
        read, written = self.fs.traffic
        received, sent = metrics.total("store_received_bytes"), metrics.total("store_sent_bytes")
        traffic = {
            "read_bytes": read,
            "received_bytes": received,
            "read_amplification_ratio": ratio(received, read),
            "written_bytes": written,
            "sent_bytes": sent,
            "write_amplification_ratio": ratio(sent, written),
        }
        for name, value in traffic.items():
            if value is not None:
                metrics.set(name, value)
        for name, counts in self.engine.statistics().items():
            if isinstance(counts, dict) and counts.get("hit_ratio") is not None:
                metrics.set("cache_hit_ratio", counts["hit_ratio"], cache=name.removesuffix("_cache"))
        return traffic

    def _reason(self) -> str:
        """Why the state is not `ok`."""
        if self.engine.failure is not None:
            return str(self.engine.failure)
        if self.fs.data_lost:
            return "a write was refused and its data is lost; the log names the inode"
        return self._storage.outage.reason


@asynccontextmanager
async def open_volume(
    settings: Settings, password: Secret, options: OpenOptions, world: World
) -> AsyncIterator[Volume]:
    """Open the volume that the settings name, creating it where nothing is.

    Leaving the block stores everything, or raises what prevented it (FencedError, UnavailableError). The password was
    checked against the rules already: it is the first thing that is looked at, the store comes after.

    Raises:
        StoreUnsuitableError, ObjectStoreError: the store cannot be used.
        WrongPasswordError, KeyMissingError, NoVolumeError: the volume does not open, or may not be created here.
        CorruptionError, RollbackError: what is stored is not what was written, or not what this host has seen.
        UnsupportedFormatError: it was written by a newer zerofs.
        ConfigError: what this host has seen cannot be read.
        FencedError: another writer was faster.
    """
    tune_interpreter()
    opened_ns = world.monotonic_ns()
    async with (
        _open_storage(settings, password, options, world) as (storage, keyring),
        _open_engine(storage, workers.make_worker(storage, keyring, settings), settings, options) as engine,
        _open_filesystem(engine, storage, settings, options) as fs,
    ):
        yield Volume(fs=fs, engine=engine, storage=storage, mountpoint=options.mountpoint, recovered_ns=opened_ns)
    # Only now: an error inside the engine's block would keep it from storing what can be stored.
    fs.require_nothing_lost()


@asynccontextmanager
async def open_bare(settings: Settings, password: Secret, options: OpenOptions, world: World) -> AsyncIterator[Engine]:
    """Open a volume without its filesystem, for commands on the whole of it. Closes and raises as `open_volume`."""
    async with (
        _open_storage(settings, password, options, world) as (storage, keyring),
        _open_engine(storage, workers.make_worker(storage, keyring, settings), settings, options) as engine,
    ):
        yield engine


@asynccontextmanager
async def open_objects(
    settings: Settings, password: Secret, world: World, *, accept_rollback: bool = False
) -> AsyncIterator[Storage]:
    """The objects of a volume and the keys to them, without an engine: for looking at what is stored itself."""
    async with _open_uncached(settings, password, world, accept_rollback=accept_rollback) as (storage, _):
        yield storage


@asynccontextmanager
async def open_to_clone(settings: Settings, password: Secret, world: World) -> AsyncIterator[tuple[Storage, Foreign]]:
    """As `open_objects`, with the volume as a clone's foreign table names it, without epoch and pin."""
    async with _open_uncached(settings, password, world) as (storage, keyring):
        yield (
            storage,
            Foreign(
                url=settings.storage.url,
                volume_id=keyring.volume_id,
                last_epoch=0,
                block_keys=keyring.subkeys(Purpose.BLOCKS),
                chunk_keys=keyring.subkeys(Purpose.CHUNKS),
            ),
        )


def new_storage(store: ObjectStore, keyring: Keyring, settings: Settings, world: World) -> Storage:
    """The place of a volume that is being made: nothing is cached, nobody is asked."""
    return Storage(
        store=store,
        world=world,
        sealers=make_sealers(keyring, settings.filesystem.compression),
        volume_id=keyring.volume_id,
        metrics=Metrics(),
        cache_memory_bytes=0,
        open_source=_source_opener(settings, world, Metrics()),
    )


@asynccontextmanager
async def _open_uncached(
    settings: Settings, password: Secret, world: World, *, accept_rollback: bool = False
) -> AsyncIterator[tuple[Storage, Keyring]]:
    uncached = replace(settings, cache=replace(settings.cache, disk_size_bytes=0))
    options = OpenOptions(read_only=True, create=False, accept_rollback=accept_rollback)
    async with _open_storage(uncached, password, options, world) as opened:
        yield opened


def _source_opener(settings: Settings, world: World, metrics: Metrics) -> OpenSource:
    """Sources of a clone are reached with the clone's own [aws] settings."""
    return lambda url: open_store(url, settings.aws, world, metrics)


@asynccontextmanager
async def _open_storage(
    settings: Settings, password: Secret, options: OpenOptions, world: World
) -> AsyncIterator[tuple[Storage, Keyring]]:
    """From the store's address to everything that the engine works with."""
    metrics = Metrics()
    async with contextlib.aclosing(open_store(settings.storage.url, settings.aws, world, metrics)) as store:
        if not options.read_only:
            await probe.probe(store, world)
            bucket_id: str | None = await probe.adopt_bucket_id(store, world)
        else:
            bucket_id = await probe.read_bucket_id(store)
        keyring = await admission.unseal_or_create(store, world, password, settings, options)
        try:
            admission.check_place(store.url, keyring, settings, options)
            sealers = make_sealers(keyring, settings.filesystem.compression)
            async with (
                _open_caches(settings, bucket_id, world, options) as disk_cache,
                workers.open_chunk_sealer(
                    ThreadSealer(world, sealers.chunk), keyring, settings, options, metrics
                ) as chunk_sealer,
            ):
                storage = Storage(
                    store=store,
                    world=world,
                    sealers=sealers,
                    volume_id=keyring.volume_id,
                    metrics=metrics,
                    cache_memory_bytes=engine_options(settings).cache_memory_bytes,
                    disk_cache=disk_cache,
                    open_source=_source_opener(settings, world, metrics),
                    chunk_sealer=chunk_sealer,
                )
                async with contextlib.aclosing(storage.origins):
                    yield storage, keyring
        finally:
            keyring.wipe()


def make_sealers(keyring: Keyring, compression: Compression) -> Sealers:
    """The engine's sealers: each kind of thing under the subkey of its purpose."""
    return Sealers(
        block=keyring.sealer(Purpose.BLOCKS, Kind.META_BLOCK, compression),
        index=keyring.sealer(Purpose.BLOCKS, Kind.META_INDEX, compression),
        chunk=keyring.sealer(Purpose.CHUNKS, Kind.CHUNK, compression),
        directory=keyring.sealer(Purpose.CHUNKS, Kind.CHUNK_DIRECTORY, compression),
        wal=keyring.sealer(Purpose.WAL, Kind.WAL, compression),
        manifest=keyring.sealer(Purpose.MANIFEST, Kind.MANIFEST, compression),
    )


@asynccontextmanager
async def _open_caches(
    settings: Settings, bucket_id: str | None, world: World, options: OpenOptions
) -> AsyncIterator[DiskCache | None]:
    """The disk cache, served; None when the volume is in memory, the budget is zero, or the folder cannot be had."""
    if bucket_id is None or settings.cache.disk_size_bytes == 0 or settings.storage.url == MEMORY_URL:
        yield None
        return
    folder = settings.cache.dir / (f"{bucket_id[:8]}-ro" if options.read_only else bucket_id[:8])
    cache = DiskCache(folder, settings.cache.disk_size_bytes, world)
    if not cache.open():
        yield None
        return
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.run)
            try:
                yield cache
            finally:
                nursery.cancel_scope.cancel()
    finally:
        # Only now: until `run` has ended, a thread may be at work in its files.
        cache.close()


@asynccontextmanager
async def _open_engine(
    storage: Storage, worker: Worker, settings: Settings, options: OpenOptions
) -> AsyncIterator[Engine]:
    writer = WriterInfo(host=socket.gethostname(), pid=os.getpid(), mountpoint=options.mountpoint)
    witness = Witness(settings.state_dir, storage.volume_id)
    manifests = ManifestStore(storage)
    with storage.opening():
        newest = await manifests.latest(to_claim=not options.read_only)
        if newest is None:
            await admission.check_unborn(storage.store, storage.volume_id, settings)
            if options.read_only or not options.create:
                raise NoVolumeError(f"there is no volume at {storage.store.url} yet: mount it for writing once")
            await create_volume(storage, manifests, writer)
    if newest is not None and not newest.closed and not options.read_only:
        age_s = max(0, storage.world.now_ns() - newest.created_at_ns) / NS_PER_S
        log.warning(
            "taking the volume over from pid %d on %s (mountpoint %s), which last wrote a manifest %s ago and did not "
            "end cleanly; if it still runs, it is fenced now",
            newest.writer.pid,
            newest.writer.host,
            newest.writer.mountpoint or "-",
            format_duration(age_s),
        )
    async with open_engine(
        storage,
        engine_options(settings),
        writer=writer,
        witness=witness,
        read_only=options.read_only,
        checkpoint=options.checkpoint,
        accept_rollback=options.accept_rollback,
        worker=worker,
        manifests=manifests,
    ) as engine:
        for source in engine.manifest.foreign:
            if source.is_read:
                log.info(
                    "this volume is a clone: it reads objects of the volume %s at %s, until `zerofs clone detach`",
                    source.volume_id.hex(),
                    source.url,
                )
        admission.remember_place(storage.store.url, storage.volume_id, settings, options)
        yield engine


@asynccontextmanager
async def _open_filesystem(
    engine: Engine, storage: Storage, settings: Settings, options: OpenOptions
) -> AsyncIterator[Filesystem]:
    fs_options = FilesystemOptions(
        max_size_bytes=settings.filesystem.max_size_bytes,
        read_only=options.read_only,
        noatime=options.noatime,
        root_uid=os.getuid(),
        root_gid=os.getgid(),
        writeback_interval_s=settings.lsm.sync_interval_s,
        read_ahead_bytes=read_ahead_bytes(settings),
    )
    fs = await Filesystem.mount(engine, fs_options, storage.world)
    async with trio.open_nursery() as nursery:
        if options.read_only:
            nursery.start_soon(engine.follow, fs.prepare_renewal)
        else:
            await nursery.start(fs.run)
        yield fs
        fs.retire()
        nursery.cancel_scope.cancel()
