"""Repack: frames move, data stays, and a newer pointer always wins."""

import random
from dataclasses import replace

import pytest

from tests.unit.lsm.kit import TINY, Bed, chunk_key
from zerofs.errors import CorruptionError
from zerofs.lsm.audit import audit
from zerofs.lsm.format.header import CHUNK_SST_MAGIC, HEADER_SIZE, decode_header, encode_header
from zerofs.lsm.format.register import Register
from zerofs.lsm.format.sst import MAX_DIRECTORY_SIZE
from zerofs.lsm.repacker import choose_victims
from zerofs.objectstore.api import body_size
from zerofs.objectstore.faults import FaultyStore
from zerofs.units import CHUNK_SIZE

RNG = random.Random(9)
KEYS = [chunk_key(1, i) for i in range(8)]
CHUNKS = {key: RNG.randbytes(CHUNK_SIZE) for key in KEYS}


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


def test_the_emptiest_victims_first_within_the_budget():
    registers = {
        (1, 1): Register(90, 100),
        (1, 2): Register(40, 100),
        (1, 3): Register(10, 100),
        (1, 4): Register(49, 100),
        (1, 5): Register(50, 100),
    }

    def chosen(budget_bytes, live_share=0.5):
        return [sst for sst, _ in choose_victims(registers, live_share=live_share, budget_bytes=budget_bytes)]

    assert chosen(1000) == [(1, 3), (1, 2), (1, 4)]
    assert chosen(1000, 1.0) == [(1, 3), (1, 2), (1, 4), (1, 5), (1, 1)]
    assert chosen(50) == [(1, 3), (1, 2)]
    assert chosen(1) == [(1, 3)]
    assert choose_victims({}, live_share=1, budget_bytes=1) == []


async def make_poor(engine):
    """One chunk SST of which a quarter is live."""
    engine.commit(list(CHUNKS.items()))
    await engine.flush()
    engine.commit([(key, b"short") for key in KEYS[:6]])


async def test_a_repack_copies_ciphertext_and_no_data_changes(bed, autojump_clock):
    bed.cache_bytes = 0
    async with bed.open() as engine:
        await make_poor(engine)
        before = bed.metrics.get("chunk_sst_bytes")
        await engine.maintenance.tighten()
        assert bed.metrics.get("repacked_ssts") >= 1
        moved = bed.metrics.get("repacked_bytes")
        assert 2 * CHUNK_SIZE < moved < 2 * CHUNK_SIZE + 1000
        assert bed.metrics.get("chunk_sst_bytes") - before < moved + 2000
        assert await engine.multi_get(KEYS) == [b"short"] * 6 + [CHUNKS[key] for key in KEYS[6:]]
        assert await audit(bed.storage(), engine.manifest) == []
    async with bed.open() as engine:
        assert await engine.multi_get(KEYS) == [b"short"] * 6 + [CHUNKS[key] for key in KEYS[6:]]


@pytest.mark.parametrize("flush_too", [False, True])
@pytest.mark.parametrize("when", ["during the upload", "during the lookups"])
async def test_what_is_written_during_a_repack_wins(bed, autojump_clock, when, flush_too):
    """The frame is copied, and its key overwritten before the new pointer is committed: in memory, or in a new run."""
    bed.cache_bytes = 0
    store = FaultyStore(bed.store, random.Random(1))
    async with bed.open(store=store) as engine:
        await make_poor(engine)
        real_put, real_get = store.put_if_absent, store.get
        written = []

        async def overwrite():
            written.append(KEYS[7])
            store.put_if_absent, store.get = real_put, real_get
            engine.commit([(KEYS[7], b"newer")])
            if flush_too:
                await engine.flush()

        async def put_if_absent(name, body, put_id):
            await real_put(name, body, put_id)
            if body_size(body) > 2 * CHUNK_SIZE:
                if when == "during the upload":
                    await overwrite()
                else:
                    store.get = get

        async def get(*args, **kwargs):
            found = await real_get(*args, **kwargs)
            await overwrite()
            return found

        store.put_if_absent = put_if_absent
        await engine.maintenance.tighten()
        assert written, "the repack was interrupted"
        assert await engine.get(KEYS[7]) == b"newer"
        assert await engine.get(KEYS[6]) == CHUNKS[KEYS[6]]
        assert await audit(bed.storage(), engine.manifest) == []
    async with bed.open() as engine:
        assert await engine.get(KEYS[7]) == b"newer"


@pytest.mark.parametrize("at_once", [1, 128])
async def test_what_is_written_between_the_last_lookup_and_the_commit_wins(bed, autojump_clock, monkeypatch, at_once):
    monkeypatch.setattr("zerofs.lsm.repacker.FRAMES_AT_ONCE", at_once)
    bed.cache_bytes = 0
    async with bed.open() as engine:
        await make_poor(engine)
        lookup = engine._lookup
        real = lookup.find_many

        async def find_many(keys):
            found = await real(keys)
            if KEYS[6] in keys and "repack_after_sst_before_pointers" in bed.world.points:
                lookup.find_many = real
                engine.commit([(KEYS[6], b"newer")])
            return found

        lookup.find_many = find_many
        await engine.maintenance.tighten()
        assert lookup.find_many == real, "the repack was interrupted"
        assert await engine.multi_get(KEYS[6:]) == [b"newer", CHUNKS[KEYS[7]]]


async def test_flushes_may_go_by_while_pointers_are_committed(bed, autojump_clock, monkeypatch):
    monkeypatch.setattr("zerofs.lsm.repacker.FRAMES_AT_ONCE", 1)
    bed.cache_bytes = 0
    async with bed.open() as engine:
        await make_poor(engine)
        real, flushes = engine._commits.repoint, []

        def repoint(*arguments):
            real(*arguments)
            flushes.append(engine._syncer.want_flush())

        monkeypatch.setattr(engine._commits, "repoint", repoint)
        await engine.maintenance.tighten()
        assert len(flushes) >= 2
        await engine.maintenance.collect()
        assert await engine.multi_get(KEYS) == [b"short"] * 6 + [CHUNKS[key] for key in KEYS[6:]]
        assert await audit(bed.storage(), engine.manifest) == []
    async with bed.open() as engine:
        assert await engine.multi_get(KEYS) == [b"short"] * 6 + [CHUNKS[key] for key in KEYS[6:]]


async def test_a_damaged_frame_is_not_carried_on(bed, autojump_clock):
    bed.cache_bytes = 0
    async with bed.open() as engine:
        await make_poor(engine)
        (victim,) = [info.name for info in await bed.store.list("compacted/") if info.size_bytes > 8 * CHUNK_SIZE]
        body = bytearray(await bed.store.get(victim))
        body[64 + 7 * (CHUNK_SIZE + 45) + 10] ^= 1  # in the nonce of the last frame
        await bed.store.delete(victim)
        await bed.store.put(victim, bytes(body))
        with pytest.raises(CorruptionError, match="not the frame"):
            await engine.maintenance.tighten()
        assert await engine.get(KEYS[6]) == CHUNKS[KEYS[6]]
        with pytest.raises(CorruptionError):
            await engine.get(KEYS[7])


@pytest.mark.parametrize("fails", ["the first frame", "a later frame", "the directory"])
async def test_a_repack_that_fails_gives_back_what_it_had_in_memory(tmp_path, autojump_clock, fails):
    """Else each failure would take a part of the writers' budget, for ever."""
    bed = Bed(tmp_path, options=replace(TINY, chunk_sst_size_bytes=8 * CHUNK_SIZE), cache_bytes=0)
    await bed.create()
    store = FaultyStore(bed.store, random.Random(1))
    async with bed.open(store=store) as engine:
        for first in (0, 100):  # two victims
            engine.commit([(chunk_key(1, first + index), RNG.randbytes(CHUNK_SIZE)) for index in range(8)])
            await engine.flush()
        engine.commit([(chunk_key(1, first + index), None) for first in (0, 100) for index in range(6)])
        await engine.flush()
        real, reads = store.get, []

        async def get(name, start=0, length=None, **options):
            if name.startswith("compacted/") and length is not None:
                reads.append(length)
                wanted = {"the first frame": length > CHUNK_SIZE, "the directory": 500 < length < CHUNK_SIZE}
                large = sum(size > CHUNK_SIZE for size in reads)
                if (large == 2 and length > CHUNK_SIZE) if fails == "a later frame" else wanted[fails]:
                    raise CorruptionError(f"{name}: damaged")
            return await real(name, start, length, **options)

        store.get = get
        before = engine.dirty_bytes
        with pytest.raises(CorruptionError, match="damaged"):
            await engine.maintenance.tighten()
        store.get = real
        assert engine.dirty_bytes == before == 0


@pytest.mark.parametrize("length", [0, MAX_DIRECTORY_SIZE + 1, 2**63])
async def test_lengths_that_somebody_made_up_are_refused_before_anything_is_asked_for(bed, autojump_clock, length):
    async with bed.open() as engine:
        await make_poor(engine)
        await engine.flush()
        name = next(info.name for info in await bed.store.list("compacted/") if info.size_bytes > 2 * CHUNK_SIZE)
        body = await bed.store.get(name)
        header = replace(
            decode_header(body, magic=CHUNK_SST_MAGIC, volume_id=bed.volume_id, name=name), second_length=length
        )
        await bed.store.put(name, encode_header(header) + body[HEADER_SIZE:])
        with pytest.raises(CorruptionError, match="impossible lengths"):
            await engine.maintenance.tighten()
