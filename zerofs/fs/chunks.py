"""File data in 32 KiB chunks: reading, writing, cutting, counting.

Not the place of small files (they stand in the inode's row; see `content`), of times, locks or commits. Functions that
wait only read; functions that stage only change what is theirs, and never wait, so that a verb can call them between
its last await and its commit.

A partly written chunk is gathered in place, in the engine's memtable: a `DirtyChunk`.
"""

from collections.abc import Mapping
from typing import Final

from zerofs.errors import CorruptionError
from zerofs.fs.chunking import Piece, extent_in_chunk, is_zero, pieces
from zerofs.fs.format.keys import chunk_key, chunk_range
from zerofs.fs.format.records import Inode, chunks_of
from zerofs.fs.ports import Base, Engine, KeyRange, Row, Value
from zerofs.lsm.patch import Patch
from zerofs.units import CHUNK_SIZE

PRESENT: Final = b""
"""Stands for a chunk that exists and whose bytes do not matter."""

POINT_DELETES_MAX = 16
"""Up to so many chunks are deleted one by one, more with one range."""

_SCAN_LIMIT = 4096


Data = bytes | bytearray | memoryview
"""Bytes that are read, or about to be written."""


class DirtyChunk:
    """A chunk that expects more writes: a live value, changed in place, encoded at the cut. Never all zeros."""

    __slots__ = ("buffer",)

    def __init__(self, data: Data) -> None:
        self.buffer = bytearray(data)

    @property
    def size_bytes(self) -> int:
        """Memory that it takes."""
        return len(self.buffer)

    def encode(self) -> bytes:
        """The chunk as of now."""
        return bytes(self.buffer)


def _bytes_of(value: Value, node: Inode, index: int) -> Data:
    if isinstance(value, bytes | memoryview):
        return value
    if isinstance(value, DirtyChunk):
        return value.buffer
    raise CorruptionError(f"inode {node.number}: chunk {index} holds {type(value).__name__}")


def require_hole(node: Inode, index: int) -> None:
    """Raise CorruptionError for a missing chunk of a file that has no holes: that is lost data."""
    if node.allocated == chunks_of(node.size):
        raise CorruptionError(f"inode {node.number}: chunk {index} is missing, and the file has no holes")


def keys_of(node: Inode, start: int, stop: int) -> list[bytes]:
    """The keys of the chunks that [start, stop) touches. The range must not be empty."""
    return [chunk_key(node.number, index) for index in range(start // CHUNK_SIZE, (stop - 1) // CHUNK_SIZE + 1)]


async def fetch(engine: Engine, node: Inode, offset: int, size: int) -> list[Value | None]:
    """The chunks that [offset, offset + size) touches, in order; None for a hole. The range must not be empty."""
    keys = keys_of(node, offset, offset + size)
    return [await engine.get(keys[0])] if len(keys) == 1 else list(await engine.multi_get(keys))


def assemble(node: Inode, offset: int, size: int, values: list[Value | None]) -> list[Data]:
    """The bytes of a range that lies within the file, in pieces, from what `fetch` gave. Whole chunks are not copied.

    Raises CorruptionError when a chunk is missing from a file without holes: that is lost data, not zeros.
    """
    parts: list[Data] = []
    for piece, value in zip(pieces(offset, size), values, strict=True):
        wanted = piece.stop - piece.start
        if value is None:
            require_hole(node, piece.chunk)
            parts.append(bytes(wanted))
            continue
        part = _bytes_of(value, node, piece.chunk)[piece.start : piece.stop]
        parts.append(part)
        if len(part) < wanted:
            parts.append(bytes(wanted - len(part)))
    return parts


def _replaces(piece: Piece, size_bytes: int) -> bool:
    """Whether a write of the piece leaves nothing of what a file of that size has in the chunk."""
    return piece.start == 0 and piece.stop >= extent_in_chunk(size_bytes, piece.chunk)


async def existing(engine: Engine, node: Inode, offset: int, size: int, data: Data = b"") -> dict[int, Base]:
    """What a write to the range changes, by index, as far as it exists: chunks to be written to, or PRESENT.

    PRESENT stands for one that is replaced whole. Existence is asked for only where the file has holes. `data`: what
    will be written, needed if it may leave a part of a chunk. Such a chunk is read if it could become all zeros, else
    it may come as a patch, which is good for what is committed before any await.
    """
    known = chunks_of(node.size)
    dense = node.allocated == known
    found: dict[int, Base] = {}
    parts: list[Piece] = []
    for piece in pieces(offset, size):
        index = piece.chunk
        if index >= known:
            break
        if not _replaces(piece, node.size):
            parts.append(piece)
        elif dense or await engine.contains(chunk_key(node.number, index)):
            found[index] = PRESENT
    if parts:
        await _find_bases(engine, node, parts, data, found)
    return found


async def _find_bases(engine: Engine, node: Inode, parts: list[Piece], data: Data, found: dict[int, Base]) -> None:
    zeros = [part for part in parts if is_zero(data[part.offset : part.offset + part.stop - part.start])]
    others = [part for part in parts if part not in zeros]
    values: list[Base | None] = [await engine.get(chunk_key(node.number, part.chunk)) for part in zeros]
    if others:
        values += await engine.bases([chunk_key(node.number, part.chunk) for part in others])
    for part, value in zip([*zeros, *others], values, strict=True):
        if value is None:
            require_hole(node, part.chunk)
        else:
            found[part.chunk] = value


def stage_write(rows: list[Row], node: Inode, offset: int, data: bytes | memoryview, found: Mapping[int, Base]) -> int:
    """Put `data` at `offset`, over what `existing` found. Returns by how many the allocated chunks grew.

    Whole chunks of a view are put as views: the engine knows whether it may keep them.
    """
    grown = 0
    number = node.number
    whole = len(data)
    for index, start, stop, done in pieces(offset, whole):
        key = chunk_key(number, index)
        part = data if stop - start == whole else data[done : done + stop - start]
        if stop - start != CHUNK_SIZE:
            part = bytes(part)
        old = found.get(index)
        if old is None:
            if not is_zero(part):
                rows.append((key, b"".join((bytes(start), part)) if start else part))
                grown += 1
        elif old is PRESENT:
            grown += _stage(rows, key, part, is_zero(part))
        elif isinstance(old, Patch):
            old.write(start, bytes(part))
            rows.append((key, old.whole() or old))
        else:
            chunk = old if isinstance(old, DirtyChunk) else DirtyChunk(_bytes_of(old, node, index))
            buffer = chunk.buffer
            length = len(buffer)
            if length < start:
                buffer.extend(bytes(start - length))
            buffer[start:stop] = part
            full = length < CHUNK_SIZE == len(buffer)
            grown += _stage(rows, key, bytes(buffer) if full else chunk, is_zero(part) and is_zero(buffer))
    return grown


def _stage(rows: list[Row], key: bytes, value: Value, zero: bool) -> int:
    rows.append((key, None if zero else value))
    return -1 if zero else 0


async def count(engine: Engine, node: Inode, first: int, stop: int) -> int:
    """How many chunks with indexes in [first, stop) exist."""
    start_key, stop_key = chunk_key(node.number, first), chunk_key(node.number, stop)
    total = 0
    while True:
        page = await engine.scan(start_key, stop_key, _SCAN_LIMIT)
        total += len(page)
        if len(page) < _SCAN_LIMIT:
            return total
        start_key = page[-1][0] + b"\0"


async def count_known(engine: Engine, node: Inode, first: int, stop: int) -> int:
    """As `count`, without asking for chunks of a file that has no holes, or that lie behind its end."""
    stop = min(stop, chunks_of(node.size))
    if first >= stop:
        return 0
    if node.allocated == chunks_of(node.size):
        return stop - first
    return await count(engine, node, first, stop)


async def around(engine: Engine, node: Inode, start: int, stop: int) -> tuple[dict[int, Value], range, int]:
    """What the range [start, stop) of a file, within its size, leaves of the chunks that it touches.

    (those of which it leaves a part, by index, as far as they exist; those of which it leaves nothing; how many of the
    latter exist).
    """
    first, last = start // CHUNK_SIZE, chunks_of(stop)
    kept = dict.fromkeys(
        index
        for index in (first, last - 1)
        if start > index * CHUNK_SIZE or stop < index * CHUNK_SIZE + extent_in_chunk(node.size, index)
    )
    whole = range(first + (first in kept), last - (last - 1 in kept and last - 1 > first))
    edges: dict[int, Value] = {}
    for index in kept:
        value = await engine.get(chunk_key(node.number, index))
        if value is None:
            require_hole(node, index)
        else:
            edges[index] = value
    return edges, whole, await count_known(engine, node, whole.start, whole.stop)


async def kept_by_cut(engine: Engine, node: Inode, size: int) -> tuple[Value | None, int]:
    """(the last chunk if it must be shortened, how many chunks remain) of a cut to `size`, which is smaller."""
    known = chunks_of(node.size)
    kept = chunks_of(size)
    dense = node.allocated == known
    last = None
    if size % CHUNK_SIZE:
        last = await engine.get(chunk_key(node.number, kept - 1))
        if last is None and dense:
            require_hole(node, kept - 1)
    if dense:
        return last, kept
    if kept < known - kept:
        return last, await count(engine, node, 0, kept)
    return last, node.allocated - await count(engine, node, kept, known)


def stage_cut(rows: list[Row], node: Inode, size: int, last: Value | None) -> int:
    """Shorten the last chunk that remains. Returns by how many the allocated chunks grew: 0 or -1."""
    index = chunks_of(size) - 1
    keep = extent_in_chunk(size, index)
    if last is None or len(_bytes_of(last, node, index)) <= keep:
        return 0
    short = bytes(_bytes_of(last, node, index)[:keep])
    return _stage(rows, chunk_key(node.number, index), short, is_zero(short))


def head(value: Value | None, node: Inode, size: int) -> bytes:
    """The first `size` bytes of chunk 0, of which `value` is what is stored."""
    return bytes(_bytes_of(value, node, 0)[:size] if value is not None else b"").ljust(size, b"\0")


def from_index(node: Inode, first: int) -> range:
    """The chunks from index `first` to the end of the file."""
    return range(first, max(first, chunks_of(node.size)))


def stage_delete(rows: list[Row], ranges: list[KeyRange], node: Inode, indexes: range) -> None:
    """Delete the chunks of these indexes, as far as they exist."""
    if not node.allocated or not indexes:
        return
    if len(indexes) <= POINT_DELETES_MAX:
        rows.extend((chunk_key(node.number, index), None) for index in indexes)
    else:
        start, stop = chunk_range(node.number, indexes.start)
        ranges.append((start, stop if indexes.stop == chunks_of(node.size) else chunk_key(node.number, indexes.stop)))


async def find_data(engine: Engine, node: Inode, offset: int) -> int | None:
    """The first byte at or behind `offset` that is no hole, None if only a hole follows."""
    index = offset // CHUNK_SIZE
    if node.allocated == chunks_of(node.size):
        return offset
    page = await engine.scan(*chunk_range(node.number, index), 1)
    if not page:
        return None
    return max(offset, _index_of(page[0][0]) * CHUNK_SIZE)


async def find_hole(engine: Engine, node: Inode, offset: int) -> int:
    """The first byte at or behind `offset` that is in a hole; the end of the file counts as one."""
    index = offset // CHUNK_SIZE
    if node.allocated == chunks_of(node.size):
        return node.size
    while True:
        page = await engine.scan(*chunk_range(node.number, index), _SCAN_LIMIT)
        for key, _ in page:
            if _index_of(key) != index:
                return max(offset, index * CHUNK_SIZE)
            index += 1
        if len(page) < _SCAN_LIMIT:
            return min(max(offset, index * CHUNK_SIZE), node.size)


def _index_of(key: bytes) -> int:
    return int.from_bytes(key[-8:], "big")
