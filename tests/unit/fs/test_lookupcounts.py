"""Counts in pages, against a dictionary."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from zerofs.fs.lookupcounts import LookupCounts

INODES = st.sampled_from((0, 1, 254, 255, 256, 257, 1 << 40, (1 << 64) - 1))
STEPS = st.lists(st.tuples(INODES, st.integers(-700, 600)), max_size=60)


@given(STEPS)
def test_counts_are_those_of_a_dictionary(steps: list[tuple[int, int]]) -> None:
    counts, expected = LookupCounts(), Counter[int]()
    for inode, change in steps:
        if change % 2:
            counts.add_each([inode] * change)
        else:
            for _ in range(change):
                counts.add(inode)
        expected[inode] += max(change, 0)
        if change < 0:
            expected[inode] = max(0, expected[inode] + change)
            assert counts.subtract(inode, -change) == (not expected[inode])
        assert all((known in counts) == (expected[known] > 0) for known in expected)
    for inode, count in expected.items():
        assert count == 0 or not counts.subtract(inode, count - 1)
        assert counts.subtract(inode, 1)
        assert inode not in counts


def test_no_page_is_left_when_all_is_forgotten() -> None:
    counts = LookupCounts()
    for inode in range(1000):
        counts.add(inode)
    assert len(counts._pages) == 32
    for inode in range(1000):
        counts.subtract(inode, 1)
    assert not counts._pages


def test_all_is_forgotten_at_once() -> None:
    counts = LookupCounts()
    for _ in range(300):
        counts.add(9)
    counts.clear()
    assert 9 not in counts
    counts.add(9)
    assert counts.subtract(9, 1)
