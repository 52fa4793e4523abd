"""The bytes of a regular file, whether they stand in the inode's row or in chunks, and the way from one to the other.

A file of at most INLINE_LIMIT bytes stands in the row, a larger one in chunks; every function here keeps it so. Waiting
functions only read; staging functions never wait. Times, privileges, quota and commits are the verbs'.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zerofs.errors import CorruptionError
from zerofs.fs import chunks
from zerofs.fs.chunking import is_zero
from zerofs.fs.chunks import Data
from zerofs.fs.format.keys import chunk_key
from zerofs.fs.format.records import INLINE_LIMIT, Inode, chunks_of
from zerofs.fs.locks import InodeLocks
from zerofs.fs.ports import Base, Engine, KeyRange, Row, Value
from zerofs.fs.usage import charge, charge_for
from zerofs.lsm.chunk import Shared
from zerofs.units import CHUNK_SIZE

_UNLOCKED_READS = 3


async def read(engine: Engine, locks: InodeLocks, node: Inode, offset: int, size: int) -> Sequence[Data]:
    """Up to `size` bytes at `offset`, in pieces, fewer at the end of the file, as they were at one moment.

    Takes no lock: if the file was changed while chunks were fetched, they are fetched again; a file that changes all
    the time is locked in the end. Raises CorruptionError and UnavailableError, and never gives zeros instead.
    """
    for _ in range(_UNLOCKED_READS):
        version = node.version
        end = min(offset + size, node.size)
        if end <= offset:
            return ()
        if node.size <= INLINE_LIMIT:
            return (node.content[offset:end],)
        values = await chunks.fetch(engine, node, offset, end - offset)
        if node.version == version:
            return chunks.assemble(node, offset, end - offset, values)
    with await locks.hold(node.number):
        end = min(offset + size, node.size)
        if end <= offset or node.size <= INLINE_LIMIT:
            return (node.content[offset:end],)
        values = await chunks.fetch(engine, node, offset, end - offset)
        return chunks.assemble(node, offset, end - offset, values)


async def existing(engine: Engine, node: Inode, offset: int, size: int, data: Data = b"") -> dict[int, Base]:
    """What is to be known of the chunks that will be changed; see `chunks.existing`. With `data`, to be read last."""
    if node.size <= INLINE_LIMIT:
        return {}
    return await chunks.existing(engine, node, offset, size, data)


def growth_of_write(node: Inode, offset: int, size: int, found: Mapping[int, Base]) -> int:
    """By how much, at most, a write lets the file count more for the quota, bytes."""
    end = offset + size
    touched = (end - 1) // CHUNK_SIZE - offset // CHUNK_SIZE + 1
    spilled = 1 if node.content and offset >= CHUNK_SIZE else 0
    return charge_for(max(node.size, end), node.allocated + spilled + touched - len(found)) - charge(node)


def stage_write(rows: list[Row], node: Inode, offset: int, data: bytes | memoryview, found: Mapping[int, Base]) -> None:
    """Put `data`, which is not empty, at `offset`; what lies between it and the old end becomes zeros."""
    end = offset + len(data)
    if node.size <= INLINE_LIMIT:
        if end <= INLINE_LIMIT:
            old = node.content
            if len(old) < offset:
                old += bytes(offset - len(old))
            node.content = b"".join((old[:offset], data, old[end:]))
            node.size = len(node.content)
            node.version += 1
            return
        found = _spill(rows, node, rewritten=offset < CHUNK_SIZE)
    node.allocated += chunks.stage_write(rows, node, offset, data, found)
    node.size = max(node.size, end)
    node.version += 1


def require_no_loss(node: Inode, first: int, values: Sequence[object]) -> None:
    """Raise CorruptionError when one of the chunks from index `first` on is None in a file without holes."""
    for index, value in enumerate(values, first):
        if value is None:
            chunks.require_hole(node, index)


def stage_share(
    rows: list[Row], node: Inode, first: int, values: Sequence[Shared | bytes | None], found: Mapping[int, Base]
) -> None:
    """Put whole chunks, from index `first` on, in the place of what was `found` there; None is a hole."""
    if node.size <= INLINE_LIMIT:
        found = _spill(rows, node, rewritten=first == 0)
    for index, value in enumerate(values, first):
        if value is not None or index in found:
            rows.append((chunk_key(node.number, index), value))
        node.allocated += (value is not None) - (index in found)
    node.size = max(node.size, (first + len(values)) * CHUNK_SIZE)
    node.version += 1


def _spill(rows: list[Row], node: Inode, *, rewritten: bool) -> dict[int, Base]:
    """Move the bytes from the row to chunk 0, unless a write is about to put that anyhow. Returns what exists then."""
    content = node.content
    node.content = b""
    if is_zero(content):
        return {}
    node.allocated = 1
    if not rewritten:
        rows.append((chunk_key(node.number, 0), content))
    return {0: content}


class Resize(NamedTuple):
    """What `stage_resize` has to know."""

    size: int
    last: Value | None = None
    """The chunk that the new end falls into."""
    kept: int = 0
    """How many chunks remain."""


async def plan_resize(engine: Engine, node: Inode, size: int) -> Resize:
    """Find out what a change of the size needs. At most one chunk is read."""
    if node.size <= INLINE_LIMIT or size >= node.size or not size:
        return Resize(size)
    if size > INLINE_LIMIT:
        return Resize(size, *(await chunks.kept_by_cut(engine, node, size)))
    first = await engine.get(chunk_key(node.number, 0))
    if first is None and node.allocated == chunks_of(node.size):
        raise CorruptionError(f"inode {node.number}: chunk 0 is missing, and the file has no holes")
    return Resize(size, first)


def growth_of_resize(node: Inode, size: int) -> int:
    """By how much, at most, a new size lets the file count more for the quota, bytes."""
    return charge_for(size, node.allocated + (1 if node.content else 0)) - charge(node)


async def growth_of_allocation(engine: Engine, node: Inode, start: int, stop: int, size: int) -> int:
    """By how much more the file would count if all of [start, stop) were written and its size were `size`, bytes."""
    if node.size <= INLINE_LIMIT:
        there = 1 if node.content else 0
        missing = chunks_of(stop) - start // CHUNK_SIZE - (there if start < CHUNK_SIZE else 0)
        return charge_for(max(size, stop), there + missing) - charge(node)
    first, last = start // CHUNK_SIZE, chunks_of(stop)
    missing = last - first - await chunks.count_known(engine, node, first, last)
    return charge_for(max(size, stop), node.allocated + missing) - charge(node)


class Zeroing(NamedTuple):
    """What `stage_zeroing` has to know: a range that lies within the file."""

    start: int
    stop: int
    edges: Mapping[int, Value] = {}
    """The chunks of which a part stays, as far as they exist."""
    whole: range = range(0)
    """The chunks of which nothing stays."""
    present: int = 0
    """How many of those exist."""


async def plan_zeroing(engine: Engine, node: Inode, start: int, stop: int) -> Zeroing:
    """Find out what it takes to make [start, stop), as far as it lies within the file, zeros. Two chunks are read."""
    stop = min(stop, node.size)
    if start >= stop:
        return Zeroing(stop, stop)
    if node.size <= INLINE_LIMIT:
        return Zeroing(start, stop)
    return Zeroing(start, stop, *(await chunks.around(engine, node, start, stop)))


def stage_zeroing(rows: list[Row], ranges: list[KeyRange], node: Inode, zeroing: Zeroing) -> None:
    """Make the range zeros; what held nothing else becomes a hole."""
    start, stop = zeroing.start, zeroing.stop
    if start >= stop:
        return
    node.version += 1
    if node.size <= INLINE_LIMIT:
        node.content = node.content[:start] + bytes(stop - start) + node.content[stop:]
        return
    chunks.stage_delete(rows, ranges, node, zeroing.whole)
    node.allocated -= zeroing.present
    for index, value in zeroing.edges.items():
        first, last = max(start, index * CHUNK_SIZE), min(stop, (index + 1) * CHUNK_SIZE)
        node.allocated += chunks.stage_write(rows, node, first, bytes(last - first), {index: value})


def stage_resize(rows: list[Row], ranges: list[KeyRange], node: Inode, resize: Resize) -> None:
    """Give the file its new size: the rest goes, or zeros come."""
    size = resize.size
    if node.size <= INLINE_LIMIT:
        if size <= INLINE_LIMIT:
            node.content = node.content[:size].ljust(size, b"\0")
        else:
            _spill(rows, node, rewritten=False)
    elif size <= INLINE_LIMIT:
        node.content = chunks.head(resize.last, node, size)
        chunks.stage_delete(rows, ranges, node, chunks.from_index(node, 0))
        node.allocated = 0
    elif size < node.size:
        chunks.stage_delete(rows, ranges, node, chunks.from_index(node, chunks_of(size)))
        node.allocated = resize.kept + chunks.stage_cut(rows, node, size, resize.last)
    node.size = size
    node.version += 1
