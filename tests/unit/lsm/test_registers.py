"""Registers: what the chunk tree refers to, without a scan, and equal to one."""

import os
import random

import pytest

from tests.unit.lsm.kit import Bed, Crash, chunk_key
from zerofs.errors import CorruptionError
from zerofs.lsm.audit import audit
from zerofs.lsm.format.register import Register, decode_register, parse_register_key
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.registers import RegisterView
from zerofs.units import CHUNK_SIZE


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


async def registers(bed):
    storage = bed.storage()
    manifest = await ManifestStore(storage).latest()
    return {sst: register async for sst, register in RegisterView(storage, manifest).all()}, manifest


async def test_registers_equal_a_recount_after_any_history(bed, autojump_clock):
    rng = random.Random(5)
    for session in range(3):
        with pytest.raises(Crash):
            async with bed.open() as engine:
                for _ in range(60):
                    keys = [chunk_key(rng.randrange(3), rng.randrange(40)) for _ in range(rng.randrange(1, 6))]
                    engine.commit([(key, rng.randbytes(rng.choice([100, CHUNK_SIZE]))) for key in keys])
                    if rng.random() < 0.2:
                        engine.commit([], [(chunk_key(1, 10), chunk_key(1, 30))])
                    if rng.random() < 0.3:
                        await (engine.flush if rng.random() < 0.5 else engine.sync)()
                assert engine.manifest.tree(b"chunk").runs or session == 0
                raise Crash
    async with bed.open():
        pass
    found, manifest = await registers(bed)
    assert len(found) > 3
    assert await audit(bed.storage(), manifest) == []


async def test_a_register_knows_the_size_of_an_object_that_an_earlier_process_stored(bed):
    with pytest.raises(Crash):
        async with bed.open() as engine:
            engine.commit([(chunk_key(1, i), os.urandom(CHUNK_SIZE)) for i in range(4)])
            await engine.sync()  # too much to ride in the WAL object: a chunk SST
            raise Crash
    async with bed.open():
        pass
    ((_, register),) = (await registers(bed))[0].items()
    assert 4 * CHUNK_SIZE < register.live_bytes == register.frame_bytes < 4 * (CHUNK_SIZE + 50)


async def test_the_audit_sees_what_is_wrong(bed):
    async with bed.open() as engine:
        engine.commit([(chunk_key(1, i), os.urandom(CHUNK_SIZE)) for i in range(4)] + [(b"meta1", b"x")])
    found, manifest = await registers(bed)
    assert len(found) == 1
    for info in await bed.store.list("compacted/"):
        body = await bed.store.get(info.name)
        await bed.store.delete(info.name)
        assert [finding.object_name for finding in await audit(bed.storage(), manifest)] == [info.name]
        await bed.store.put(info.name, body)
    assert await audit(bed.storage(), manifest) == []


async def test_no_register_falls_below_zero(bed):
    view = RegisterView(bed.storage(), (await registers(bed))[1])
    with pytest.raises(CorruptionError, match="fall to -1"):
        await view.changed({(1, 1): -1}, {})
    rows, _, after = await view.changed({(1, 1): 5, (1, 2): 0}, {(1, 1): 9})
    assert after == {(1, 1): Register(5, 9), (1, 2): None}
    assert [parse_register_key(key) for key, _, _ in rows] == [(1, 1)]


def test_only_registers_are_taken_for_registers():
    for value in (b"", bytes(15), bytes(16), bytes(17)):
        with pytest.raises(CorruptionError):
            decode_register(value)
    for key in (b"spaceL", b"spaceB" + bytes(12), b"spaceL" + bytes(13), b"spaceL" + b"\xff" * 12):
        with pytest.raises(CorruptionError):
            parse_register_key(key)
