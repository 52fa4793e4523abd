"""Where runs are cut so that merges can move."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.lsm.compaction.test_plan import SMALL, TARGET, cases, run, sst
from zerofs.lsm.compaction.cuts import LEAST_ROWS, cuts_of, divide, is_large
from zerofs.lsm.format.rows import PUT


def rows(*numbers):
    return [(b"%04d" % number, PUT, b"") for number in numbers]


def ends(parts):
    return [(int(part[0][0]), int(part[-1][0])) for part in parts]


NEW = range(5000, 5000 + LEAST_ROWS)


def many(number, first, last, row_count=LEAST_ROWS):
    """An SST that is worth being kept out of a merge."""
    return replace(sst(number, first, last), row_count=row_count)


def test_what_is_written_anew_is_kept_apart_from_what_is_new():
    older = [run(many(1, 0, 1000), many(2, 1001, 4000)), run(many(3, 0, 4999))]
    assert ends(divide(rows(0, 7, *NEW), older)) == [(0, 7), (NEW[0], NEW[-1])]
    assert ends(divide(rows(0, *range(1700, 1800), *NEW), older)) == [(0, 0), (1700, 1799), (NEW[0], NEW[-1])]


def test_gaps_that_are_neighbours_are_both_found():
    older = [run(many(1, 0, 9999))]
    assert ends(divide(rows(0, 1000, *NEW), older)) == [(0, 0), (1000, 1000), (NEW[0], NEW[-1])]


def test_where_nothing_older_lies_nothing_is_divided():
    for older in ([], [run(many(1, 0, 7))], [run(many(1, 2, 9, LEAST_ROWS - 1))], [run(many(1, 5000, 9999))]):
        assert ends(divide(rows(1, 7, *NEW), older)) == [(1, NEW[-1])], older


def test_few_rows_are_not_divided():
    assert len(divide(rows(0, *NEW[1:]), [run(many(1, 0, 1000))])) == 2
    assert len(divide(rows(0, *NEW[2:]), [run(many(1, 0, 1000))])) == 1
    assert divide([], [run(many(1, 0, 1000))]) == [[]]


def test_rows_all_over_the_tree_are_not_divided():
    older = [run(*(many(number, 100 * number, 100 * number + 99) for number in range(60)))]
    numbers = random.Random(1).sample(range(10_000), LEAST_ROWS)
    assert len(divide(rows(*sorted(numbers)), older)) == 1


def test_a_gap_is_found_wherever_its_neighbours_are():
    older = [run(many(1, 0, 9999))]
    for before in (1, 2, 63, 64, 65, 127, 128, LEAST_ROWS - 1):
        numbers = [*range(before), *range(9999 - LEAST_ROWS + before, 9999)]
        assert [len(part) for part in divide(rows(*numbers), older)] == [before, LEAST_ROWS - before]


def test_a_merge_keeps_a_gap_that_most_runs_have():
    news = [run(sst(n, 0, n, SMALL), sst(10 + n, 100 * n, 100 * n + 150)) for n in (4, 3, 2, 1)]
    assert cuts_of([*news, run(sst(9, 0, 99))], TARGET) == (b"0004",)
    assert cuts_of([*news[:2], *(run(sst(n, 0, 99)) for n in (7, 8))], TARGET) == ()


def test_behind_a_large_sst_is_no_gap():
    assert cuts_of([run(sst(1, 0, 10), sst(2, 20, 30))] * 2, TARGET) == ()
    assert cuts_of([run(sst(1, 0, 10, SMALL), sst(2, 20, 30))] * 2, TARGET) == (b"0010",)
    assert cuts_of([run(many(1, 0, 10), sst(2, 20, 30))] * 2, TARGET) == (), "large by its rows"


def test_one_run_alone_may_join_what_is_small():
    assert cuts_of([run(*(sst(n, 10 * n, 10 * n + 1, SMALL) for n in range(20)))], TARGET) == ()


def test_a_row_that_each_run_has_elsewhere_is_no_reason_for_a_cut():
    news = [run(sst(1, 0, 0, 1), sst(2, at, at, 1), sst(3, 5000 + at, 5099 + at)) for at in (100, 200, 300, 400)]
    assert cuts_of(news, TARGET) == (b"0000", b"0400")
    base = run(sst(1, 0, 0, 1), *(sst(n, 10 * n, 10 * n + 5, SMALL) for n in range(1, 60)))
    assert len(cuts_of([*news, base], TARGET)) <= 3


@given(cases())
def test_properties_of_cuts(case):
    runs, _ = case
    small = {info.last_key for one in runs for info in one.ssts if not is_large(info, TARGET)}
    cuts = cuts_of(runs, TARGET)
    assert list(cuts) == sorted(set(cuts))
    assert small.issuperset(cuts)
    for cut in cuts:
        gaps = [
            one
            for one in runs
            for left, right in zip(one.ssts, one.ssts[1:], strict=False)
            if left.last_key in small and left.last_key <= cut < right.first_key
        ]
        assert 2 * len(gaps) > len(runs)


@given(st.integers(0, 1 << 32), st.integers(LEAST_ROWS, 3 * LEAST_ROWS), cases())
def test_no_row_is_lost(seed, count, case):
    runs, _ = case
    given_rows = rows(*sorted(random.Random(seed).sample(range(10_000), count)))
    parts = divide(given_rows, [run(*(replace(info, row_count=LEAST_ROWS) for info in one.ssts)) for one in runs])
    assert [row for part in parts for row in part] == given_rows
    assert all(parts)
