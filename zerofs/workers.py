"""The processes beside a mount that do what would keep its interpreter from requests: merging runs, sealing chunks.

Each is told the subkeys that it needs and no others. A volume that is in this process's memory has none of them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from zerofs.admission import MEMORY_URL, OpenOptions
from zerofs.config.settings import Settings
from zerofs.crypto.kdf import Purpose
from zerofs.keys.keyring import Keyring
from zerofs.lsm.compaction import messages as compaction
from zerofs.lsm.compaction.worker import ChildWorker, InlineWorker, Worker
from zerofs.lsm.sealing import messages as sealing
from zerofs.lsm.sealing.process import ProcessSealer
from zerofs.lsm.sealing.sealer import ChunkSealer, ThreadSealer
from zerofs.lsm.storage import Storage
from zerofs.telemetry.metrics import Metrics


def make_worker(storage: Storage, keyring: Keyring, settings: Settings) -> Worker:
    """Who merges runs: a process of its own, unless the volume is in this one's memory."""
    if storage.store.url == MEMORY_URL:
        return InlineWorker(storage)
    setup = compaction.Setup(
        url=settings.storage.url,
        s3=settings.aws,
        volume_id=keyring.volume_id,
        subkeys=keyring.subkeys(Purpose.BLOCKS),
        current=keyring.current,
        compression=settings.filesystem.compression,
    )
    return ChildWorker(setup, storage.metrics)


@asynccontextmanager
async def open_chunk_sealer(
    threads: ThreadSealer, keyring: Keyring, settings: Settings, options: OpenOptions, metrics: Metrics
) -> AsyncIterator[ChunkSealer]:
    """Who seals batches of chunks: for a mount for writing a process of its own; others write little."""
    if settings.storage.url == MEMORY_URL or options.read_only or not options.mountpoint:
        yield threads
        return
    setup = sealing.Setup(
        volume_id=keyring.volume_id,
        key_id=keyring.current,
        key=keyring.subkeys(Purpose.CHUNKS)[keyring.current],
        compression=settings.filesystem.compression,
    )
    sealer = ProcessSealer(setup, threads, metrics)
    sealer.prepare()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sealer.run)
        try:
            yield sealer
        finally:
            nursery.cancel_scope.cancel()
