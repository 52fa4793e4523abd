"""What is fetched in front of a reader."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from zerofs.fs.readahead import FIRST_WINDOW, ReadAhead, Streams
from zerofs.units import CHUNK_SIZE, KIB, MIB

LIMIT = 8 * MIB
SIZE = 1000 * MIB


def read_through(state, size, *, count, start=0):
    """What is fetched in addition while reads of one size follow one another, each of which misses something."""
    return [state.after(start + i * size, size, SIZE, i + 1) for i in range(count)]


def test_the_first_read_brings_nothing_more():
    assert ReadAhead(Streams(LIMIT)).after(0, 128 * KIB, SIZE, 1) is None


def test_reads_that_follow_one_another_open_a_window_that_doubles_up_to_the_limit():
    state = ReadAhead(Streams(LIMIT))
    windows = [ahead for ahead in read_through(state, 128 * KIB, count=400) if ahead]
    assert windows[0] == (256 * KIB, 256 * KIB + FIRST_WINDOW)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(windows)), "each byte once"
    assert max(stop - start for start, stop in windows) <= LIMIT
    assert windows[-1][1] - 399 * 128 * KIB > LIMIT // 2, "the window stays open in front of the reader"


def test_nothing_is_fetched_behind_the_end():
    state = ReadAhead(Streams(LIMIT))
    state.after(0, MIB, 3 * MIB, 1)
    assert state.after(MIB, MIB, 3 * MIB, 2) == (2 * MIB, 3 * MIB)
    assert state.after(2 * MIB, MIB, 3 * MIB, 3) is None


def test_what_is_asked_for_ends_with_a_chunk_wherever_the_reader_began():
    state = ReadAhead(Streams(LIMIT))
    windows = [ahead for ahead in read_through(state, 100_000, count=400, start=12_345) if ahead]
    assert len(windows) > 3
    assert all(stop % CHUNK_SIZE == 0 for _, stop in windows)


def test_a_jump_ends_it():
    state = ReadAhead(Streams(LIMIT))
    read_through(state, MIB, count=20)
    assert state.after(500 * MIB, MIB, SIZE, 21) is None
    assert state.after(501 * MIB, MIB, SIZE, 22) == (502 * MIB, 502 * MIB + FIRST_WINDOW), "and it begins small again"


def test_reads_at_random_bring_nothing():
    state = ReadAhead(Streams(LIMIT))
    places = [(i * 7919) % 1000 * MIB for i in range(1, 200)]
    assert not any(state.after(place, 4 * KIB, SIZE, i + 1) for i, place in enumerate(places))


def test_what_is_in_memory_needs_no_help():
    state = ReadAhead(Streams(LIMIT))
    assert not any(state.after(i * MIB, MIB, SIZE, 1) for i in range(20))
    assert state.after(20 * MIB, MIB, SIZE, 2) is not None, "but it is noticed when something is missing again"


def test_parts_of_one_window_may_come_in_any_order():
    state = ReadAhead(Streams(LIMIT))
    order = [0, 2, 1, 3, 5, 4, 7, 6, 9, 8]
    assert sum(state.after(i * 128 * KIB, 128 * KIB, SIZE, n + 1) is not None for n, i in enumerate(order)) >= 1


def test_a_store_that_keeps_up_is_asked_before_the_reader_comes():
    """Every range is in memory when it is read, and the next one was asked for before that was used up."""
    state, size = ReadAhead(Streams(LIMIT)), 128 * KIB
    fetched, misses, waited = 0, 0, 0
    for i in range(2000):
        offset = i * size
        ahead = state.after(offset, size, SIZE, misses)
        if ahead is not None:
            assert ahead[0] == max(fetched, offset + size)
            fetched, misses = ahead[1], misses + 1
        if offset >= fetched:
            misses, waited = misses + 1, waited + 1
    assert waited <= 2


def test_streams_share_what_memory_has():
    streams = Streams(LIMIT)
    states = [ReadAhead(streams) for _ in range(4)]
    sizes = [[] for _ in states]
    for i in range(400):
        for state, seen in zip(states, sizes, strict=True):
            ahead = state.after(i * MIB, MIB, SIZE, i + 1)
            seen.append(ahead[1] - ahead[0] if ahead else 0)
    assert all(0 < max(seen[100:]) <= LIMIT // 4 for seen in sizes)
    alone = [states[0].after(i * MIB, MIB, SIZE, i + 1) for i in range(400, 600)]
    assert max(ahead[1] - ahead[0] for ahead in alone if ahead) > LIMIT // 4, "one that is left has all of it again"


def test_what_was_refused_is_asked_for_again():
    state = ReadAhead(Streams(LIMIT))
    state.after(0, MIB, SIZE, 1)
    first = state.after(MIB, MIB, SIZE, 2)
    state.refused(first[0])
    again = state.after(2 * MIB, MIB, SIZE, 2)
    assert again is not None
    assert again[0] == 3 * MIB


@given(st.lists(st.tuples(st.integers(0, 64 * MIB), st.integers(0, 2 * MIB), st.integers(0, 3)), max_size=60))
def test_whatever_is_read_the_ranges_lie_in_the_file_and_within_the_limit(reads):
    state, misses = ReadAhead(Streams(LIMIT)), 0
    for offset, size, missed in reads:
        misses += missed
        ahead = state.after(offset, size, 48 * MIB, misses)
        if ahead is not None:
            assert 0 <= ahead[0] < ahead[1] <= 48 * MIB
            assert ahead[1] - ahead[0] <= LIMIT
