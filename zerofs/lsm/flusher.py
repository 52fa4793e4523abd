"""A frozen memtable becomes runs: frames out of the WAL, rows into meta SSTs, then one manifest (0004, 0009)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from zerofs.lsm.chunk import Chunk
from zerofs.lsm.chunkwriter import put_chunk_sst
from zerofs.lsm.compaction.cuts import divide
from zerofs.lsm.format.manifest import Manifest, Run, Tree
from zerofs.lsm.format.names import SstId
from zerofs.lsm.format.register import referred_bytes
from zerofs.lsm.format.rows import DELETE, Row, sort_in_steps, split_rows
from zerofs.lsm.format.trees import CHUNK_PREFIX, SPACE_PREFIX
from zerofs.lsm.memtable import Memtable
from zerofs.lsm.names import SstNames
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.registers import Changed, KnownRegisters, RegisterView
from zerofs.lsm.runs import RunWriter
from zerofs.lsm.storage import Storage
from zerofs.lsm.versions import Versions
from zerofs.lsm.wal import encode_entries
from zerofs.world import Lane


@dataclass(slots=True, kw_only=True)
class Frozen:
    """A memtable that takes no more rows, and the WAL object up to which it holds everything."""

    memtable: Memtable
    last_seqno: int
    generation: int = 0
    """Its number among the memtables of this writer."""
    wal_id: int = 0
    wal_put_id: bytes = b""
    """Empty until that WAL object is stored; only then may the memtable be flushed."""


class Flusher:
    """Turns frozen memtables into a new version, one after the other, oldest first."""

    def __init__(
        self, storage: Storage, versions: Versions, names: SstNames, options: LsmOptions, known: KnownRegisters
    ) -> None:
        self._storage = storage
        self._versions = versions
        self._names = names
        self._options = options
        self._known = known
        self._runs = RunWriter(storage, names, options)

    async def flush(self, frozen: Frozen, *, closed: bool, in_force: Callable[[], None]) -> None:
        """Store a frozen memtable whose WAL objects are stored, and make the version that takes it in.

        `in_force` is called in the instant in which that version becomes the current one. May be called again after
        any error. Raises FencedError, CorruptionError, UnavailableError; the memtable is unchanged then.
        """
        storage, names = self._storage, self._names
        await self._move_frames_out_of_wal(frozen.memtable)
        storage.world.reached("flush_after_frames_before_runs")
        runs: dict[bytes, Run] = {}
        minted: list[SstId] = []
        referred: dict[SstId, int] = {}
        changed: Changed = {}
        try:
            for tree in self._versions.current.trees:
                part = await storage.world.offload(Lane.CPU, _encoded, frozen.memtable, tree, self._options)
                referred |= part.referred
                if part.ssts or part.ranges:
                    token = self._versions.current.token
                    runs[tree.prefix] = await self._runs.put_parts(token, part.ssts, part.ranges, minted)
                await storage.world.offload(Lane.CPU, part.dismantle)
        except BaseException:
            names.settle(minted)
            raise
        storage.world.reached("flush_after_runs_before_manifest")

        async def change(current: Manifest) -> Manifest:
            nonlocal changed
            rows, ranges, changed = await RegisterView(storage, current).changed(referred, names.sizes)
            after = replace(
                current,
                wal_mark=frozen.wal_id,
                wal_mark_put_id=frozen.wal_put_id,
                last_seqno=frozen.last_seqno,
                trees=tuple(tree.with_newest(runs.get(tree.prefix)) for tree in current.trees),
            )
            if rows:
                registers = await self._runs.put(current.token, rows, ranges, minted)
                after = after.with_trees(after.tree(SPACE_PREFIX).with_newest(registers))
            return after

        def settled(_: Manifest) -> None:
            names.flushed(frozen.generation)
            self._known.note(changed)
            in_force()

        await self._versions.edit(change, minted=minted, closed=closed, in_force=settled)

    async def _move_frames_out_of_wal(self, memtable: Memtable) -> None:
        """The frames that WAL objects carried, still in memory, into chunk SSTs: ciphertext as it is."""
        carried = await self._storage.world.offload(Lane.CPU, _carried, memtable)
        batch: list[Chunk] = []
        size = 0
        for chunk in carried:
            batch.append(chunk)
            size += len(chunk.frame or b"")
            if size >= self._options.chunk_sst_size_bytes:
                await put_chunk_sst(self._storage, self._names, batch)
                batch, size = [], 0
        if batch:
            await put_chunk_sst(self._storage, self._names, batch)


@dataclass(slots=True, kw_only=True)
class _Encoded:
    """What a memtable adds to one tree."""

    ssts: list[list[Row]]
    """The rows of each SST, in key order."""
    ranges: KeyRanges
    referred: dict[SstId, int]

    def dismantle(self) -> None:
        """See Memtable.dismantle."""
        for rows in self.ssts:
            while rows:
                rows.pop()


def _encoded(memtable: Memtable, tree: Tree, options: LsmOptions) -> _Encoded:
    """The rows of a frozen memtable that belong to a tree. Runs in a thread: nobody changes them.

    In steps, none of which holds the interpreter for long: requests are answered meanwhile.
    """
    entries, prefix = memtable.rows, tree.prefix
    rows = encode_entries(sort_in_steps([key for key in entries if key.startswith(prefix)]), entries, {})
    referred = referred_bytes(rows) if prefix == CHUNK_PREFIX else {}
    ranges = memtable.ranges.within(prefix, prefix[:-1] + bytes((prefix[-1] + 1,)))
    if not tree.runs:
        # Nothing older is left that a delete could hide.
        rows = [row for row in rows if row[1] != DELETE]
        ranges = KeyRanges()
    target = options.meta_sst_size_bytes
    ssts = [sst for part in divide(rows, tree.runs) for sst in split_rows(part, target)]
    return _Encoded(ssts=ssts, ranges=ranges, referred=referred)


def _carried(memtable: Memtable) -> list[Chunk]:
    """The chunks whose frames are in WAL objects, in key order. As `_encoded`."""
    return sorted((chunk for chunk in memtable.chunks() if chunk.frame is not None), key=_chunk_key)


def _chunk_key(chunk: Chunk) -> bytes:
    return chunk.key
