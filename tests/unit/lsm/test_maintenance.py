"""What a volume does for itself: merges, repacks, collects, tightens; and is silent when there is nothing to do."""

import random
from dataclasses import replace

import pytest
import trio

from tests.unit.lsm.kit import Bed, Crash, chunk_key
from zerofs.lsm.audit import audit
from zerofs.lsm.compaction.worker import InlineWorker
from zerofs.lsm.format.names import sst_name
from zerofs.lsm.maintenance import TIGHTEN_AFTER_S
from zerofs.units import CHUNK_SIZE, MIB


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


async def bucket_bytes(bed):
    return sum(info.size_bytes for info in await bed.store.list(""))


async def read_all(engine, model):
    keys = sorted(model)
    assert dict(zip(keys, await engine.multi_get(keys), strict=True)) == model


def random_history(rng, model, steps):
    """Batches of rows, as (rows, ranges); `model` follows."""
    for _ in range(steps):
        rows, ranges = [], []
        if rng.random() < 0.1:
            first = rng.randrange(40)
            ranges.append((chunk_key(1, first), chunk_key(1, first + 10)))
            for key in [key for key in model if ranges[0][0] <= key < ranges[0][1]]:
                model[key] = None
        for _ in range(rng.randrange(1, 6)):
            if rng.random() < 0.5:
                key, value = b"meta%03d" % rng.randrange(200), rng.randbytes(rng.choice([5, 300]))
            else:
                key, value = chunk_key(1, rng.randrange(60)), rng.randbytes(rng.choice([50, 3000, CHUNK_SIZE]))
            value = None if rng.random() < 0.1 else value
            rows.append((key, value))
            model[key] = value
        yield rows, ranges


async def test_a_long_life_stays_small_and_right(bed, autojump_clock):
    rng = random.Random(1)
    model = {}
    for _ in range(4):
        async with bed.open() as engine:
            for number, (rows, ranges) in enumerate(random_history(rng, model, 300)):
                engine.commit(rows, ranges)
                if number % 20 == 0:
                    await engine.flush()
                    await trio.sleep(5)
            await read_all(engine, model)
            assert await audit(bed.storage(), engine.manifest) == []
    numbers = bed.metrics.snapshot()
    for name in ("compactions", "repacked_ssts", "collected_objects"):
        assert numbers[name] > 3, name
    async with bed.open() as engine:
        await read_all(engine, model)
        engine.commit([(b"meta000", b"x")])
        await trio.sleep(3 * TIGHTEN_AFTER_S)
        model[b"meta000"] = b"x"
        await read_all(engine, model)
        assert [len(tree.runs) for tree in engine.manifest.trees] == [1, 1, 1], bed.metrics.snapshot()
        assert await audit(bed.storage(), engine.manifest) == []
        live = sum(len(value) for value in model.values() if value is not None)
        assert await bucket_bytes(bed) < 1.35 * live


async def test_a_tightened_volume_is_silent(bed, autojump_clock):
    async with bed.open() as engine:
        engine.commit([(chunk_key(1, 0), b"x" * 100), (b"meta1", b"y")])
        await trio.sleep(10 * TIGHTEN_AFTER_S)
        assert bed.metrics.snapshot()["tightenings"] == 1
        requests = bed.requests()
        await trio.sleep(24 * 3600)
        assert bed.requests() == requests


async def test_a_deleted_file_gives_its_space_back(bed, autojump_clock):
    rng = random.Random(2)
    async with bed.open() as engine:
        engine.commit([(chunk_key(1, i), rng.randbytes(CHUNK_SIZE)) for i in range(60)])
        await engine.flush()
        engine.commit([(b"meta1", b"gone")], [(chunk_key(1, 0), chunk_key(2, 0))])
        await trio.sleep(3 * TIGHTEN_AFTER_S)
        assert await bucket_bytes(bed) < 5000


async def test_reads_go_on_while_everything_moves(bed, autojump_clock):
    rng = random.Random(3)
    bed.cache_bytes = 0
    model = {chunk_key(1, i): rng.randbytes(5000) for i in range(60)}
    async with bed.open() as engine:
        engine.commit(list(model.items()))
        await engine.flush()

        async def read(task_status=trio.TASK_STATUS_IGNORED):
            task_status.started()
            while True:
                await read_all(engine, model)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            await nursery.start(read)
            for _ in range(40):
                keys = rng.sample(sorted(model), 25)
                engine.commit([(key, model[key]) for key in keys])
                await engine.flush()
                await engine.maintenance.tighten()
            nursery.cancel_scope.cancel()
        assert bed.metrics.snapshot()["collected_objects"] > 40


async def test_what_a_crashed_writer_left_is_collected(bed, autojump_clock):
    orphan = sst_name((2, 77))
    with pytest.raises(Crash):
        async with bed.open() as engine:
            engine.commit([(b"meta1", b"y")])
            await engine.sync()
            await bed.store.put(orphan, b"an upload that no manifest or WAL object names")
            raise Crash
    async with bed.open() as engine:
        doomed = await engine.maintenance.collect(dry_run=True)
        assert orphan in doomed.ssts
        assert orphan in [info.name for info in await bed.store.list("")]
        await engine.maintenance.collect()
        assert orphan not in [info.name for info in await bed.store.list("")]
        assert await engine.get(b"meta1") == b"y"


class StuckWorker(InlineWorker):
    """Never done with a merge."""

    async def compact(self, job):
        await trio.sleep_forever()


async def test_a_writer_that_opens_a_volume_with_too_many_runs_merges_them(bed, autojump_clock):
    """Before, it waited for a commit to begin with, and the commit for the merge: nobody could write any more."""
    with pytest.raises(Crash):
        async with bed.open(worker=StuckWorker(bed.storage())) as engine:
            for number in range(bed.options.runs_max):
                engine.commit([(b"meta%d" % number, b"x")])
                await engine.flush()
            with trio.move_on_after(60) as held:
                await engine.admit(0)
            assert held.cancelled_caught
            raise Crash
    async with bed.open() as engine:
        with trio.fail_after(60):
            await engine.admit(0)
        assert len(engine.manifest.tree(b"meta").runs) < bed.options.runs_max


async def test_new_files_are_not_merged_again_and_again(bed, autojump_clock):
    """Each change also writes the counters and a directory, far from the new files: that must not make runs overlap."""
    bed.options = replace(bed.options, memtable_size_bytes=MIB, meta_sst_size_bytes=MIB)
    bed.cache_bytes = 64 * MIB
    rng = random.Random(1)
    directory, values = b"meta\x02" + (1).to_bytes(8), {}
    async with bed.open() as engine:
        for number in range(24_000):
            new = b"meta\x02" + (1000 + number).to_bytes(8), rng.randbytes(200)
            rows = [(b"meta\x00", number.to_bytes(8)), (directory, number.to_bytes(50)), new]
            engine.commit(rows)
            values |= rows
            if number % 500 == 0:
                await engine.sync()
                await trio.sleep(1)
        await trio.sleep(60)
        numbers = bed.metrics.snapshot()
        assert numbers["flushes"] > 6, numbers
        assert numbers["moved_ssts"] > 2 * numbers["compactions"], numbers
        assert numbers["compacted_bytes"] < 1.5 * numbers["meta_sst_bytes"], numbers
        keys = sorted(values)
        assert await engine.multi_get(keys) == [values[key] for key in keys]
        assert await audit(bed.storage(), engine.manifest) == []
