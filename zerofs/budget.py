"""The one memory budget that a user sets, divided among those who take memory.

What comes on top of it, and is not asked for here: the interpreter, keys and places of what is not flushed, what the
allocator loses (0.2 GB together, measured under a copy of 20 GiB).
"""

from zerofs.config.settings import Settings
from zerofs.lsm.options import LsmOptions
from zerofs.units import KIB, MIB


def engine_options(settings: Settings) -> LsmOptions:
    """The engine's limits: the one memory budget, divided.

    Two thirds are caches (three quarters of that decoded chunks, so a file of half the budget fits), a quarter is data
    on its way to the store, the rest frames that the WAL carries. A chunk SST is an eighth of what is on its way: large
    enough for the store's latency, small enough that uploads begin soon and give room back often (13 % faster than a
    third).
    """
    memory = settings.cache.memory_size_bytes
    dirty = max(memory // 4, 2 * MIB)
    return LsmOptions(
        memtable_size_bytes=settings.lsm.memtable_size_bytes,
        wal_frames_size_bytes=min(32 * MIB, max(memory // 12, MIB)),
        inline_frames_size_bytes=min(MIB, dirty // 4),
        chunk_sst_size_bytes=min(settings.lsm.chunk_sst_size_bytes, max(dirty // 8, 256 * KIB)),
        seal_batch_size_bytes=min(2 * MIB, max(dirty // 32, 64 * KIB)),
        part_chunks_size_bytes=min(16 * MIB, dirty // 4),
        dirty_limit_bytes=dirty,
        cache_memory_bytes=memory * 2 // 3,
        sync_timeout_s=settings.lsm.sync_timeout_s,
        poll_interval_s=settings.lsm.poll_interval_s,
    )


def read_ahead_bytes(settings: Settings) -> int:
    """How far to fetch in front of readers, all together: about half of what the cache keeps of data new to it."""
    return min(32 * MIB, engine_options(settings).cache_memory_bytes // 12)
