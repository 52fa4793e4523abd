"""Clones in the engine: what they show, what they leave alone, and how they come to stand alone (decision 0016)."""

import random

import pytest
import trio

from tests.unit.lsm.clones import Family
from tests.unit.lsm.kit import chunk_key
from tests.unit.lsm.test_crashes import interrupted
from zerofs.errors import CloneError, CorruptionError, MissingObjectError, UnavailableError
from zerofs.lsm.audit import audit, unreferenced
from zerofs.lsm.compaction.picker import RUNS_LIMIT
from zerofs.lsm.format.names import parse_sst_name, sst_name
from zerofs.lsm.format.register import Register
from zerofs.lsm.manifests import ManifestStore
from zerofs.objectstore.faults import Fault, FaultyStore
from zerofs.testing.world import run_seeded
from zerofs.units import CHUNK_SIZE


@pytest.fixture
def family(tmp_path):
    return Family(tmp_path)


def some_rows(rng):
    rows = {chunk_key(1, i): rng.randbytes(CHUNK_SIZE) for i in range(14)}
    return rows | {b"meta%03d" % i: rng.randbytes(100) for i in range(150)}


async def make_source(family, rng):
    """A volume with a checkpoint `one` of the model that is returned; it has changed since."""
    source, model = await family.source(), some_rows(rng)
    async with source.open() as engine:
        engine.commit(list(model.items()))
        await engine.flush()
        later = {chunk_key(1, 0): b"again", b"meta001": b"again", chunk_key(2, 0): b"another"}
        engine.commit(list(later.items()), [(chunk_key(1, 12), chunk_key(1, 14))])
        await engine.checkpoints.create("one")
        engine.commit([(b"meta002", b"after the checkpoint"), (chunk_key(1, 3), b"after the checkpoint")])
    model |= later
    return source, {key: value for key, value in model.items() if key not in (chunk_key(1, 12), chunk_key(1, 13))}


async def contents(bed, **kwargs):
    async with bed.open(**kwargs) as engine:
        return await rows_of(engine)


async def rows_of(engine):
    rows = dict(await engine.scan(b"meta", b"metb", 1000))
    keys = [key for key, _ in await engine.scan(b"chunk", b"chunl", 1000)]
    return {**rows, **dict(zip(keys, await engine.multi_get(keys), strict=True))}


async def newest(bed):
    return await ManifestStore(bed.storage()).latest()


async def check(bed, model):
    """Cold, in good order, and without garbage."""
    assert await contents(bed, host="cold") == model
    assert await contents(bed, host="cold reader", read_only=True) == model
    storage = bed.storage()
    assert await audit(storage, await ManifestStore(storage).latest()) == []


async def check_tidy(bed):
    """Its collector leaves nothing behind."""
    async with bed.open() as engine:
        await engine.maintenance.collect()
        assert await unreferenced(bed.storage()) == set()


def no_progress(what, done, total):
    """Nobody looks."""


async def test_both_sides_go_on_by_themselves(family, autojump_clock):
    rng = random.Random(1)
    source, model = await make_source(family, rng)
    clone = await family.clone(source, "one")
    await check(clone, model)
    assert not await clone.store.list("compacted/"), "a clone costs one manifest"
    async with source.open() as engine:
        await engine.checkpoints.delete("one")
        engine.commit([(b"meta000", b"source's")], [(b"chunk", b"chunl")])
        await engine.maintenance.tighten()
        assert await unreferenced(source.storage()) == set()
    before = {info.name: info.version for info in await source.store.list("")}
    async with clone.open() as engine:
        assert await rows_of(engine) == model
        changes = {b"meta000": b"clone's", chunk_key(1, 5): rng.randbytes(CHUNK_SIZE), chunk_key(3, 0): b"new"}
        engine.commit(list(changes.items()), [(chunk_key(1, 7), chunk_key(1, 8))])
        model |= changes
        del model[chunk_key(1, 7)]
        await engine.maintenance.tighten()
        assert await rows_of(engine) == model
    await check(clone, model)
    await check_tidy(clone)
    found = await contents(source)
    assert (found[b"meta000"], chunk_key(3, 0) in found) == (b"source's", False)
    now = {info.name: info.version for info in await source.store.list("compacted/")}
    assert now.items() <= before.items(), "a clone changes nothing in its source"


async def test_new_objects_are_the_clones_own(family):
    source, _ = await make_source(family, random.Random(2))
    clone = await family.clone(source, "one")
    last = (await newest(clone)).foreign[0].last_epoch
    async with clone.open() as engine:
        engine.commit([(b"meta000", b"new"), (chunk_key(1, 1), b"new")])
    names = [info.name for info in await clone.store.list("compacted/")]
    assert names
    assert all(parse_sst_name(name)[0] > last for name in names)
    for name in names:
        assert (await clone.store.get(name))[32:48] == clone.volume_id


async def test_maintenance_copies_no_foreign_data(family, autojump_clock):
    source, _ = await make_source(family, random.Random(3))
    clone = await family.clone(source, "one")
    async with clone.open() as engine:
        engine.commit([(b"meta000", b"x")], [(chunk_key(1, 2), chunk_key(1, 11))])
        await engine.maintenance.tighten()
    assert clone.metrics.snapshot().get("repacked_bytes", 0) == 0
    assert sum(info.size_bytes for info in await clone.store.list("compacted/")) < 3 * CHUNK_SIZE


async def test_what_lies_under_a_foreign_name_is_left_alone(family):
    source, _ = await make_source(family, random.Random(4))
    clone = await family.clone(source, "one")
    await clone.store.put(sst_name((1, 77)), b"whoever put this there")
    async with clone.open() as engine:
        engine.commit([(b"meta000", b"x")])
        await engine.flush()
        doomed = await engine.maintenance.collect()
    assert sst_name((1, 77)) in doomed.strangers
    assert await clone.store.get(sst_name((1, 77))) == b"whoever put this there"


async def test_a_missing_source_is_an_error_that_names_it(family, autojump_clock):
    source, _ = await make_source(family, random.Random(5))
    clone = await family.clone(source, "one")
    async with clone.open() as engine:
        for info in await source.store.list("compacted/"):
            await source.store.delete(info.name)
        with pytest.raises(MissingObjectError, match=r"compacted/.* in the source of this clone, memory://source"):
            await engine.get(b"meta010")
        with pytest.raises(MissingObjectError, match="memory://source"):
            await engine.get(chunk_key(1, 6))
        engine.commit([(b"meta new", b"can be written all the same")])
        await engine.sync()
        family.faulty["memory://source"].partitioned = True
        with pytest.raises(UnavailableError, match=r"compacted/.* in the source of this clone, memory://source"):
            await engine.get(b"meta011")
        family.faulty["memory://source"].partitioned = False
        with pytest.raises(MissingObjectError):
            await engine.detach(no_progress)
        assert await engine.get(b"meta new") == b"can be written all the same"
    storage = clone.storage()
    problems = [str(finding.problem) for finding in await audit(storage, await ManifestStore(storage).latest())]
    assert any("missing in the source of this clone, memory://source" in problem for problem in problems)


async def test_damage_in_the_source_is_found_and_named(family):
    source, _ = await make_source(family, random.Random(6))
    clone = await family.clone(source, "one")
    for info in await source.store.list("compacted/"):
        body = bytearray(await source.store.get(info.name))
        for at in range(100, len(body), 300):
            body[at] ^= 1
        await source.store.put(info.name, bytes(body))
    async with clone.open() as engine:
        with pytest.raises(CorruptionError, match="in the source of this clone, memory://source"):
            await engine.get(b"meta010")


async def test_detached_it_needs_nobody(family, autojump_clock):
    rng = random.Random(7)
    source, model = await make_source(family, rng)
    clone = await family.clone(source, "one")
    seen = []
    async with clone.open() as engine:
        changes = {b"meta000": b"clone's", chunk_key(1, 5): rng.randbytes(CHUNK_SIZE)}
        engine.commit(list(changes.items()), [(chunk_key(1, 7), chunk_key(1, 8))])
        model |= changes
        del model[chunk_key(1, 7)]
        await engine.detach(lambda *progress: seen.append(progress))
        (left,) = engine.manifest.foreign
        assert (left.url, left.pin, left.block_keys, left.chunk_keys) == (source.url, "clone-02020202", {}, {})
        assert min(engine.manifest.tokens) > left.last_epoch
    assert seen[0][0] == "moving bytes"
    assert seen[-1] == ("merging metadata", 0, 0)
    for info in await source.store.list(""):
        await source.store.delete(info.name)
    await check(clone, model)
    await check_tidy(clone)
    async with clone.open() as engine:
        await engine.checkpoints.forget_pins([source.volume_id])
        assert engine.manifest.foreign == ()
        manifest = engine.manifest.manifest_id
        await engine.detach(no_progress)
        await engine.checkpoints.forget_pins([source.volume_id])
        assert engine.manifest.manifest_id == manifest, "nothing to do"
    await check(clone, model)


async def test_the_trees_stay_in_order_while_it_moves_much(family, autojump_clock, monkeypatch):
    rng = random.Random(15)
    source, model = await family.source(), {}
    async with source.open() as engine:
        for number in range(40):
            rows = {chunk_key(1, number): rng.randbytes(CHUNK_SIZE), b"meta%03d" % number: b"m"}
            engine.commit(list(rows.items()))
            await engine.flush()
            model |= rows
        await engine.checkpoints.create("one")
    clone = await family.clone(source, "one")
    monkeypatch.setattr("zerofs.lsm.maintenance.PASS_SIZE_BYTES", 1)
    runs = []
    async with clone.open() as engine:
        repack = engine.maintenance._repacker.repack

        async def repack_and_flush(victims):
            runs.append(max(len(tree.runs) for tree in engine.manifest.trees))
            await repack(victims)
            await engine.flush()  # as when the memtable is full, which takes more rows than a test has

        engine.maintenance._repacker.repack = repack_and_flush
        await engine.detach(no_progress)
    assert len(runs) == 40, "as many passes as chunk SSTs"
    assert max(runs) <= RUNS_LIMIT, "each find asks every run, and a merge holds part of each in memory"
    for info in await source.store.list(""):
        await source.store.delete(info.name)
    await check(clone, model)


async def test_a_pass_that_finds_nothing_to_move_is_the_last(family, autojump_clock):
    source, _ = await make_source(family, random.Random(16))
    clone = await family.clone(source, "one")
    async with clone.open() as engine:
        learn = engine.maintenance._known.learn

        async def learn_nonsense(view):
            await learn(view)
            engine.maintenance._known.by_sst.update({(1, 1): Register(7, 0)})

        engine.maintenance._known.learn = learn_nonsense
        with trio.fail_after(60), pytest.raises(CorruptionError, match=f"{sst_name((1, 1))}: its register says"):
            await engine.detach(no_progress)
        assert engine.manifest.foreign[0].is_read


async def test_the_keys_stay_while_anything_needs_them(family, autojump_clock):
    source, model = await make_source(family, random.Random(14))
    clone = await family.clone(source, "one")
    async with clone.open() as engine:

        async def nothing(victims):
            return 0

        engine.maintenance._repacker.repack = nothing
        with pytest.raises(CorruptionError, match="of the source, are still referred to: run `zerofs fsck`"):
            await engine.detach(no_progress)
        assert engine.manifest.foreign[0].is_read
    await check(clone, model)


async def test_shared_frames_stay_shared(family, autojump_clock):
    source = await family.source()
    data = random.Random(8).randbytes(CHUNK_SIZE)
    async with source.open() as engine:
        engine.commit([(chunk_key(1, 0), data)])
        await engine.flush()
        (shared,) = await engine.shareable([chunk_key(1, 0)])
        engine.commit([(chunk_key(2, 0), shared)])
        await engine.checkpoints.create("one")
    clone = await family.clone(source, "one")
    async with clone.open() as engine:
        (shared,) = await engine.shareable([chunk_key(2, 0)])
        engine.commit([(chunk_key(3, 0), shared), (chunk_key(1, 0), None)])
        await engine.detach(no_progress)
    for info in await source.store.list(""):
        await source.store.delete(info.name)
    await check(clone, {chunk_key(2, 0): data, chunk_key(3, 0): data})
    sizes = [info.size_bytes for info in await clone.store.list("compacted/")]
    assert sum(size > CHUNK_SIZE for size in sizes) == 1, "one frame, not two"


async def test_checkpoints_that_need_the_source_forbid_it(family, autojump_clock):
    source, model = await make_source(family, random.Random(9))
    clone = await family.clone(source, "one")
    async with clone.open() as engine:
        await engine.checkpoints.create("of the clone")
        engine.commit([(b"meta000", b"x")])
        before = engine.manifest
        with pytest.raises(CloneError, match="still need its source: 'of the clone'; delete them"):
            await engine.detach(no_progress)
        assert engine.manifest.foreign == before.foreign
    assert await contents(clone, checkpoint="of the clone", host="reader") == model
    async with clone.open() as engine:
        await engine.restore("of the clone")
    await check(clone, model)
    async with clone.open() as engine:
        for point in engine.checkpoints.all():
            await engine.checkpoints.delete(point.name)
        await engine.detach(no_progress)
        await engine.checkpoints.create("afterwards")
        await engine.detach(no_progress)
    for info in await source.store.list(""):
        await source.store.delete(info.name)
    assert await contents(clone, checkpoint="afterwards", host="reader") == model


async def test_a_clone_of_a_clone(family, autojump_clock):
    rng = random.Random(10)
    source, model = await make_source(family, rng)
    middle = await family.clone(source, "one", "memory://middle")
    async with middle.open() as engine:
        changes = {b"meta000": b"middle's", chunk_key(1, 5): rng.randbytes(CHUNK_SIZE)}
        engine.commit(list(changes.items()))
        model |= changes
        await engine.checkpoints.create("two")
    last = await family.clone(middle, "two", "memory://last")
    table = (await newest(last)).foreign
    assert [(it.url, it.pin) for it in table] == [("memory://source", ""), ("memory://middle", "clone-03030303")]
    await check(last, model)
    async with last.open() as engine:
        engine.commit([(b"meta001", b"last's"), (chunk_key(1, 6), b"last's")])
        await engine.maintenance.tighten()
    model |= {b"meta001": b"last's", chunk_key(1, 6): b"last's"}
    await check(last, model)
    async with middle.open() as engine:
        await engine.checkpoints.delete("two")
        with pytest.raises(CloneError, match="'clone-03030303'"):
            await engine.detach(no_progress)
    async with last.open() as engine:
        await engine.detach(no_progress)
    for bed in (source, middle):
        for info in await bed.store.list(""):
            await bed.store.delete(info.name)
    await check(last, model)


async def test_a_reader_follows_the_clone_through_its_detaching(family, autojump_clock):
    source, model = await make_source(family, random.Random(11))
    clone = await family.clone(source, "one")

    async def prepare(read):
        return lambda: None

    async with (
        clone.open() as engine,
        clone.open(host="reader", read_only=True) as reader,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(reader.follow, prepare)
        engine.commit([(b"meta000", b"x")])
        await engine.detach(no_progress)
        engine.commit([(b"meta001", b"y")])
        await engine.sync()
        for info in await source.store.list(""):
            await source.store.delete(info.name)
        await trio.sleep(60)
        assert await rows_of(reader) == model | {b"meta000": b"x", b"meta001": b"y"}
        nursery.cancel_scope.cancel()


async def test_keys_show_in_no_repr(family):
    source, _ = await make_source(family, random.Random(12))
    clone = await family.clone(source, "one")
    manifest = await newest(clone)
    (table,) = manifest.foreign
    for key in (*table.block_keys.values(), *table.chunk_keys.values()):
        for text in (repr(manifest), repr(table), str(table), repr(clone.storage().origins.all())):
            assert repr(key) not in text
            assert key.hex() not in text


def detaching(folder, fault, call, again=None):
    """Crash at a store call of a detach, perhaps at one of the next too; how many calls it made."""

    async def run():
        family = Family(folder)
        source, model = await make_source(family, random.Random(13))
        clone = await family.clone(source, "one")
        async with clone.open() as engine:
            engine.commit([(b"meta000", b"clone's"), (chunk_key(1, 5), b"clone's")])
        model |= {b"meta000": b"clone's", chunk_key(1, 5): b"clone's"}
        what = f"{fault} at call {call}, then {again}"

        async def detach(store):
            async with clone.open(store=store) as engine:
                await engine.detach(no_progress)

        calls = []
        for crash_at in (call, again):
            store = FaultyStore(clone.store, random.Random(0))
            if crash_at is not None:
                store.plan(fault, skip=crash_at)
                await interrupted(store, lambda store=store: detach(store))
                calls.append(store.calls)
                assert await contents(clone) == model, what
        await detach(clone.store)
        assert not any(it.is_read for it in (await newest(clone)).foreign), what
        for info in await source.store.list(""):
            await source.store.delete(info.name)
        await check(clone, model)
        await check_tidy(clone)
        return calls[0]

    return run_seeded(5, run)


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LOST_REPLY])
def test_a_crash_at_every_store_call_of_a_detach(tmp_path, fault):
    calls = detaching(tmp_path / "count", Fault.CRASH_BEFORE, 10_000)
    assert calls > 25
    for call in range(calls):
        detaching(tmp_path / str(call), fault, call)


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
def test_a_second_crash_of_a_detach(tmp_path, fault):
    calls = detaching(tmp_path / "count", Fault.CRASH_BEFORE, 10_000)
    rng = random.Random(6)
    for number in range(25):
        detaching(tmp_path / str(number), fault, rng.randrange(calls), rng.randrange(calls))
