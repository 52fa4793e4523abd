"""What may be tuned in the engine; every size in bytes, every time in seconds."""

from dataclasses import dataclass

from zerofs.units import KIB, MIB


@dataclass(slots=True, frozen=True, kw_only=True)
class LsmOptions:
    """Limits of the engine. The defaults suit a memory budget of 256 MiB and a store with 10 to 50 ms a request."""

    memtable_size_bytes: int = 16 * MIB
    """Row bytes at which the active memtable is frozen and flushed."""

    wal_frames_size_bytes: int = 32 * MIB
    """Chunk frames that WAL objects may carry, and memory holds, before a flush moves them into a chunk SST."""

    wal_objects_max: int = 1024
    """WAL objects above the mark at which a flush is started: bounds what an open has to replay."""

    inline_frames_size_bytes: int = MIB
    """Unsealed chunk data of one cut that rides in its WAL object; more goes into chunk SSTs first."""

    chunk_sst_size_bytes: int = 64 * MIB
    """Frames in one chunk SST."""

    meta_sst_size_bytes: int = 8 * MIB
    """Row bytes in one meta SST."""

    block_size_bytes: int = 32 * KIB
    """Row bytes in one block of a meta SST."""

    seal_batch_size_bytes: int = MIB
    """Chunk data that one thread, or the sealing process, compresses and seals in one go: up to 2 MiB."""

    part_chunks_size_bytes: int = 16 * MIB
    """Chunks of less than 32 KiB (small files, ends of files) that wait in memory before a thread seals them; a sync
    seals them at once."""

    dirty_limit_bytes: int = 96 * MIB
    """Chunk data in memory that is not in the store yet. Above it, writers wait."""

    uploads_max: int = 6
    """Chunk SSTs on their way to the store at one time."""

    frozen_memtables_max: int = 2
    """Memtables waiting for their flush. At the limit, writers wait."""

    runs_max: int = 24
    """Runs of one tree. At the limit, writers wait for merges, unless those fail."""

    poll_interval_s: float = 10.0
    """How often a reader looks for what the writer stored since: two requests each time."""

    sync_timeout_s: float = 60.0
    """How long a sync waits for a store that does not answer, and how long an outage may last before changes of
    metadata are refused. The data stays, and goes on being tried."""

    close_timeout_s: float = 600.0
    """How long the last flush of a mount waits; then the mount ends and says that data was not saved."""

    cache_memory_bytes: int = 96 * MIB
    """Decoded chunks (three quarters), decoded blocks, indexes, what came with others, and what is being prefetched."""

    read_gap_bytes: int = 128 * KIB
    """Two frames of one object that lie at most so far apart are fetched with one request."""

    read_span_bytes: int = 4 * MIB + 64 * KIB
    """The longest range that one request fetches."""
