"""Two keys, one frame: what is shared is stored once, and survives whatever happens to the other key (0009)."""

import random

import pytest

from tests.unit.lsm.kit import Bed, Crash, chunk_key
from zerofs.errors import CorruptionError, ReadOnlyError
from zerofs.lsm.audit import audit, unreferenced
from zerofs.lsm.chunk import Shared
from zerofs.lsm.format.pointer import IN_SST, Pointer
from zerofs.lsm.format.register import back_reference_key, back_references, parse_back_reference
from zerofs.units import CHUNK_SIZE

RNG = random.Random(9)
SOURCES = [chunk_key(1, i) for i in range(8)]
TARGETS = [chunk_key(2, i) for i in range(8)]
DATA = [RNG.randbytes(CHUNK_SIZE) for _ in range(8)]


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path, cache_bytes=0)
    await bed.create()
    return bed


async def share(engine, sources, targets):
    values = await engine.shareable(sources)
    engine.commit(list(zip(targets, values, strict=True)))
    return values


async def stored(bed):
    return sum(info.size_bytes for info in await bed.store.list("compacted/"))


async def test_a_frame_that_is_stored_is_not_stored_again(bed, autojump_clock):
    async with bed.open() as engine:
        engine.commit(list(zip(SOURCES, DATA, strict=True)))
        await engine.flush()
        before = await stored(bed)
        values = await share(engine, SOURCES, TARGETS)
        assert all(type(value) is Shared for value in values)
        await engine.flush()
        assert await stored(bed) - before < 5000
        assert await engine.multi_get(TARGETS) == DATA
    async with bed.open() as engine:
        assert await engine.multi_get(TARGETS) == DATA
        assert await audit(bed.storage(), engine.manifest) == []


async def test_what_is_still_in_memory_is_copied(bed, autojump_clock):
    async with bed.open() as engine:
        engine.commit(list(zip(SOURCES[:2], DATA[:2], strict=True)))
        assert await share(engine, SOURCES[:3], TARGETS[:3]) == [DATA[0], DATA[1], None]
        engine.commit([(SOURCES[0], b"other")])
        assert await engine.multi_get(TARGETS[:3]) == [DATA[0], DATA[1], None]


async def test_the_source_may_go(bed, autojump_clock):
    """Deleted, merged away, collected: the target keeps the frame, and the space goes with the last of them."""
    async with bed.open() as engine:
        engine.commit(list(zip(SOURCES, DATA, strict=True)))
        await engine.flush()
        await share(engine, SOURCES, TARGETS)
        engine.commit([], [(SOURCES[0], chunk_key(1, 99))])
        await engine.maintenance.tighten()
        assert await engine.multi_get(TARGETS) == DATA
        assert await audit(bed.storage(), engine.manifest) == []
        engine.commit([], [(TARGETS[0], chunk_key(2, 99))])
        await engine.maintenance.tighten()
        assert await stored(bed) < 1000
        assert not engine.manifest.tree(b"space").runs, "no register, and no back-reference, is left"
        assert await unreferenced(bed.storage()) == set()


@pytest.mark.parametrize("gone", ["nothing", "sources", "targets", "some of both"])
async def test_a_repack_follows_all_keys_and_stores_a_shared_frame_once(bed, autojump_clock, gone):
    async with bed.open() as engine:
        engine.commit(list(zip(SOURCES, DATA, strict=True)))
        await engine.flush()
        await share(engine, SOURCES[6:], TARGETS[6:])
        model = dict(zip(SOURCES, DATA, strict=True)) | dict(zip(TARGETS[6:], DATA[6:], strict=True))
        lost = {
            "nothing": [],
            "sources": SOURCES[6:],
            "targets": TARGETS[6:],
            "some of both": [SOURCES[6], TARGETS[7]],
        }[gone]
        for key in [*SOURCES[:6], *lost]:
            engine.commit([(key, b"short")])
            model[key] = b"short"
        await engine.maintenance.tighten()
        assert bed.metrics.get("repacked_ssts") >= 1
        assert await engine.multi_get(list(model)) == list(model.values())
        assert await stored(bed) < 2 * CHUNK_SIZE + 5000, "two frames are live, and each is there once"
        assert await audit(bed.storage(), engine.manifest) == []
        # And again: the back-references of the new place work as those of the old one.
        for key in SOURCES[6:]:
            engine.commit([(key, b"gone")])
            model[key] = b"gone"
        engine.commit([(chunk_key(3, i), RNG.randbytes(CHUNK_SIZE)) for i in range(2)])
        await engine.maintenance.tighten()
        assert await engine.multi_get(list(model)) == list(model.values())
        assert await audit(bed.storage(), engine.manifest) == []
        assert await unreferenced(bed.storage()) == set()
    async with bed.open() as engine:
        assert await engine.multi_get(list(model)) == list(model.values())


async def test_a_shared_frame_is_held_from_the_moment_it_was_given_out(bed, autojump_clock):
    with pytest.raises(Crash):
        async with bed.open() as engine:
            engine.commit(list(zip(SOURCES, DATA, strict=True)))
            await engine.flush()
            values = await engine.shareable(SOURCES)
            engine.commit([], [(SOURCES[0], chunk_key(1, 99))])
            await engine.maintenance.collect()
            engine.commit(list(zip(TARGETS, values, strict=True)))
            await engine.sync()
            await engine.maintenance.collect()
            raise Crash
    async with bed.open() as engine:
        assert await engine.multi_get(TARGETS) == DATA
        assert await engine.multi_get(SOURCES) == [None] * 8


async def test_a_reader_shares_nothing(bed):
    async with bed.open(read_only=True) as engine:
        with pytest.raises(ReadOnlyError):
            await engine.shareable(SOURCES)


def test_back_references():
    pointer = Pointer(IN_SST, 3, 9, 77, 100, 50, bytes(24))
    key = back_reference_key(pointer, TARGETS[5])
    start, stop = back_references((3, 9))
    assert start <= key < stop
    assert not back_references((3, 8))[0] <= key < back_references((3, 8))[1]
    assert parse_back_reference(key) == (77, TARGETS[5])
    for bad in (b"", b"spaceL" + bytes(30), start, start + bytes(4)):
        with pytest.raises(CorruptionError):
            parse_back_reference(bad)
