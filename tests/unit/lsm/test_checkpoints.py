"""Checkpoints: pinned states, opened, deleted, restored, beside merges, repacks and collection."""

import random

import pytest
import trio

from tests.unit.lsm.kit import Bed, chunk_key
from zerofs.errors import CheckpointError, ReadOnlyError
from zerofs.lsm.audit import audit, unreferenced
from zerofs.lsm.manifests import ManifestStore
from zerofs.units import CHUNK_SIZE


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


def contents_of(rng):
    rows = {chunk_key(1, i): rng.randbytes(CHUNK_SIZE) for i in range(12)}
    return rows | {b"meta%03d" % i: rng.randbytes(100) for i in range(50)}


async def read(bed, model, **kwargs):
    async with bed.open(**kwargs) as engine:
        keys = sorted(model)
        assert dict(zip(keys, await engine.multi_get(keys), strict=True)) == model
        rows = await engine.scan(b"meta", b"metb", 1000)
        assert {key for key, _ in rows} == {key for key in model if key.startswith(b"meta")}


async def test_checkpoints_stay_what_they_were(bed, autojump_clock):
    rng = random.Random(1)
    states = {}
    for number in range(3):
        async with bed.open() as engine:
            states[f"day {number}"] = model = contents_of(rng)
            engine.commit(list(model.items()), [(b"chunk", b"chunl"), (b"meta", b"metb")])
            await engine.checkpoints.create(f"day {number}")
            engine.commit([(b"meta000", b"later")])
            await engine.maintenance.tighten()
            assert await unreferenced(bed.storage()) == set()
    for name, model in states.items():
        await read(bed, model, checkpoint=name, host="reader")
    async with bed.open() as engine:
        before = len(await bed.store.list("compacted/"))
        await engine.checkpoints.delete("day 1")
        engine.commit([(b"meta000", b"later still")])
        await engine.maintenance.tighten()
        assert len(await bed.store.list("compacted/")) < before
        assert await unreferenced(bed.storage()) == set()
        assert await audit(bed.storage(), engine.manifest) == []
        assert [checkpoint.name for checkpoint in engine.checkpoints.all()] == ["day 0", "day 2"]
    await read(bed, states["day 0"], checkpoint="day 0", host="reader")
    with pytest.raises(CheckpointError, match="there are: day 0, day 2"):
        await read(bed, {}, checkpoint="day 1", host="reader")


async def test_a_restored_volume_is_what_it_was_and_the_present_is_pinned(bed, autojump_clock):
    rng = random.Random(2)
    old, new = contents_of(rng), contents_of(rng)
    async with bed.open() as engine:
        engine.commit(list(old.items()))
        point = await engine.checkpoints.create("good")
    async with bed.open() as engine:
        engine.commit([*new.items(), (b"metaX", b"only now")])
        await engine.maintenance.tighten()
        seqno = engine.manifest.last_seqno
    async with bed.open() as engine:
        pin = await engine.restore(point.checkpoint_id.hex())
        assert pin.name.startswith("before-restore-")
    await read(bed, old)
    await read(bed, {**new, b"metaX": b"only now"}, checkpoint=pin.name, host="reader")
    async with bed.open() as engine:
        assert engine.manifest.last_seqno >= seqno
        assert [checkpoint.name for checkpoint in engine.checkpoints.all()] == ["good", pin.name]
        engine.commit([(chunk_key(1, 3), b"goes on")])
        await engine.maintenance.tighten()
        assert await unreferenced(bed.storage()) == set()
        assert await audit(bed.storage(), engine.manifest) == []
    await read(bed, {**old, chunk_key(1, 3): b"goes on"})
    await read(bed, {**new, b"metaX": b"only now"}, checkpoint=pin.name, host="reader")


async def test_a_checkpoint_mount_makes_no_requests_while_idle_and_changes_nothing(bed, autojump_clock):
    async with bed.open() as engine:
        engine.commit([(b"meta1", b"x")])
        await engine.checkpoints.create("one")
    before = await bed.store.list("")
    async with bed.open(checkpoint="one", host="reader") as reader:
        assert await reader.get(b"meta1") == b"x"
        requests = bed.requests()
        await trio.sleep(24 * 3600)
        assert bed.requests() == requests
        with pytest.raises(ReadOnlyError):
            reader.commit([(b"meta1", b"no")])
        with pytest.raises(ReadOnlyError):
            await reader.checkpoints.create("two")
    assert await bed.store.list("") == before


@pytest.mark.parametrize("name", ["", "a/b", "line\nbreak", "\x00", "x" * 256, "\udcff"])
async def test_a_name_that_cannot_be(bed, name):
    async with bed.open() as engine:
        with pytest.raises(CheckpointError):
            await engine.checkpoints.create(name)


async def test_a_name_that_is_taken(bed):
    async with bed.open() as engine:
        await engine.checkpoints.create("näme")
        with pytest.raises(CheckpointError, match="already"):
            await engine.checkpoints.create("näme")
    newest = await ManifestStore(bed.storage()).latest()
    assert [checkpoint.name for checkpoint in newest.checkpoints] == ["näme"]
