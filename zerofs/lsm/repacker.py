"""Repack: the frames that are still referred to move out of chunk SSTs that are mostly dead (decision 0009).

Ciphertext moves as it is; only that of a clone's source is sealed anew. Nothing is deleted here: once the new pointers
are flushed and merged, the registers of the old objects fall to nothing, and the collector does the rest.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import trio

from zerofs.errors import CorruptionError
from zerofs.lsm.chunk import Chunk
from zerofs.lsm.chunkwriter import ChunkWriter, put_chunk_sst
from zerofs.lsm.commits import Commits, Missing
from zerofs.lsm.directory import placed, read_directory
from zerofs.lsm.format.names import SstId
from zerofs.lsm.format.pointer import IN_SST, Pointer
from zerofs.lsm.format.register import Register, back_references, parse_back_reference
from zerofs.lsm.format.sst import DirectoryEntry
from zerofs.lsm.frames import origin_of, plan_spans
from zerofs.lsm.lookup import Found, Lookup
from zerofs.lsm.names import SstNames
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.sealing.work import open_chunks, seal_chunks
from zerofs.lsm.storage import Storage
from zerofs.lsm.versions import Versions
from zerofs.transform.frame import frame_nonce
from zerofs.units import MIB
from zerofs.world import Lane

PASS_SIZE_BYTES = 256 * MIB
"""Bytes that one pass moves, at most; one victim may be larger."""

SHARERS_AT_ONCE = 1024

FRAMES_AT_ONCE = 128
"""Looked up, and pointed to anew, before requests have their turn."""


Holder = tuple[Pointer, list[bytes]]
"""A frame's place, and the keys that point to it now; the first one is to stand in the directory."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Move:
    """A frame that moves: the keys that point to it, where it is, its ciphertext."""

    keys: list[bytes]
    pointer: Pointer
    frame: bytes


def choose_victims(
    registers: Mapping[SstId, Register], *, live_share: float, budget_bytes: int
) -> list[tuple[SstId, Register]]:
    """The SSTs of which less than `live_share` is live, the emptiest first, within the budget; at least one if any."""
    poor = [
        (sst, register)
        for sst, register in registers.items()
        if register.live_bytes < live_share * register.frame_bytes
    ]
    poor.sort(key=lambda item: (item[1].live_bytes / item[1].frame_bytes, item[0]))
    chosen: list[tuple[SstId, Register]] = []
    for sst, register in poor:
        if chosen and budget_bytes < register.live_bytes:
            break
        chosen.append((sst, register))
        budget_bytes -= register.live_bytes
    return chosen


class _Waiting:
    """Frames that were fetched and are not stored yet: they count like those of writers, as long as they wait here."""

    def __init__(self, chunk_writer: ChunkWriter) -> None:
        self._chunk_writer = chunk_writer
        self.moves: list[Move] = []
        self.size_bytes = 0

    def add(self, moves: Sequence[Move]) -> None:
        size_bytes = sum(len(move.frame) for move in moves)
        self.moves += moves
        self.size_bytes += size_bytes
        self._chunk_writer.pending_bytes += size_bytes

    def clear(self) -> None:
        self._chunk_writer.pending_bytes -= self.size_bytes
        self.moves, self.size_bytes = [], 0


class Repacker:
    """Owned by the one writer of the volume. One pass at a time."""

    def __init__(
        self,
        *,
        storage: Storage,
        options: LsmOptions,
        commits: Commits,
        chunk_writer: ChunkWriter,
        names: SstNames,
        versions: Versions,
        lookup: Lookup,
        committed: Callable[[], None],
    ) -> None:
        """`committed` is called after each commit."""
        self._storage = storage
        self._options = options
        self._commits = commits
        self._chunk_writer = chunk_writer
        self._names = names
        self._versions = versions
        self._lookup = lookup
        self._committed = committed
        self.commits = 0
        """How many commits repacks have made."""

    async def repack(self, victims: Sequence[tuple[SstId, Register]]) -> int:
        """Move what is referred to in the victims elsewhere; bytes of frames that moved.

        The new pointers are committed when this returns, durable by the next sync. Raises CorruptionError,
        UnavailableError; then part of the frames have moved, and all pointers are good.
        """
        moved = 0
        waiting = _Waiting(self._chunk_writer)
        try:
            for sst, register in victims:
                for batch in await self._live(sst, register):
                    waiting.add(await self._fetch(batch))
                    if waiting.size_bytes >= self._options.chunk_sst_size_bytes:
                        moved += await self._store(waiting.moves)
                        waiting.clear()
            if waiting.moves:
                moved += await self._store(waiting.moves)
        finally:
            waiting.clear()
        self._storage.metrics.add("repacked_bytes", moved)
        self._storage.metrics.add("repacked_ssts", len(victims))
        return moved

    async def _live(self, sst: SstId, register: Register) -> list[list[Holder]]:
        """Every frame that is referred to now, in batches of about a quarter of an SST."""
        batches: list[list[Holder]] = []
        size = 0
        sharers = await self._sharers(sst)
        entries = placed(await read_directory(self._storage, sst, register.frame_bytes))
        while group := list(itertools.islice(entries, FRAMES_AT_ONCE)):
            await trio.lowlevel.checkpoint()
            places = [_place_of(entry, sst, offset) for offset, entry in group]
            keys = [[entry.key, *sharers.get(offset, ())] for offset, entry in group]
            flat = list(itertools.chain.from_iterable(keys))
            now = dict(zip(flat, await self._lookup.find_many(flat), strict=True))
            for pointer, known in zip(places, keys, strict=True):
                holders = [key for key in known if _pointer_of(now[key]) == pointer]
                if not holders:
                    continue
                if not batches or size >= self._options.chunk_sst_size_bytes // 4:
                    batches.append([])
                    size = 0
                batches[-1].append((pointer, holders))
                size += pointer.length
        return batches

    async def _sharers(self, sst: SstId) -> dict[int, list[bytes]]:
        """The further keys of frames in a chunk SST, by offset. Some of them may point elsewhere by now."""
        sharers: dict[int, list[bytes]] = {}
        start, stop = back_references(sst)
        while start < stop:
            rows = await self._lookup.scan(start, stop, SHARERS_AT_ONCE)
            for row_key, _, _ in rows:
                offset, key = parse_back_reference(row_key)
                sharers.setdefault(offset, []).append(key)
            start = rows[-1][0] + b"\0" if len(rows) == SHARERS_AT_ONCE else stop
        return sharers

    async def _fetch(self, batch: Sequence[Holder]) -> list[Move]:
        moves: list[Move] = []
        wanted = [(position, pointer) for position, (pointer, _) in enumerate(batch)]
        for span in plan_spans(wanted, self._options.read_gap_bytes, self._options.read_span_bytes):
            origin = span.origin(self._storage)
            body = await origin.get_part(span.name, span.start, span.stop - span.start)
            for position, pointer in span.wanted:
                start = pointer.offset - span.start
                frame = body[start : start + pointer.length]
                if frame_nonce(frame) != pointer.nonce:
                    raise CorruptionError(f"{span.name} at byte {pointer.offset}: not the frame that its row names")
                moves.append(Move(keys=batch[position][1], pointer=pointer, frame=frame))
        return await self._resealed(moves) if batch and origin_of(self._storage, batch[0][0]).source else moves

    async def _resealed(self, moves: Sequence[Move]) -> list[Move]:
        """Frames of one object of a clone's source, made this volume's own: ciphertext is bound to its volume."""
        storage, origin = self._storage, origin_of(self._storage, moves[0].pointer)
        nonces = storage.nonces(len(moves))

        def work() -> list[bytes]:
            frames = [move.frame for move in moves]
            return seal_chunks(storage.sealers.chunk, open_chunks([origin.chunk] * len(frames), frames), nonces)

        try:
            frames = await storage.world.offload(Lane.CPU, work)
        except CorruptionError as error:
            raise CorruptionError(f"{moves[0].pointer.object_name}{origin.where}: {error}") from error
        return [replace(move, frame=frame) for move, frame in zip(moves, frames, strict=True)]

    async def _store(self, moves: Sequence[Move]) -> int:
        """One new chunk SST, and pointers to it."""
        moves = sorted(moves, key=lambda move: move.keys[0])
        firsts = [Chunk.at(move.keys[0], move.pointer, move.frame) for move in moves]
        for first, move in zip(firsts, moves, strict=True):
            first.nonce = frame_nonce(move.frame)  # a new one, if it was sealed anew
        # Flushes may go by before the last pointer is committed. Nothing is collected meanwhile: one turn at a time.
        await put_chunk_sst(self._storage, self._names, firsts)
        self._storage.world.reached("repack_after_sst_before_pointers")
        moved = 0
        for start in range(0, len(moves), FRAMES_AT_ONCE):
            group = slice(start, start + FRAMES_AT_ONCE)
            await trio.lowlevel.checkpoint()
            moved += await self._repoint(moves[group], firsts[group])
        return moved

    async def _repoint(self, moves: Sequence[Move], firsts: Sequence[Chunk]) -> int:
        """Commit the new pointers of frames that were stored anew, as far as they are referred to as they were."""
        others: list[Chunk] = []
        before: dict[bytes, Pointer] = {}
        for move, first in zip(moves, firsts, strict=True):
            assert first.pointer is not None, "it was stored just now"
            others += [Chunk.at(key, first.pointer) for key in move.keys[1:]]
            before.update(dict.fromkeys(move.keys, move.pointer))
        while True:
            version = self._versions.current
            in_trees = dict(zip(before, await self._lookup.find_many(list(before)), strict=True))
            if version is self._versions.current:
                break
        # atomic: the memtables are asked again, and nothing else changes between that and the commit
        still = {key for key, pointer in before.items() if self._now(key, in_trees[key]) == pointer}
        same = [chunk for chunk in (*firsts, *others) if chunk.key in still]
        if not same:
            return 0
        self._commits.repoint(same, [chunk for chunk in others if chunk.key in still])
        pointers = [pointer for chunk in same if (pointer := chunk.pointer) is not None]
        self._chunk_writer.hold(pointers[0])
        self.commits += 1
        self._committed()
        return sum(pointer.length for pointer in pointers)

    def _now(self, key: bytes, in_tree: Found) -> Pointer | None:
        """The pointer of a key in this instant. `in_tree`: what the current version's tree says."""
        entry = self._commits.lookup(key)
        return _pointer_of(in_tree if isinstance(entry, Missing) else entry)


def _pointer_of(found: Found) -> Pointer | None:
    if type(found) is Chunk:
        return found.pointer
    return found if type(found) is Pointer else None


def _place_of(entry: DirectoryEntry, sst: SstId, offset: int) -> Pointer:
    return Pointer(IN_SST, sst[0], sst[1], offset, entry.length, entry.size, entry.nonce)
