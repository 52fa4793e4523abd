"""The merge against what readers see, and what it costs."""

import random
from dataclasses import replace

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.lsm.compaction.kit import TOKEN, Bench, RunSpec, key
from zerofs.errors import CorruptionError, UnavailableError
from zerofs.lsm.compaction import source
from zerofs.lsm.compaction.merge import compact
from zerofs.lsm.format.manifest import Run
from zerofs.lsm.format.rows import DELETE, PUT
from zerofs.lsm.ranges import KeyRanges
from zerofs.objectstore.decorator import Kind, StoreDecorator

NUMBERS = st.integers(0, 40)
VALUES = st.one_of(
    st.binary(max_size=40), st.none(), st.tuples(st.integers(1, 3), st.integers(46, 50)), st.just(b"v" * 400)
)
SPECS = st.builds(
    RunSpec,
    rows=st.dictionaries(NUMBERS, VALUES, max_size=25),
    ranges=st.lists(st.tuples(NUMBERS, st.integers(1, 15)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=2),
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=3),
)


@st.composite
def trees(draw):
    """Runs, and the slice of them that is compacted."""
    specs = draw(st.lists(SPECS.filter(lambda spec: spec.rows or spec.ranges), min_size=1, max_size=6))
    start = draw(st.integers(0, len(specs) - 1))
    return specs, slice(start, draw(st.integers(start + 1, len(specs))))


@settings(deadline=None)
@given(trees(), st.sampled_from([150, 1500, 6000]), st.booleans())
@example((([RunSpec(ranges=[(0, 5)]), RunSpec(rows={1: b"x"}), RunSpec(rows={1: (1, 46)})]), slice(0, 2)), 150, False)
@example((([RunSpec(rows={9: b""}), RunSpec(rows={1: None}), RunSpec(rows={1: (1, 46)})]), slice(0, 3)), 150, True)
def test_readers_see_the_same_and_registers_lose_what_is_gone(tree, target, small_windows):
    specs, chosen = tree

    async def check():
        bench = Bench()
        runs = [await bench.put(spec) for spec in specs]
        drop_deletes = chosen.stop == len(runs)
        before = await bench.seen(runs)
        bench.calls.clear()
        result = await compact(bench.storage, bench.job(runs[chosen], drop_deletes=drop_deletes, target=target))
        calls = list(bench.calls)
        merged = [*runs[: chosen.start], *([result.run] if result.run else []), *runs[chosen.stop :]]
        assert await bench.seen(merged) == before

        referred = await bench.referred(runs[chosen])
        for sst, size in result.dropped.items():
            referred[sst] -= size
        left = {sst: size for sst, size in referred.items() if size}
        assert left == await bench.referred([result.run])
        assert all(result.dropped.values())

        ssts = result.run.ssts if result.run else ()
        inputs = {info for run in runs[chosen] for info in run.ssts}
        assert [info for info in ssts if info not in inputs] == list(result.written)
        assert len(ssts) == len(result.written) + result.moved
        assert [call.name for call in calls if call.kind == Kind.PUT_IF_ABSENT] == sorted(
            info.name for info in result.written
        )
        moved = {info for info in ssts if info in inputs}
        firsts = {run.ssts[0] for run in runs[chosen] if run.has_range_deletes}
        assert not {info.name for info in moved - firsts} & {call.name for call in calls}
        for info in result.written[1:]:
            assert info.row_count

        if drop_deletes:
            assert result.run is None or not result.run.has_range_deletes
            rows = [row for info in result.written for row in await bench.rows_of(Run(ssts=(info,)))]
            assert not any(kind == DELETE for _, kind, _ in rows)
        elif result.run:
            kept = KeyRanges(await bench.ranges_of(result.run))
            hidden = {n for spec in specs[chosen] for n in range(60) if spec.key_ranges().covers(key(n))}
            assert {n for n in range(60) if kept.covers(key(n))} == hidden

    with pytest.MonkeyPatch.context() as patch:
        if small_windows:
            patch.setattr(source, "PAGE_BYTES", 1)
            patch.setattr(source, "FETCH_BYTES", (1, 300))
        trio.run(check)


async def test_the_newest_row_wins_and_deletes_go_only_where_nothing_is_older():
    bench = Bench()
    runs = [
        await bench.put(RunSpec(rows={1: b"new", 2: None})),
        await bench.put(RunSpec(rows={1: (7, 100), 2: (7, 50), 3: (8, 46), 4: b"old"}, ranges=[(4, 9)])),
        await bench.put(RunSpec(rows={3: (9, 60), 4: (9, 70), 5: (9, 80)})),
    ]
    kept = await compact(bench.storage, bench.job(runs[:2], drop_deletes=False))
    assert await bench.rows_of(kept.run) == [
        (key(1), PUT, b"new"),
        (key(2), DELETE, b""),
        *(row for row in await bench.rows_of(runs[1]) if row[0] >= key(3)),
    ]
    assert kept.dropped == {(1, 7): 150}
    assert await bench.ranges_of(kept.run) == [(key(4), key(9))]

    bench.storage = bench.make_storage()
    for info in kept.written:
        await bench.store.delete(info.name)
    whole = await compact(bench.storage, bench.job(runs, drop_deletes=True))
    assert [row[0] for row in await bench.rows_of(whole.run)] == [key(1), key(3), key(4)]
    assert whole.dropped == {(1, 7): 150, (1, 9): 210}
    assert not whole.run.has_range_deletes


async def test_nothing_may_be_left():
    bench = Bench()
    runs = [await bench.put(RunSpec(ranges=[(0, 9)])), await bench.put(RunSpec(rows={1: (1, 46), 2: None}))]
    result = await compact(bench.storage, bench.job(runs, drop_deletes=True))
    assert (result.run, result.written, result.moved, result.dropped) == (None, (), 0, {(1, 1): 46})


async def test_ssts_that_overlap_nothing_are_moved_for_no_request_at_all():
    bench = Bench()
    runs = [
        await bench.put(RunSpec(rows=dict.fromkeys(range(start, start + 20), b"x" * 30), cuts=(10,)))
        for start in (200, 100, 300, 0)
    ]
    bench.calls.clear()
    result = await compact(bench.storage, bench.job(runs, drop_deletes=True, target=400))
    assert (result.moved, result.written, bench.calls) == (8, (), [])
    assert list(result.run.ssts) == sorted((info for run in runs for info in run.ssts), key=lambda info: info.first_key)


async def test_range_deletes_go_before_a_moved_sst_in_one_without_rows():
    bench = Bench()
    runs = [
        await bench.put(RunSpec(rows=dict.fromkeys(range(20), b"x" * 30), ranges=[(50, 60)])),
        await bench.put(RunSpec(rows=dict.fromkeys(range(80, 99), b"y" * 30), ranges=[(55, 70)])),
    ]
    result = await compact(bench.storage, bench.job(runs, drop_deletes=False, target=400))
    assert result.moved == 2
    assert [info.row_count for info in result.run.ssts] == [0, 20, 19]
    assert await bench.ranges_of(result.run) == [(key(50), key(70))]
    again = await compact(bench.storage, bench.job([result.run], drop_deletes=True, target=400))
    assert (again.run.ssts, again.written, again.run.has_range_deletes) == (result.run.ssts[1:], (), False)


def interleaved(count, rows_each, *, size=100):
    rng = random.Random(1)
    return [
        RunSpec(rows={number * count + run: rng.randbytes(size) for number in range(rows_each)}) for run in range(count)
    ]


async def test_it_streams_with_few_and_large_requests(monkeypatch):
    fetch, page, target = 16_000, 4_000, 32_000
    monkeypatch.setattr(source, "FETCH_BYTES", (fetch, fetch))
    monkeypatch.setattr(source, "PAGE_BYTES", page)
    bench = Bench(block_size_bytes=1000)
    runs = [await bench.put(spec) for spec in interleaved(4, 2000)]
    bench.calls.clear()
    result = await compact(bench.storage, bench.job(runs, drop_deletes=True, target=target))
    assert len(result.written) > 25

    gets = [call.received_bytes for call in bench.calls if call.kind == Kind.GET]
    indexes = sum(info.index_length for run in runs for info in run.ssts)
    stored = sum(info.size_bytes for run in runs for info in run.ssts)
    assert len(gets) <= stored / (fetch - 1100) + 2 * sum(len(run.ssts) for run in runs)
    assert max(gets) <= fetch
    assert sum(gets) <= stored

    # Between two outputs only about one output's worth is read: nothing piles up in between.
    read = most = 0
    for call in bench.calls:
        read += call.received_bytes
        if call.kind == Kind.PUT_IF_ABSENT:
            most, read = max(most, read), 0
    assert most <= target + len(runs) * (fetch + page) + indexes < stored / 4


async def test_rows_in_memory_are_bounded_by_pages_and_one_output(monkeypatch):
    page, target = 2_000, 20_000
    monkeypatch.setattr(source, "PAGE_BYTES", page)
    bench = Bench(block_size_bytes=500)
    specs = interleaved(4, 1000)
    runs = [await bench.put(spec) for spec in specs]
    held = []
    load = source.Source.load
    sources = []

    async def noted(self):
        await load(self)
        if self not in sources:
            sources.append(self)
        held.append(sum(len(one.rows) for one in sources))

    monkeypatch.setattr(source.Source, "load", noted)
    result = await compact(bench.storage, bench.job(runs, drop_deletes=True, target=target))
    row_size = 100 + len(key(0)) + 7
    assert max(held) <= len(runs) * (page + 500 + row_size) / row_size
    assert max(info.row_count for info in result.written) <= target / row_size + 1
    assert min(info.row_count for info in result.written[:-1]) >= target / row_size


async def test_caches_are_left_to_readers():
    bench = Bench()
    runs = [await bench.put(RunSpec(rows=dict.fromkeys(range(50), b"x"), ranges=[(1, 2)])) for _ in range(2)]
    await compact(bench.storage, bench.job(runs, drop_deletes=False))
    assert (len(bench.calls) > 4, bench.storage.blocks.size_bytes, bench.storage.indexes.size_bytes) == (True, 0, 0)


async def test_names_suffice_for_rows_that_compress_to_nothing():
    bench = Bench(block_size_bytes=4000)
    runs = [
        await bench.put(RunSpec(rows=dict.fromkeys(range(run, 4000, 4), b"0" * 200), cuts=(90,))) for run in range(4)
    ]
    target = 90 * (200 + len(key(0)) + 7)
    assert sum(info.size_bytes for info in runs[0].ssts) < len(runs[0].ssts) * target / 10
    result = await compact(bench.storage, bench.job(runs, drop_deletes=True, target=target))
    assert {info.row_count for info in result.written[:-1]} == {90}


async def test_names_suffice_where_outputs_are_cut_more_often_than_inputs_were():
    """Rows just below and just at the target, in pairs: two inputs make three outputs."""
    target = 100_000
    just_below, just_at = bytes(target - len(key(0)) - 10), bytes(target - len(key(0)) - 7)
    bench = Bench(block_size_bytes=target)
    runs = [
        await bench.put(
            RunSpec(rows={2 * n + run: (just_below, just_at)[n % 2] for n in range(20)}, cuts=(2,)),
        )
        for run in range(2)
    ]
    result = await compact(bench.storage, bench.job(runs, drop_deletes=True, target=target))
    assert [info.row_count for info in result.written] == [2, 1, 1] * 10


async def test_sources_that_reach_differently_far_stay_in_order(monkeypatch):
    monkeypatch.setattr(source, "PAGE_BYTES", 1)
    bench = Bench()
    specs = [RunSpec(rows={n * step: b"%d" % step * 10 for n in range(120)}) for step in (7, 1, 30)]
    runs = [await bench.put(spec) for spec in specs]
    before = await bench.seen(runs)
    result = await compact(bench.storage, bench.job(runs, drop_deletes=True, target=3000))
    assert len(result.written) > 3
    assert await bench.seen([result.run]) == before


async def test_with_too_few_names_for_cutting_outputs_grow():
    bench = Bench()
    runs = [await bench.put(RunSpec(rows=dict.fromkeys(range(run, 400, 2), b"x" * 50))) for run in range(2)]
    result = await compact(bench.storage, bench.job(runs, drop_deletes=True, names=4))
    assert len(result.written) == 3
    assert sum(info.row_count for info in result.written) == 400
    with pytest.raises(AssertionError, match="1 names for 2 SSTs"):
        await compact(bench.storage, bench.job(runs, drop_deletes=True, names=1))


async def test_a_damaged_block_is_named():
    bench = Bench()
    runs = [await bench.put(spec) for spec in interleaved(2, 100)]
    victim = runs[1].ssts[0]
    body = bytearray(await bench.store.get(victim.name))
    body[len(body) // 2] ^= 1
    await bench.store.put(victim.name, bytes(body))
    with pytest.raises(CorruptionError, match=victim.name):
        await compact(bench.storage, bench.job(runs, drop_deletes=True))


async def test_a_missing_or_cut_object_is_named():
    for damage in ("missing", "cut"):
        bench = Bench()
        runs = [await bench.put(spec) for spec in interleaved(2, 100)]
        victim = runs[1].ssts[0]
        body = await bench.store.get(victim.name)
        await bench.store.delete(victim.name)
        if damage == "cut":
            await bench.store.put(victim.name, body[:-1])
        with pytest.raises(CorruptionError, match=f"{victim.name}.*{damage}"):
            await compact(bench.storage, bench.job(runs, drop_deletes=True))


async def test_an_sst_that_gives_other_rows_than_the_manifest_says_is_not_compacted_away():
    bench = Bench()
    runs = [await bench.put(spec) for spec in interleaved(2, 100)]
    lying = replace(runs[1].ssts[0], row_count=101)
    with pytest.raises(CorruptionError, match=f"{lying.name}: 100 rows, the manifest says 101"):
        await compact(bench.storage, bench.job([runs[0], Run(ssts=(lying,))], drop_deletes=True))


async def test_without_the_token_of_an_input_nothing_opens():
    bench = Bench()
    runs = [await bench.put(spec) for spec in interleaved(2, 10)]
    with pytest.raises(CorruptionError, match="no token"):
        await compact(bench.storage, replace(bench.job(runs, drop_deletes=True), tokens={2: TOKEN}))


class Rough(StoreDecorator):
    """Damages the first GET of more than a block, on its way."""

    def __init__(self, inner, failures):
        super().__init__(inner)
        self.failures = failures

    async def _around(self, request, call):
        result = await call()
        if request.kind is Kind.GET and len(result) > 1000 and self.failures:
            failure = self.failures.pop()
            if isinstance(failure, Exception):
                raise failure
            return result[:100] + bytes(8) + result[108:]
        return result


async def test_damage_on_the_way_is_asked_for_again():
    bench = Bench()
    runs = [await bench.put(spec) for spec in interleaved(2, 100)]
    storage = bench.make_storage(Rough(bench.store, ["damage"]))
    before = await bench.seen(runs)
    result = await compact(storage, bench.job(runs, drop_deletes=True))
    assert storage.store._inner.failures == []
    assert await bench.seen([result.run]) == before


async def test_a_store_that_does_not_answer_ends_the_job():
    bench = Bench()
    runs = [await bench.put(spec) for spec in interleaved(2, 100)]
    storage = bench.make_storage(Rough(bench.store, [UnavailableError("gone")]))
    with pytest.raises(UnavailableError, match="gone"):
        await compact(storage, bench.job(runs, drop_deletes=True))


async def test_what_the_runs_keep_apart_stays_apart():
    bench = Bench()
    specs = [
        RunSpec(rows={0: b"count", **dict.fromkeys(range(100 * part, 100 * part + 20), b"new")}, cuts=(1, 20))
        for part in (3, 2, 1)
    ]
    runs = [await bench.put(spec) for spec in specs]
    result = await compact(bench.storage, bench.job(runs, drop_deletes=True, target=100_000))
    assert [(sst.first_key, sst.last_key) for sst in result.run.ssts] == [(key(0), key(0)), (key(100), key(319))]
    assert await bench.seen([result.run]) == await bench.seen(runs)
