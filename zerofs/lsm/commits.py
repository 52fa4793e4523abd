"""What was committed and is not in the trees yet: the active memtable, the unsynced set, the frozen memtables.

Every key of the unsynced set is in the active memtable, because a memtable is only frozen by the cut that empties the
set. Nothing here awaits, so each method is atomic.
"""

import itertools
from collections.abc import Iterable, Sequence

from zerofs.lsm.chunk import Chunk, Shared
from zerofs.lsm.chunkwriter import ChunkWriter
from zerofs.lsm.flusher import Frozen
from zerofs.lsm.format.register import back_reference_key
from zerofs.lsm.format.rows import DELETE, PUT
from zerofs.lsm.format.trees import CHUNK_PREFIX
from zerofs.lsm.memtable import Entry, Memtable, NewValue
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.patch import Patch
from zerofs.lsm.patcher import Patcher
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.reader import Slice
from zerofs.lsm.sealing.arena import is_lent
from zerofs.lsm.wal import Cut
from zerofs.units import CHUNK_SIZE

ROW_BYTES = 100
"""A row of metadata, about."""


LIVE_MAX = 1024
"""More live values than this are not left for the cut, which would encode all of them at one instant: 1 ms."""

LIVE_CHUNKS_MAX = 1024
"""As many live chunks, 32 MiB: the others are sealed while writing goes on. What is written again and again is not."""

ENCODED_AT_ONCE = 64


class Missing:
    """The type of MISSING: no memtable knows the key, the trees must be asked."""


MISSING = Missing()


class Commits:
    """The rows above the current version."""

    def __init__(
        self,
        chunk_writer: ChunkWriter | None,
        recovered: Memtable,
        seqno: int,
        options: LsmOptions,
        patcher: Patcher | None = None,
    ) -> None:
        """A writer has a chunk writer and a patcher."""
        self._chunk_writer = chunk_writer
        self._patcher = patcher
        self._options = options
        self.active = recovered
        self.frozen: list[Frozen] = []
        """Oldest first."""
        self._unsynced: dict[bytes, Entry] = {}
        self._unsynced_ranges = KeyRanges()
        self._live: dict[bytes, None] = {}
        """Keys under which the unsynced set has live values, or had, but no chunks; what was put last comes last."""
        self._live_chunks: dict[bytes, None] = {}
        """As `_live`, for chunks."""
        self.seqno = seqno
        """Of the newest commit."""
        self._cut_seqno = seqno
        self.live_chunk_bytes = 0
        """Upper bound of the bytes in live chunk values that no cut has encoded yet."""

    @property
    def has_unsynced(self) -> bool:
        """Whether anything was committed since the last cut."""
        return self.seqno > self._cut_seqno

    @property
    def full(self) -> bool:
        """Whether the active memtable is full and the frozen ones are not flushed yet: writers must wait."""
        return (
            len(self.frozen) >= self._options.frozen_memtables_max
            and self.active.size_bytes >= self._options.memtable_size_bytes
        )

    @property
    def unsynced_row_bytes(self) -> int:
        """About what the rows of the unsynced set take in a WAL object."""
        return ROW_BYTES * len(self._unsynced)

    def commit(
        self, rows: Iterable[tuple[bytes, NewValue | None]], delete_ranges: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """One operation: range deletes, then rows."""
        active, unsynced, live, live_chunks = self.active, self._unsynced, self._live, self._live_chunks
        for start, stop in delete_ranges:
            for key, gone in active.delete_range(start, stop):
                self._supersede(gone, unsynced=key in unsynced)
                unsynced.pop(key, None)
            self._unsynced_ranges.add(start, stop)
        for key, value in rows:
            if key.startswith(CHUNK_PREFIX):
                entry = self._replace_chunk(key, value)
                if _is_live(entry):
                    live_chunks.pop(key, None)
                    live_chunks[key] = None
            else:
                assert type(value) is not Shared, "only chunks are shared"
                assert type(value) is not memoryview, "only chunks are views"
                entry = value
                if _is_live(entry):
                    live.pop(key, None)
                    live[key] = None
            active.put(key, entry)
            unsynced[key] = entry
        self.seqno += 1
        if len(live) > LIVE_MAX:
            self._encode_oldest(live)
        if len(live_chunks) > LIVE_CHUNKS_MAX:
            self._encode_oldest(live_chunks)

    def _encode_oldest(self, live: dict[bytes, None]) -> None:
        """Encode what was not put again for long, so that little is left for the cut: nothing is answered meanwhile."""
        for key in list(itertools.islice(live, ENCODED_AT_ONCE)):
            del live[key]
            self._encode_live(key, self._unsynced)

    def _encode_live(self, key: bytes, rows: dict[bytes, Entry]) -> None:
        entry = rows.get(key)
        if _is_live(entry):
            rows[key] = encoded = self._encode(key, entry)
            self.active.put(key, encoded)
            if key.startswith(CHUNK_PREFIX):
                self._count_live_chunk(-1)

    def _replace_chunk(self, key: bytes, value: NewValue | None) -> Entry:
        old = self.active.rows.get(key)
        if old is value and old is not None:  # a live value that was put before
            if key not in self._unsynced:
                self._count_live_chunk(1)
            return old
        if old is not None:
            self._supersede(old, unsynced=key in self._unsynced, is_base=type(value) is Patch)
        return self._take_chunk(key, value)

    def _count_live_chunk(self, sign: int) -> None:
        self.live_chunk_bytes = max(0, self.live_chunk_bytes + sign * CHUNK_SIZE)

    def repoint(self, chunks: Iterable[Chunk], shared: Iterable[Chunk]) -> None:
        """One operation: these chunks, which are stored, replace what their keys have. The data is the same.

        `shared`: those of them whose frame has another key in the directory of its SST.
        """
        for chunk in chunks:
            self._put(chunk.key, chunk)
        for chunk in shared:
            self._refer_back(chunk)
        self.seqno += 1

    def _put(self, key: bytes, entry: Entry) -> None:
        self.active.put(key, entry)
        self._unsynced[key] = entry

    def _refer_back(self, chunk: Chunk) -> None:
        assert chunk.pointer is not None, "it is stored"
        self._put(back_reference_key(chunk.pointer, chunk.key), b"")

    def _take_chunk(self, key: bytes, value: NewValue | None) -> Entry:
        if type(value) is memoryview and not is_lent(value):
            value = bytes(value)
        if type(value) is bytes or type(value) is memoryview:
            assert self._chunk_writer is not None, "a reader commits nothing"
            chunk = Chunk(key, value)
            self._chunk_writer.add(chunk)
            return chunk
        if type(value) is Shared:
            assert self._chunk_writer is not None, "a reader commits nothing"
            chunk = Chunk.at(key, value.pointer)
            self._chunk_writer.hold(value.pointer)
            self._refer_back(chunk)
            return chunk
        if value is not None:
            self._count_live_chunk(1)
        return value

    def _supersede(self, old: Entry, *, unsynced: bool, is_base: bool = False) -> None:
        """A value was overwritten or deleted: a chunk is read no more, and if unsynced need not be stored."""
        if type(old) is Chunk:
            assert self._chunk_writer is not None, "only a writer overwrites"
            self._chunk_writer.forget(old, unsynced=unsynced, is_base=is_base)
        elif unsynced and old is not None and type(old) is not bytes:
            self._count_live_chunk(-1)

    def cut(self, *, freeze: bool) -> tuple[Cut | None, Frozen | None]:
        """Take the unsynced set, live values encoded; with `freeze`, also freeze the active memtable behind it.

        The cut is None when nothing was committed. The frozen memtable learns its WAL id once the cut is stored.
        """
        cut = None
        if self.has_unsynced:
            rows, self._unsynced = self._unsynced, {}
            ranges, self._unsynced_ranges = self._unsynced_ranges, KeyRanges()
            for key in (*self._live, *self._live_chunks):
                self._encode_live(key, rows)
            self._live, self._live_chunks = {}, {}
            cut = Cut(rows=rows, ranges=ranges, first_seqno=self._cut_seqno + 1, last_seqno=self.seqno)
            self._cut_seqno = self.seqno
            self.live_chunk_bytes = 0
        frozen = None
        if freeze:
            frozen = Frozen(memtable=self.active, last_seqno=self.seqno)
            self.frozen.append(frozen)
            self.active = Memtable()
        return cut, frozen

    def drop(self, frozen: Frozen) -> None:
        """The rows of the oldest frozen memtable are in the current version."""
        assert self.frozen[0] is frozen, "memtables are flushed in order"
        del self.frozen[0]

    def _encode(self, key: bytes, entry: Entry) -> Entry:
        if type(entry) is Patch:
            assert self._patcher is not None, "a reader commits nothing"
            chunk = Chunk.patched(key, entry.copy())
            self._patcher.add(chunk)
            return chunk
        encoded: bytes = entry.encode()  # type: ignore[union-attr]  # only live values come here
        if not key.startswith(CHUNK_PREFIX):
            return encoded
        return self._take_chunk(key, encoded) if encoded else None

    def lookup(self, key: bytes) -> Entry | Missing:
        """The newest entry of a key above the trees, None if deleted there, MISSING if unknown there."""
        entry = self.active.rows.get(key, MISSING)
        if entry is not MISSING:
            return entry
        if self.active.hides(key):
            return None
        for frozen in reversed(self.frozen):
            entry = frozen.memtable.rows.get(key, MISSING)
            if entry is not MISSING:
                return entry
            if frozen.memtable.hides(key):
                return None
        return MISSING

    def lookup_many(self, keys: Sequence[bytes]) -> list[Entry | Missing]:
        """As `lookup` for each key."""
        memtables = [self.active, *(frozen.memtable for frozen in self.frozen)]
        if all(not memtable.ranges and memtable.rows.keys().isdisjoint(keys) for memtable in memtables):
            return [MISSING] * len(keys)
        return [self.lookup(key) for key in keys]

    def slices(self, start: bytes, stop: bytes, limit: int) -> list[Slice]:
        """The memtables as sources of a scan, newest first."""
        memtables = [self.active, *(frozen.memtable for frozen in reversed(self.frozen))]
        return [_slice(memtable, start, stop, limit) for memtable in memtables if memtable]


def _is_live(entry: object) -> bool:
    return entry is not None and type(entry) is not bytes and type(entry) is not Chunk


def _slice(memtable: Memtable, start: bytes, stop: bytes, limit: int) -> Slice:
    keys = memtable.keys_between(start, stop, limit)
    rows = [(key, DELETE if (entry := memtable.rows[key]) is None else PUT, entry) for key in keys]
    bound = keys[-1] + b"\0" if len(keys) == limit else stop
    return Slice(rows, bound, memtable.ranges)
