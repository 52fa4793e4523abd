"""Ranges and chunks."""

from hypothesis import given
from hypothesis import strategies as st

from zerofs.fs.chunking import extent_in_chunk, is_zero, pieces
from zerofs.units import CHUNK_SIZE

C = CHUNK_SIZE


@given(st.integers(0, 2**63 - 1), st.integers(0, 10 * C))
def test_pieces_cover_the_range_in_order_without_overlap(offset: int, size: int) -> None:
    position = offset
    for piece in pieces(offset, size):
        assert piece.chunk * C + piece.start == position
        assert piece.offset == position - offset
        assert 0 <= piece.start < piece.stop <= C
        position += piece.stop - piece.start
    assert position == offset + size


def test_pieces_by_example() -> None:
    assert [tuple(piece) for piece in pieces(C - 1, C + 2)] == [(0, C - 1, C, 0), (1, 0, C, 1), (2, 0, 1, C + 1)]
    assert list(pieces(5, 0)) == []


def test_zeros() -> None:
    for size in (0, 1, C):
        assert is_zero(bytes(size))
        assert is_zero(bytearray(size))
    for data in (b"\1", bytes(C - 1) + b"\1", b"\1" + bytes(C - 1)):
        assert not is_zero(data)


@given(st.integers(0, 5 * C), st.integers(0, 6))
def test_extent(size: int, index: int) -> None:
    assert extent_in_chunk(size, index) == len(range(index * C, min(size, (index + 1) * C)))
