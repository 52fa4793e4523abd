"""A version of the volume opened to be examined: rows and pointers of one instant, without an engine or a service.

Nothing is written, nobody is fenced, and nothing is remembered of what was seen.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple, final

from zerofs.errors import CorruptionError
from zerofs.lsm.chunk import Chunk
from zerofs.lsm.commits import Commits, Missing
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.pointer import Pointer, decode_pointer
from zerofs.lsm.format.rows import POINTER
from zerofs.lsm.format.trees import CHUNK_PREFIX, tree_of
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.memtable import Memtable
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.reader import TreeView, merge_slices
from zerofs.lsm.recovery import Recovered, open_checkpoint, open_reader
from zerofs.lsm.sst import SstReader
from zerofs.lsm.storage import Storage
from zerofs.lsm.witness import Seen

SLICE_ROWS = 256

CHUNK_RANGE = (CHUNK_PREFIX, CHUNK_PREFIX[:-1] + bytes([CHUNK_PREFIX[-1] + 1]))


@final
class ChunkRow(NamedTuple):
    """One chunk: its key, and where its frame lies (with offset, length and size)."""

    key: bytes
    pointer: Pointer


class View:
    """All rows of one version, and of the WAL above it."""

    def __init__(self, storage: Storage, recovered: Recovered) -> None:
        self.storage = storage
        self.manifest: Manifest = recovered.manifest
        self.memtable: Memtable = recovered.memtable
        self._commits = Commits(None, recovered.memtable, recovered.last_seqno, LsmOptions())
        ssts = SstReader(storage, recovered.manifest.tokens)
        self._trees = {tree.prefix: TreeView(tree, ssts) for tree in recovered.manifest.trees}

    async def get(self, key: bytes) -> bytes | None:
        """The value of a key that is no chunk's. Raises CorruptionError, UnavailableError."""
        entry = self._commits.lookup(key)
        if isinstance(entry, Missing):
            row = await self._trees[tree_of(key)].get(key)
            return None if row is None else row[2]
        assert entry is None or isinstance(entry, bytes), "replayed rows are encoded"
        return entry

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """At most `limit` rows with start <= key < stop, in key order, none of them a chunk's."""
        rows = await self._scan(start, stop, limit)
        return [(key, value) for key, _, value in rows if isinstance(value, bytes)]

    async def chunks(
        self, start: bytes = CHUNK_RANGE[0], stop: bytes = CHUNK_RANGE[1]
    ) -> AsyncIterator[list[ChunkRow]]:
        """The chunks with start <= key < stop, in key order, page by page. Raises CorruptionError, UnavailableError."""
        while start < stop:
            rows = await self._scan(start, stop, SLICE_ROWS)
            if rows:
                yield [_chunk_row(key, kind, value) for key, kind, value in rows]
            if len(rows) < SLICE_ROWS:
                return
            start = rows[-1][0] + b"\0"

    async def _scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, int, object]]:
        found: list[tuple[bytes, int, object]] = []
        tree = self._trees[tree_of(start)]
        while start < stop and len(found) < limit:
            count = min(SLICE_ROWS, limit - len(found))
            slices = self._commits.slices(start, stop, count)
            slices.extend(await tree.slices(start, stop, count))
            rows, start = merge_slices(slices, stop)
            found.extend(rows)
        return found[:limit]


async def open_view(
    storage: Storage, checkpoint: str | None, seen: Seen | None, *, accept_rollback: bool = False
) -> View:
    """The volume as it is now, or as it was at a checkpoint.

    Raises NoVolumeError, CheckpointError, CorruptionError, RollbackError, UnavailableError.
    """
    manifests = ManifestStore(storage)
    with storage.opening():
        if checkpoint is None:
            recovered = await open_reader(storage, manifests, seen, accept_rollback=accept_rollback)
        else:
            recovered = await open_checkpoint(storage, manifests, checkpoint, seen, accept_rollback=accept_rollback)
    return View(storage, recovered)


def _chunk_row(key: bytes, kind: int, value: object) -> ChunkRow:
    if isinstance(value, Chunk):
        assert value.pointer is not None, "a replayed chunk is in a stored object"
        return ChunkRow(key, value.pointer)
    if kind != POINTER or not isinstance(value, bytes):
        raise CorruptionError("a row of the chunk tree is no pointer")
    return ChunkRow(key, decode_pointer(value))
