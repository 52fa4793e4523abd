"""The picker, by tables."""

import pytest

from zerofs.lsm.compaction.picker import GROWTH, MAX_RUNS, MIN_RUNS, RUNS_LIMIT, pick, pick_all, run_size
from zerofs.lsm.format.manifest import Run, SstInfo


def sst(counter, size):
    return SstInfo(
        sst=(1, counter), size_bytes=size, index_length=10, row_count=1, first_key=b"%d" % counter, last_key=b"x"
    )


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([], None),
        ([5], None),
        ([1, 1, 1], None),
        ([1, 1, 1, 1], (0, 4)),
        ([1, 1, 1, 12], (0, 4)),
        ([1, 1, 1, 13], None),
        ([1, 1, 1, 1, 16], (0, 5)),
        ([1, 1, 1, 1, 17], (0, 4)),
        ([4, 16, 80, 400], (0, 4)),
        ([4, 17, 80, 400], None),
        ([1, 100, 100, 100, 100], (1, 5)),
        ([1, 5, 100, 100, 100, 100], (2, 6)),
        ([1, 100, 100, 100, 10_000], None),
        ([9, 1, 1, 1], (0, 4)),
        ([1] * 8, (0, 8)),
        ([1] * 9, (0, 8)),
        ([10**n for n in range(12)], None),
        ([10**n for n in range(13)], (0, 8)),
        ([1] * 4 + [10**6] * 9, (0, 8)),
    ],
)
def test_by_size(sizes, chosen):
    assert pick(sizes, keeps_frames=False) == (chosen and slice(*chosen))


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([], None),
        ([7], None),
        ([4, 9], None),
        ([5, 10], (0, 2)),
        ([1, 1, 5], None),
        ([1, 2, 6], (0, 3)),
        ([1, 1, 1, 1, 100], (0, 4)),  # the general rule still holds
        ([1] * 9, (0, 8)),
        ([1, 20, 400, 8000], None),
    ],
)
def test_trees_that_keep_frames_alive_are_merged_whole_once_half_is_newer(sizes, chosen):
    assert pick(sizes, keeps_frames=True) == (chosen and slice(*chosen))


def test_the_constants_of_the_decision():
    assert (MIN_RUNS, MAX_RUNS, GROWTH, RUNS_LIMIT) == (4, 8, 4, 12)


def test_tightening_takes_the_tree_unless_it_is_one_run_without_range_deletes():
    plain, deleting = Run(ssts=(sst(1, 1),)), Run(ssts=(sst(2, 1),), has_range_deletes=True)
    assert pick_all([]) is None
    assert pick_all([plain]) is None
    assert pick_all([deleting]) == slice(0, 1)
    assert pick_all([plain, plain]) == slice(0, 2)
    assert pick_all([plain] * 20) == slice(0, 20)


def test_the_size_of_a_run_is_that_of_its_objects():
    assert run_size(Run(ssts=(sst(1, 30), sst(2, 12)))) == 42


def test_a_stream_of_flushes_settles_in_few_runs():
    """Bytes written for each byte flushed, and runs, with nothing overwritten: the worst that sizes alone can do."""
    runs, written, most = [], 0, 0
    for _ in range(2000):
        runs.insert(0, 1)
        while (chosen := pick(runs, keeps_frames=False)) is not None:
            written += sum(runs[chosen])
            runs[chosen] = [sum(runs[chosen])]
        most = max(most, len(runs))
    assert most <= RUNS_LIMIT
    assert sum(runs) == 2000
    assert written / 2000 < 12


def test_a_tree_of_one_run_is_merged_whole_when_something_of_an_old_epoch_is_in_it():
    assert pick_all([], 9) is None
    assert pick_all([Run(ssts=(sst(1, 5),))], 0) is None
    assert pick_all([Run(ssts=(sst(1, 5),))], 1) == slice(0, 1)
