"""Parts of chunks are overwritten without what is there being read; it is when they are sealed (decision 0021)."""

import random
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.lsm.clones import Family
from tests.unit.lsm.kit import TINY, Bed, GatedStore, chunk_key
from zerofs.errors import AccessDeniedError, CorruptionError, UnavailableError
from zerofs.lsm.audit import audit
from zerofs.lsm.commits import LIVE_CHUNKS_MAX
from zerofs.lsm.format.pointer import IN_SST, NONCE_SIZE, Pointer
from zerofs.lsm.patch import PARTS_MAX, Patch
from zerofs.objectstore.decorator import StoreDecorator
from zerofs.objectstore.probe import PROBE_PREFIX
from zerofs.units import CHUNK_SIZE, KIB, MIB

RNG = random.Random(21)
KEYS = [chunk_key(1, i) for i in range(8)]
CHUNKS = {key: RNG.randbytes(CHUNK_SIZE) for key in KEYS}


@pytest.fixture
async def bed(tmp_path, autojump_clock):
    """A volume with eight chunks, none of them in memory when it is opened."""
    bed = Bed(tmp_path, options=replace(TINY, inline_frames_size_bytes=16 * KIB))
    await bed.create()
    async with bed.open() as engine:
        engine.commit(list(CHUNKS.items()))
        await engine.flush()
    return bed


async def patch(engine, key, start, data):
    (base,) = await engine.bases([key])
    assert type(base) is Patch
    base.write(start, data)
    engine.commit([(key, base)])
    return base


def patched(key, *parts):
    data = bytearray(CHUNKS[key])
    for start, part in parts:
        data[start : start + len(part)] = part
    return bytes(data)


def fetches(bed):
    return bed.metrics.get("chunk_fetches")


def pointer(size):
    return Pointer(IN_SST, 1, 1, 0, size, size, bytes(NONCE_SIZE))


@given(
    st.binary(min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 50), st.binary(min_size=1, max_size=30)), min_size=1, max_size=6),
)
def test_a_patch_is_what_writing_to_the_chunk_makes_of_it(base, parts):
    expected, unread, patch = bytearray(base), set(range(len(base))), Patch(pointer(len(base)))
    for start, data in parts:
        expected.extend(bytes(max(0, start - len(expected))))
        expected[start : start + len(data)] = data
        unread -= set(range(start, start + len(data)))
        patch.write(start, data)
        assert patch.size == len(expected)
        assert patch.over(base) == expected
        if patch.whole() is not None:
            assert not unread
            assert patch.whole() == expected


def test_what_is_written_from_the_beginning_on_needs_nothing_of_the_base():
    patch = Patch(pointer(10))
    patch.write(0, b"abcd")
    assert patch.whole() is None
    patch.write(4, b"efghijkl")
    assert patch.whole() == b"abcdefghijkl"


def test_a_copy_stays_as_it_is():
    patch = Patch(pointer(4))
    patch.write(0, b"a")
    copy = patch.copy()
    patch.write(1, b"bcdef")
    assert (copy.over(b"0123"), copy.size, copy.whole()) == (b"a123", 4, None)
    assert patch.over(b"0123") == b"abcdef"


async def test_nothing_is_read_before_it_is_needed(bed):
    async with bed.open() as engine:
        for key in KEYS:
            await patch(engine, key, 100, b"new")
        assert fetches(bed) == 0
        assert await engine.get(KEYS[3]) == patched(KEYS[3], (100, b"new"))
        assert fetches(bed) == 1
        await engine.sync()
        assert fetches(bed) <= 3, "the others come together"
        assert await engine.multi_get(KEYS) == [patched(key, (100, b"new")) for key in KEYS]
    async with bed.open() as engine:
        assert await engine.multi_get(KEYS) == [patched(key, (100, b"new")) for key in KEYS]
        assert await audit(bed.storage(), engine.manifest) == []


async def test_parts_gather_until_there_are_many(bed):
    parts = [(7 * number, b"%03d" % number) for number in range(PARTS_MAX)]
    async with bed.open() as engine:
        for start, data in parts:
            await patch(engine, KEYS[0], start, data)
        assert await engine.bases(KEYS[:1]) == [patched(KEYS[0], *parts)]


async def test_what_is_in_memory_and_what_is_not_there_is_no_patch(bed):
    live = chunk_key(9, 0)
    async with bed.open() as engine:
        engine.commit([(live, b"fresh"), (KEYS[1], None)])
        first, gone, missing, stored = await engine.bases([live, KEYS[1], chunk_key(9, 9), KEYS[2]])
        assert (first, gone, missing) == (b"fresh", None, None)
        assert type(stored) is Patch


@asynccontextmanager
async def being_made_whole(bed):
    """An engine whose sync waits for what the patch of the first key lies on, until the gate is opened; a nursery."""
    store = GatedStore(bed.store)
    async with bed.open(store=store) as engine, trio.open_nursery() as nursery:
        await patch(engine, KEYS[0], 0, b"one")
        store.gate = trio.Event()
        nursery.start_soon(engine.sync)
        await trio.testing.wait_all_tasks_blocked()
        yield engine, store.gate, nursery


async def test_a_patch_that_is_being_made_whole_is_read_and_written_on(bed):
    async with being_made_whole(bed) as (engine, gate, nursery):
        found = []

        async def write_on():
            (base,) = await engine.bases(KEYS[:1])
            found.append(base)
            engine.commit([(KEYS[0], base[:3] + b"two" + base[6:])])

        nursery.start_soon(write_on)
        await trio.testing.wait_all_tasks_blocked()
        assert not found
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert found == [patched(KEYS[0], (0, b"one"))]
        await engine.sync()
    async with bed.open() as engine:
        assert await engine.get(KEYS[0]) == patched(KEYS[0], (0, b"onetwo"))


async def test_a_patch_that_is_overwritten_costs_nothing(bed):
    async with bed.open() as engine:
        for key in KEYS[:4]:
            await patch(engine, key, 0, b"one")
        engine.commit([(key, None) for key in KEYS[:2]], [(KEYS[2], KEYS[4])])
        await engine.sync()
        assert fetches(bed) == 0
        assert engine.dirty_bytes == 0
        assert await engine.multi_get(KEYS[:4]) == [None] * 4


@asynccontextmanager
async def many_stored(bed, count):
    """An engine with memory for many patches, and the keys of so many chunks that it has in the store."""
    bed.options = replace(TINY, dirty_limit_bytes=64 * MIB, memtable_size_bytes=16 * MIB)
    keys = [chunk_key(2, i) for i in range(count)]
    async with bed.open() as engine:
        engine.commit([(key, key * 100) for key in keys])
        await engine.flush()
        yield engine, keys


async def test_more_patches_than_memory_should_hold_are_sealed_while_writing_goes_on(bed):
    async with many_stored(bed, LIVE_CHUNKS_MAX + 200) as (engine, keys):
        for key in keys:
            await patch(engine, key, 5, b"new")
        held = engine.dirty_bytes
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < engine.dirty_bytes < held
        await engine.sync()
        assert engine.dirty_bytes == 0
        expected = [(key * 100)[:5] + b"new" + (key * 100)[8:] for key in keys]
        assert await engine.multi_get(keys) == expected
    async with bed.open() as engine:
        assert await engine.multi_get(keys) == expected


async def damage(bed, key):
    """The frame of a chunk does not open any more."""
    async with bed.open(read_only=True) as reader:
        place = await reader._lookup.find(key)
    body = bytearray(await bed.store.get(place.object_name))
    body[place.offset + place.length - 1] ^= 1
    await bed.store.delete(place.object_name)
    await bed.store.put(place.object_name, bytes(body))


async def test_a_write_over_what_is_damaged_is_lost_alone_and_told(bed):
    await damage(bed, KEYS[3])
    async with bed.open() as engine:
        for key in KEYS:
            await patch(engine, key, 100, b"new")
        engine.commit([(b"meta", b"row")])
        await engine.sync()
        ((key, error),) = engine.take_losses()
        assert key == KEYS[3]
        assert type(error) is CorruptionError
        assert engine.take_losses() == []
    others = [key for key in KEYS if key != KEYS[3]]
    async with bed.open() as engine:
        assert await engine.multi_get(others) == [patched(key, (100, b"new")) for key in others]
        assert await engine.get(b"meta") == b"row"
        with pytest.raises(CorruptionError):
            await engine.get(KEYS[3])
        assert await audit(bed.storage(), engine.manifest) == []
        engine.commit([(KEYS[3], b"whole again")])
        await engine.flush()
        await engine.maintenance.tighten()
        assert await audit(bed.storage(), engine.manifest) == []


@pytest.mark.parametrize("error", [UnavailableError("down"), AccessDeniedError("the credentials have expired")])
async def test_an_outage_holds_the_sync_and_loses_nothing(bed, autojump_clock, error):
    """Also where reads alone meet it: whether the store is well is asked before anything is given up."""
    store = Refusing(bed.store)
    async with bed.open(store=store) as engine:
        await patch(engine, KEYS[0], 0, b"new")
        await patch(engine, KEYS[7], 0, b"new")
        store.refuse, store.error = lambda name: True, error
        for _ in range(4):
            with pytest.raises(UnavailableError, match="stays in memory"):
                await engine.sync()
        assert engine.state == "read-only"
        store.refuse = lambda name: False
        await engine.sync()
        assert engine.state == "ok"
        assert engine.take_losses() == []
    async with bed.open() as engine:
        assert await engine.get(KEYS[0]) == patched(KEYS[0], (0, b"new"))
        assert await engine.get(KEYS[7]) == patched(KEYS[7], (0, b"new"))
    assert not await bed.store.list(PROBE_PREFIX)


class Refusing(StoreDecorator):
    """Refuses what has to do with some objects."""

    error = UnavailableError("down")

    def __init__(self, inner):
        super().__init__(inner)
        self.refuse = lambda name: False

    async def _around(self, request, call):
        if self.refuse(request.name):
            raise self.error
        return await call()


@pytest.mark.parametrize("error", [UnavailableError("503: no read quorum"), AccessDeniedError("403: archived")])
async def test_an_object_that_cannot_be_had_from_a_store_that_is_well_is_given_up(bed, autojump_clock, error):
    """It must not hold whatever else is to be stored."""
    store = Refusing(bed.store)
    async with bed.open(store=store) as engine:
        for key in KEYS[:3]:
            await patch(engine, key, 0, b"new")
        engine.commit([(b"meta", b"row")])
        bad = (await engine._lookup.find(KEYS[5])).object_name
        store.refuse, store.error = lambda name: name == bad, error
        begun = trio.current_time()
        with pytest.raises(UnavailableError):
            await engine.sync()
        await engine.sync()
        assert trio.current_time() - begun < 4 * bed.options.sync_timeout_s, "not once for each"
        assert {key for key, _ in engine.take_losses()} == set(KEYS[:3])
    async with bed.open() as engine:
        assert await engine.multi_get(KEYS) == list(CHUNKS.values())
        assert await engine.get(b"meta") == b"row"


async def test_what_is_fetched_ahead_below_a_patch_that_is_being_made_whole(bed, caplog):
    bed.cache_bytes = 4 * MIB
    async with being_made_whole(bed) as (engine, gate, _):
        engine.prefetch(KEYS)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        before = fetches(bed)
        assert await engine.multi_get(KEYS[1:]) == [CHUNKS[key] for key in KEYS[1:]]
        assert fetches(bed) == before
    assert not caplog.records


async def test_patches_that_nobody_needs_any_more_do_not_stay(bed):
    async with many_stored(bed, LIVE_CHUNKS_MAX + 1) as (engine, keys):
        for key in keys[:-1]:
            await patch(engine, key, 5, b"new")
        engine.commit([(key, None) for key in keys[:50]])
        await patch(engine, keys[-1], 5, b"new")
        engine.commit([], [(keys[0], keys[-1] + b"\0")])
        await engine.sync()
        assert engine.dirty_bytes == 0


async def test_a_patch_holds_no_more_than_a_chunk_or_two(bed):
    patch = Patch(pointer(CHUNK_SIZE))
    for number in range(PARTS_MAX):
        patch.write(1, bytes([number]) * 100)
    assert len(patch._parts) == 1
    patch.write(1000, bytes(CHUNK_SIZE - 1000))
    assert not patch.is_full
    patch.write(500, bytes(CHUNK_SIZE - 501))
    assert patch.is_full


@pytest.mark.parametrize("flush_too", [False, True])
async def test_a_repack_takes_nothing_away_from_below_a_patch(bed, flush_too):
    """Nobody moves the frame for a key that has something newer; but the patch still needs it."""
    bed.cache_bytes = 0
    async with bed.open() as engine:
        engine.commit([(key, b"short") for key in KEYS[:6]])
        await patch(engine, KEYS[6], 9, b"new")
        if flush_too:
            await engine.flush()
            await patch(engine, KEYS[7], 9, b"new")
        await engine.maintenance.tighten()
        await engine.sync()
        assert engine.take_losses() == []
        assert await engine.get(KEYS[6]) == patched(KEYS[6], (9, b"new"))
        assert await audit(bed.storage(), engine.manifest) == []
    async with bed.open() as engine:
        assert await engine.get(KEYS[6]) == patched(KEYS[6], (9, b"new"))
        assert await engine.get(KEYS[7]) == (patched(KEYS[7], (9, b"new")) if flush_too else CHUNKS[KEYS[7]])


async def test_a_base_is_what_the_key_has_although_a_repack_moves_it_meanwhile(bed):
    """What was looked up is looked up again when a version came in between."""
    bed.cache_bytes = 0
    async with bed.open() as engine:
        engine.commit([(key, b"short") for key in KEYS[:6]])
        await engine.flush()
        real = engine._lookup.find_many
        moved = []

        async def find_many(keys):
            found = await real(keys)
            if not moved:
                moved.append(found)
                engine._lookup.find_many = real
                await engine.maintenance.tighten()
                await engine.flush()
            return found

        engine._lookup.find_many = find_many
        (base,) = await engine.bases([KEYS[6]])
        assert moved
        assert base.base != moved[0][0], "it has moved"
        engine.commit([(KEYS[6], base)])
        await engine.flush()
        await engine.maintenance.tighten()
        assert await engine.get(KEYS[6]) == CHUNKS[KEYS[6]]


async def test_what_a_clone_has_of_its_source_is_read_at_once(tmp_path, autojump_clock):
    """The source's store may be another one: that it is away must not hold what has nothing to do with it."""
    family = Family(tmp_path)
    source = await family.source()
    async with source.open() as engine:
        engine.commit([(KEYS[0], CHUNKS[KEYS[0]])])
        await engine.checkpoints.create("one")
    clone = await family.clone(source, "one")
    async with clone.open() as engine:
        assert await engine.bases(KEYS[:1]) == [CHUNKS[KEYS[0]]]
        engine.commit([(KEYS[0], b"own"), (KEYS[1], b"own")])
        await engine.flush()
        (base,) = await engine.bases(KEYS[:1])
        assert type(base) is Patch
