"""Meta SST and chunk SST: what stands after the 64-byte header (docs/format/objects.md, decision 0002).

    meta SST    header ‖ block frames ‖ index frame           sections: blocks, index
    chunk SST   header ‖ chunk frames ‖ directory frame       sections: chunks, directory

    index, opened (varints, little-endian):
        row count
        block count, then for each block: frame length, last key (length, bytes)
        range delete count, then for each: start (length, bytes), stop (length, bytes)
        bloom filter (length, bytes)

    directory, opened:
        frame count, then for each: key (length, bytes), frame length, size when opened, nonce (24 bytes)

Blocks and frames lie back to back, so lengths give offsets. A frame's place in AAD is built by `place`: object name,
offset, and the epoch token (for a directory: the put-id of its object); that of a chunk frame is empty, because its
nonce identifies it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from zerofs.errors import CorruptionError
from zerofs.lsm.format.bloom import MAX_FILTER_SIZE, check_bloom
from zerofs.lsm.format.header import HEADER_SIZE
from zerofs.lsm.format.pointer import NONCE_SIZE
from zerofs.lsm.format.rows import MAX_KEY_SIZE
from zerofs.lsm.ranges import KeyRanges
from zerofs.units import CHUNK_SIZE, GIB, MIB
from zerofs.wire import Reader, Writer

MAX_BLOCK_SIZE = 4 * MIB
"""Bytes of a block when opened: one 32 KiB target, plus one row of the largest value."""

MAX_INDEX_SIZE = 256 * MIB
MAX_DIRECTORY_SIZE = 256 * MIB
MAX_OBJECT_SIZE = GIB
MAX_BLOCKS = 1 << 20
MAX_FRAMES = 1 << 20
MAX_RANGES = 1 << 22


def place(name: str, offset: int, token: bytes) -> bytes:
    """Where a sealed section stands: what its AAD binds besides volume, kind and key id."""
    return name.encode("ascii") + b"\0" + offset.to_bytes(8, "little") + token


@dataclass(slots=True, frozen=True, kw_only=True)
class SstIndex:
    """The opened index of a meta SST: block i holds the keys in (last_keys[i-1], last_keys[i]]."""

    row_count: int
    last_keys: list[bytes]
    offsets: list[int]
    """Of each block, and of the end of the last one; bytes from the start of the object."""
    range_deletes: KeyRanges
    bloom: bytes

    @property
    def size_bytes(self) -> int:
        """What a cache should charge for this index."""
        return (
            len(self.bloom) + sum(map(len, self.last_keys)) + 130 * len(self.last_keys) + 200 * len(self.range_deletes)
        )

    def block_for(self, key: bytes) -> int | None:
        """The one block that can hold the key."""
        index = bisect_left(self.last_keys, key)
        return index if index < len(self.last_keys) else None


def encode_index(
    *, row_count: int, blocks: Sequence[tuple[int, bytes]], range_deletes: KeyRanges, bloom: bytes
) -> bytes:
    """An index from (frame length, last key) of each block in order."""
    out = Writer().uvarint(row_count).uvarint(len(blocks))
    for length, last_key in blocks:
        out.uvarint(length).sized(last_key)
    out.uvarint(len(range_deletes))
    for start, stop in range_deletes:
        out.sized(start).sized(stop)
    return out.sized(bloom).getvalue()


def decode_index(data: bytes, *, blocks_length: int, what: str) -> SstIndex:
    """The index of an SST whose blocks take `blocks_length` bytes. Raises CorruptionError naming `what`."""
    reader = Reader(data, what)
    row_count = reader.uvarint()
    lengths: list[int] = []
    last_keys: list[bytes] = []
    for _ in range(reader.bounded(MAX_BLOCKS)):
        lengths.append(reader.bounded(MAX_BLOCK_SIZE))
        last_keys.append(reader.sized(MAX_KEY_SIZE))
    ranges = KeyRanges()
    for _ in range(reader.bounded(MAX_RANGES)):
        ranges.add(reader.sized(MAX_KEY_SIZE), reader.sized(MAX_KEY_SIZE))
    bloom = reader.sized(MAX_FILTER_SIZE + 1)
    reader.expect_end()
    check_bloom(bloom, what)
    if sum(lengths) != blocks_length or last_keys != sorted(set(last_keys)):
        raise CorruptionError(f"{what}: block table does not fit the object")
    return SstIndex(
        row_count=row_count,
        last_keys=last_keys,
        offsets=list(accumulate(lengths, initial=HEADER_SIZE)),
        range_deletes=ranges,
        bloom=bloom,
    )


class DirectoryEntry(NamedTuple):
    """One frame of a chunk SST: the key it was written under, its length, its size when opened, its nonce."""

    key: bytes
    length: int
    size: int
    nonce: bytes


def encode_directory(entries: Sequence[DirectoryEntry]) -> bytes:
    """The directory of a chunk SST, entries in the order of the frames."""
    out = Writer().uvarint(len(entries))
    for entry in entries:
        out.sized(entry.key).uvarint(entry.length).uvarint(entry.size).raw(entry.nonce)
    return out.getvalue()


def decode_directory(data: bytes, *, frames_length: int, what: str) -> list[DirectoryEntry]:
    """The directory of a chunk SST whose frames take `frames_length` bytes. Raises CorruptionError naming `what`."""
    reader = Reader(data, what)
    entries = [
        DirectoryEntry(
            reader.sized(MAX_KEY_SIZE),
            reader.bounded(2 * CHUNK_SIZE),
            reader.bounded(CHUNK_SIZE),
            reader.raw(NONCE_SIZE),
        )
        for _ in range(reader.bounded(MAX_FRAMES))
    ]
    reader.expect_end()
    if sum(entry.length for entry in entries) != frames_length:
        raise CorruptionError(f"{what}: directory does not fit the object")
    return entries
