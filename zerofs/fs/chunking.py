"""Byte ranges of a file and the 32 KiB chunks they fall into: arithmetic, without inodes or engine."""

from collections.abc import Iterator
from typing import NamedTuple

from zerofs.units import CHUNK_SIZE

MAX_FILE_SIZE = (1 << 63) - 1
"""Bytes: the largest offset that the kernel knows."""

ZERO_CHUNK = bytes(CHUNK_SIZE)


class Piece(NamedTuple):
    """The part of a byte range that falls into one chunk."""

    chunk: int
    """Its index."""
    start: int
    """First byte, within the chunk."""
    stop: int
    """One past the last byte, within the chunk."""
    offset: int
    """Where the piece begins, within the range."""


def pieces(offset: int, size: int) -> Iterator[Piece]:
    """The pieces of [offset, offset + size), in order."""
    done = 0
    while done < size:
        index, start = divmod(offset + done, CHUNK_SIZE)
        stop = min(CHUNK_SIZE, start + size - done)
        yield Piece(index, start, stop, done)
        done += stop - start


def is_zero(data: bytes | bytearray | memoryview) -> bool:
    """Whether data of at most one chunk is zeros only: one memory comparison, which ends at the first difference."""
    return ZERO_CHUNK.startswith(data)


def extent_in_chunk(size_bytes: int, index: int) -> int:
    """How many bytes of a file of that size fall into the chunk."""
    return max(0, min(CHUNK_SIZE, size_bytes - index * CHUNK_SIZE))
