"""The plan: properties over random runs, and the rules one by one."""

from hypothesis import given
from hypothesis import strategies as st

from zerofs.lsm.compaction.job import names_needed
from zerofs.lsm.compaction.plan import make_plan
from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.lsm.ranges import KeyRanges

TARGET = 400
LARGE, SMALL = 100, 99


def sst(number, first, last, size=LARGE, row_count=1):
    return SstInfo(
        sst=(1, number),
        size_bytes=size,
        index_length=10,
        row_count=row_count,
        first_key=b"%04d" % first,
        last_key=b"%04d" % last,
    )


def run(*ssts, ranges=False):
    return Run(ssts=ssts, has_range_deletes=ranges)


def ranges(*pairs):
    return KeyRanges((b"%04d" % start, b"%04d" % stop) for start, stop in pairs)


def shape(plan):
    """For each cluster, the numbers of its SSTs; in a tuple when it is moved."""
    return [
        tuple(numbers) if cluster.moved else numbers
        for cluster in plan.clusters
        for numbers in [[info.sst[1] for info in cluster.ssts]]
    ]


@st.composite
def cases(draw):
    runs, deleted = [], []
    numbers = iter(range(1, 1000))
    for _ in range(draw(st.integers(1, 5))):
        edges = sorted(draw(st.sets(st.integers(0, 60), max_size=12)))
        ssts = [
            sst(
                next(numbers),
                first,
                last,
                draw(st.sampled_from([10, SMALL, LARGE, 1000])),
                draw(st.sampled_from([1, 2])),
            )
            for first, last in zip(edges[::2], edges[1::2], strict=False)
        ]
        pairs = draw(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), max_size=2))
        deleted.append(ranges(*((start, start + length) for start, length in pairs)))
        if not ssts:
            nothing = SstInfo(
                sst=(1, next(numbers)), size_bytes=500, index_length=9, row_count=0, first_key=b"", last_key=b""
            )
            ssts = [nothing]
        runs.append(run(*ssts, ranges=bool(deleted[-1])))
    return runs, deleted


@given(cases(), st.booleans())
def test_properties(case, drop_deletes):
    runs, deleted = case
    plan = make_plan(runs, deleted, TARGET, drop_deletes=drop_deletes)
    held = [info for cluster in plan.clusters for info in cluster.ssts]
    assert sorted(info.sst for info in held) == sorted(info.sst for one in runs for info in one.ssts if info.row_count)

    for number, one in enumerate(runs):
        in_order = [info for cluster in plan.clusters for info in cluster.sources[number]]
        assert in_order == [info for info in one.ssts if info.row_count]

    for left, right in zip(plan.clusters, plan.clusters[1:], strict=False):
        assert max(info.last_key for info in left.ssts) < min(info.first_key for info in right.ssts)
        assert left.moved or right.moved, "neighbouring merges are one"

    for cluster in plan.clusters:
        if not cluster.moved:
            continue
        (moved,) = cluster.ssts
        (number,) = [number for number, source in enumerate(cluster.sources) if source]
        assert moved.size_bytes >= LARGE or (moved.row_count == 2 and (not drop_deletes or number == len(runs) - 1))
        for other_number, other in enumerate(runs):
            if other_number != number:
                assert all(
                    info.last_key < moved.first_key or info.first_key > moved.last_key
                    for info in other.ssts
                    if info.row_count
                )
            if other_number < number:
                keys = [b"%04d" % key for key in range(int(moved.first_key), int(moved.last_key) + 1)]
                assert not any(deleted[other_number].covers(key) for key in keys)

    union = KeyRanges(pair for one in deleted for pair in one)
    assert list(plan.range_deletes) == ([] if drop_deletes else list(union))
    assert plan.names_least <= names_needed(runs, TARGET)


@given(cases())
def test_what_could_be_moved_is_moved(case):
    runs, deleted = case
    plan = make_plan(runs, deleted, TARGET, drop_deletes=True)
    for cluster in plan.clusters:
        for number, source in enumerate(cluster.sources):
            for info in source:
                overlaps = any(
                    other.first_key <= info.last_key and other.last_key >= info.first_key
                    for other in cluster.ssts
                    if other is not info
                )
                hidden = any(
                    start <= info.last_key and stop > info.first_key for one in deleted[:number] for start, stop in one
                )
                large = info.size_bytes >= LARGE or (info.row_count == 2 and number == len(runs) - 1)
                assert cluster.moved == (large and not overlaps and not hidden)


def test_overlap_is_transitive_and_inclusive():
    runs = [run(sst(1, 10, 20), sst(2, 30, 40)), run(sst(3, 20, 30), sst(4, 41, 50)), run(sst(5, 5, 9))]
    assert shape(make_plan(runs, [ranges()] * 3, TARGET, drop_deletes=True)) == [(5,), [1, 2, 3], (4,)]


def test_a_range_delete_of_a_newer_run_forbids_the_move_and_one_of_the_same_or_an_older_run_does_not():
    runs = [run(sst(1, 10, 20)), run(sst(2, 30, 40)), run(sst(3, 50, 60))]
    for deleting, expected in [(0, [(1,), [2], (3,)]), (1, [(1,), (2,), (3,)]), (2, [(1,), (2,), (3,)])]:
        deleted = [ranges((35, 36)) if number == deleting else ranges() for number in range(3)]
        assert shape(make_plan(runs, deleted, TARGET, drop_deletes=True)) == expected


def test_a_range_delete_touches_up_to_its_last_key_only():
    runs = [run(sst(1, 90, 91)), run(sst(2, 30, 40))]
    for start, stop, moved in [(20, 30, True), (20, 31, False), (40, 50, False), (41, 50, True), (10, 90, False)]:
        plan = make_plan(runs, [ranges((start, stop)), ranges()], TARGET, drop_deletes=True)
        assert plan.clusters[0].moved is moved, (start, stop)


def test_small_neighbours_join_and_leave_large_ones_alone():
    runs = [
        run(*(sst(n, 10 * n, 10 * n + 5, SMALL) for n in (1, 2, 4, 5)), sst(7, 70, 75)),
        run(sst(3, 30, 35), sst(6, 60, 65, SMALL)),
    ]
    assert shape(make_plan(runs, [ranges()] * 2, TARGET, drop_deletes=True)) == [[1, 2], (3,), [4, 5, 6], (7,)]


def test_an_sst_without_rows_is_in_no_cluster_and_its_ranges_stay():
    nothing = SstInfo(sst=(1, 1), size_bytes=500, index_length=9, row_count=0, first_key=b"", last_key=b"")
    runs = [run(nothing, sst(2, 10, 20), ranges=True), run(sst(3, 30, 40))]
    plan = make_plan(runs, [ranges((1, 2)), ranges()], TARGET, drop_deletes=False)
    assert shape(plan) == [(2,), (3,)]
    assert list(plan.range_deletes) == list(ranges((1, 2)))


def test_nothing_of_an_old_epoch_is_moved():
    new = SstInfo(sst=(2, 9), size_bytes=LARGE, index_length=10, row_count=2, first_key=b"0040", last_key=b"0041")
    runs = [run(sst(1, 10, 11), new)]
    for up_to, expected in ((0, [(1,), (9,)]), (1, [[1], (9,)]), (2, [[1, 9]])):
        assert shape(make_plan(runs, [ranges()], TARGET, drop_deletes=True, rewrite_up_to=up_to)) == expected


def test_deletes_do_not_make_an_sst_worth_keeping_where_they_have_done_their_work():
    newer, oldest = run(sst(1, 10, 20, SMALL, 50_000)), run(sst(2, 30, 40, SMALL, 50_000))
    for drop_deletes, expected in ((True, [[1], (2,)]), (False, [(1,), (2,)])):
        plan = make_plan([newer, oldest], [ranges()] * 2, TARGET, drop_deletes=drop_deletes)
        assert shape(plan) == expected


def test_each_cut_takes_a_name():
    runs = [run(sst(1, 0, 0, SMALL), sst(2, 50, 60, SMALL)), run(sst(3, 0, 0, SMALL), sst(4, 70, 80, SMALL))]
    plan = make_plan(runs, [ranges()] * 2, TARGET, drop_deletes=True)
    assert plan.cuts == (b"0000",)
    assert shape(plan) == [[1, 2, 3, 4]]
    assert plan.names_least == 3, "one merge, one cut, one for range deletes"
