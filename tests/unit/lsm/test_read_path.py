"""What reads ask the store for, and how often (decision 0019)."""

import os
import random
from dataclasses import replace
from functools import partial

import pytest
import trio

from tests.unit.lsm.kit import TINY, VOLUME_ID, Bed, GatedStore, chunk_key
from zerofs.errors import CorruptionError, UnavailableError
from zerofs.lsm.chunkreader import ChunkReader
from zerofs.lsm.frames import WINDOW_BYTES, FrameFetcher
from zerofs.lsm.storage import Storage
from zerofs.objectstore.local import LocalStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.telemetry.metrics import Metrics
from zerofs.testing.sealers import simulated_sealers
from zerofs.testing.world import SimWorld
from zerofs.units import CHUNK_SIZE, MIB

NOISE = random.Random(19)
LARGE = [NOISE.randbytes(CHUNK_SIZE) for _ in range(32)]
SMALL = [NOISE.randbytes(2000) for _ in range(100)]
OPTIONS = replace(TINY, chunk_sst_size_bytes=2 * MIB, dirty_limit_bytes=8 * MIB, cache_memory_bytes=16 * MIB)


@pytest.fixture
async def bed(tmp_path, autojump_clock):
    """A volume with one large file (inode 1) and a hundred small ones (inodes 100 to 199)."""
    bed = Bed(tmp_path, options=OPTIONS, cache_bytes=4 * MIB)
    await bed.create()
    async with bed.open() as engine:
        engine.commit([(chunk_key(1, i), data) for i, data in enumerate(LARGE)])
        engine.commit([(chunk_key(100 + i, 0), data) for i, data in enumerate(SMALL)])
        await engine.flush()
    return bed


def gets(bed):
    """How many ranges of chunk data were fetched so far."""
    return bed.metrics.get("chunk_fetches")


async def settled():
    """Everything that was begun has ended; nothing here takes time."""
    await trio.testing.wait_all_tasks_blocked()


async def know_rows(engine):
    """From here on only the chunks themselves have to be fetched."""
    assert all([await engine.contains(chunk_key(1, i)) for i in range(32)])


async def test_what_was_prefetched_is_there_without_another_request(bed):
    async with bed.open(read_only=True) as engine:
        engine.prefetch([chunk_key(1, i) for i in range(16)])
        await settled()
        assert gets(bed) == 1, "neighbouring frames come with one request"
        before = bed.requests()
        assert await engine.multi_get([chunk_key(1, i) for i in range(16)]) == LARGE[:16]
        assert bed.requests() == before


async def test_a_read_waits_for_the_prefetch_that_is_under_way(bed):
    store = GatedStore(bed.store)
    async with bed.open(store=store, read_only=True) as engine:
        await know_rows(engine)
        store.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            engine.prefetch([chunk_key(1, i) for i in range(8)])
            await settled()
            results = {}

            async def read(index):
                results[index] = await engine.get(chunk_key(1, index))

            for index in (0, 7, 7, 8):
                nursery.start_soon(read, index)
            await settled()
            assert not results
            store.gate.set()
        assert results == {0: LARGE[0], 7: LARGE[7], 8: LARGE[8]}
        assert gets(bed) == 2, "one of the prefetch, one for what was not in it"


async def test_a_prefetch_that_fails_is_no_error_and_its_reader_asks_for_himself(bed):
    store = GatedStore(bed.store)
    async with bed.open(store=store, read_only=True) as engine:
        await know_rows(engine)
        store.error = UnavailableError("away")
        store.gate = trio.Event()
        engine.prefetch([chunk_key(1, 0)])
        async with trio.open_nursery() as nursery:

            async def read():
                assert await engine.get(chunk_key(1, 0)) == LARGE[0]

            await settled()
            nursery.start_soon(read)
            await settled()
            store.gate.set()


async def test_wishes_beyond_the_hands_that_are_free_are_dropped(bed):
    store = GatedStore(bed.store)
    async with bed.open(store=store, read_only=True) as engine:
        await know_rows(engine)
        store.gate = trio.Event()
        room = OPTIONS.cache_memory_bytes // 10 // CHUNK_SIZE
        assert engine.prefetch([chunk_key(1, i) for i in range(room)])
        assert not engine.prefetch([chunk_key(1, room)])
        assert bed.metrics.get("prefetches_dropped") == 1
        store.gate.set()
        await settled()
        assert engine.prefetch([chunk_key(1, room)])


async def test_whatever_goes_wrong_in_a_prefetch_ends_nothing_but_that(bed, monkeypatch, caplog):
    async with bed.open(read_only=True) as engine:
        await know_rows(engine)
        with monkeypatch.context() as patch:

            async def fail(*args, **kwargs):
                raise MemoryError

            patch.setattr(engine._chunk_reader, "read", fail)
            for _ in range(3):
                assert engine.prefetch([chunk_key(1, 0)])
            await settled()
        assert caplog.text.count("fetching ahead failed; reads go on") == 1
        assert await engine.get(chunk_key(1, 0)) == LARGE[0]


async def test_a_closing_engine_waits_for_no_prefetch(bed):
    store = GatedStore(bed.store)
    async with bed.open(store=store) as engine:
        await know_rows(engine)
        store.gate = trio.Event()
        assert engine.prefetch([chunk_key(1, 0)])
        await settled()
        store.gate = opened = trio.Event()
        opened.set()  # for whoever comes now; the prefetch still waits at the old one
    assert not engine.prefetch([chunk_key(1, 0)])


async def test_a_chunk_that_is_overwritten_while_others_are_looked_up(bed):
    """What was found in memory is nowhere when the rest has been found: it is looked up again, and nobody hangs."""
    store = GatedStore(bed.store)
    async with bed.open(store=store) as engine:
        key, cold = chunk_key(1, 0), chunk_key(1, 1)
        engine.commit([(key, b"1" * CHUNK_SIZE)])
        store.gate = trio.Event()
        results = {}

        async def read():
            results["both"] = await engine.multi_get([key, cold])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await settled()
            engine.commit([(key, b"2" * CHUNK_SIZE)])
            store.gate.set()
        assert results["both"] in ([b"1" * CHUNK_SIZE, LARGE[1]], [b"2" * CHUNK_SIZE, LARGE[1]])
        with trio.fail_after(60):
            assert await engine.multi_get([key, cold]) == [b"2" * CHUNK_SIZE, LARGE[1]]
        assert not engine._chunk_reader._flights


async def test_whoever_waits_for_a_read_that_fails_gets_its_error_instead_of_asking_again(bed):
    store = GatedStore(bed.store)
    async with bed.open(store=store, read_only=True) as engine:
        await know_rows(engine)
        store.gate = trio.Event()
        store.error = UnavailableError("away")
        errors = []

        async def read():
            try:
                await engine.get(chunk_key(1, 0))
            except UnavailableError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
            await settled()
            store.gate.set()
        assert len(errors) == 5
        assert gets(bed) == 0


async def test_a_frame_in_memory_does_not_wait_for_one_in_the_store(bed):
    storage = bed.storage(GatedStore(bed.store))
    async with bed.open(read_only=True) as engine:
        pointers = [await engine._lookup.find(chunk_key(100 + i, 0)) for i in range(2)]
    reader = ChunkReader(storage, OPTIONS)
    body = await bed.store.get(pointers[0].object_name, pointers[0].offset, pointers[0].length)
    reader._fetcher._neighbours.put(pointers[0].nonce, body, len(body))
    storage.store._inner.gate = gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(reader.read, pointers, unasked=True))
        await settled()
        assert await reader.read([pointers[0]]) == [SMALL[0]]
        gate.set()


async def test_neighbours_come_from_the_same_object_only(bed):
    """The rows may be older than what is wanted, which a memtable has."""
    async with bed.open() as engine:
        engine.commit([(chunk_key(150, 0), b"anew" * 200)])
        engine.commit([(chunk_key(200 + i, 0), NOISE.randbytes(CHUNK_SIZE)) for i in range(60)])
        await engine.sync()
        entry = await engine._lookup.find(chunk_key(150, 0))
        old = (await engine._lookup.find(chunk_key(149, 0))).object_name
        if entry.pointer is None or entry.pointer.object_name == old:
            pytest.fail("the chunk was to be in an object of its own by now")
        entry.data = entry.frame = None
        engine._storage.chunks.discard(entry.nonce)
        await bed.store.delete(old)
        assert await engine.get(chunk_key(150, 0)) == b"anew" * 200


async def test_a_prefetch_of_what_is_not_there_or_has_no_chunk_is_nothing(bed):
    async with bed.open(read_only=True) as engine:
        engine.prefetch([chunk_key(77, 0), b"meta"])
        await settled()
        assert gets(bed) == 0


async def test_small_files_that_were_written_together_come_together(bed):
    order = list(range(100))
    random.Random(3).shuffle(order)
    async with bed.open(read_only=True) as engine:
        for i in order:
            assert await engine.get(chunk_key(100 + i, 0)) == SMALL[i]
    assert gets(bed) < 20


async def test_the_window_grows_while_neighbours_are_used_and_shrinks_when_they_are_not(bed):
    async with bed.open(read_only=True) as engine:
        pointers = [await engine._lookup.find(chunk_key(100 + i, 0)) for i in range(100)]
    fetcher = FrameFetcher(bed.storage(), OPTIONS)
    windows = []

    async def fetch(i, neighbours):
        async def near(position, window_bytes):
            windows.append(window_bytes)
            return [pointers[n] for n in neighbours]

        wanted = await fetcher.look([(0, pointers[i])], {})
        if wanted:
            await fetcher.fetch(wanted, near)

    for i in range(0, 20, 2):
        await fetch(i, [i + 1])
        await fetch(i + 1, [])
    assert windows == sorted(windows)
    assert (windows[0], windows[-1]) == WINDOW_BYTES
    for i in range(50, 90):
        await fetch(i, [])
    assert windows[-1] == WINDOW_BYTES[0]


async def test_whole_chunks_of_large_files_bring_no_neighbours(bed):
    async with bed.open(read_only=True) as engine:
        assert await engine.get(chunk_key(1, 5)) == LARGE[5]
    assert bed.metrics.get("chunk_fetch_bytes") < CHUNK_SIZE + 100


async def test_a_damaged_neighbour_is_told_to_whoever_wants_it_and_to_nobody_else(bed):
    async with bed.open(read_only=True) as engine:
        pointer = await engine._lookup.find(chunk_key(150, 0))
    body = bytearray(await bed.store.get(pointer.object_name))
    body[pointer.offset + 8] ^= 1
    await bed.store.put(pointer.object_name, bytes(body))
    async with bed.open(read_only=True) as engine:
        assert await engine.get(chunk_key(149, 0)) == SMALL[49]
        assert await engine.get(chunk_key(151, 0)) == SMALL[51]
        with pytest.raises(CorruptionError, match="not the frame that its pointer row names"):
            await engine.get(chunk_key(150, 0))


async def test_many_keys_are_found_as_one_by_one(tmp_path, autojump_clock):
    """Runs, memtables, deletes and range deletes above one another."""
    choice = random.Random(4)
    bed = Bed(tmp_path)
    await bed.create()
    keys = [chunk_key(i // 20, i % 20) for i in range(200)]
    async with bed.open() as engine:
        for _ in range(8):
            engine.commit([(key, choice.randbytes(40)) for key in choice.sample(keys, 60)])
            engine.commit([(key, None) for key in choice.sample(keys, 20)])
            inode = choice.randrange(10)
            engine.commit([], [(chunk_key(inode, 3), chunk_key(inode, 12))])
            if choice.random() < 0.7:
                await engine.flush()
            asked = [*choice.sample(keys, 50), chunk_key(99, 0)]
            assert await engine.multi_get(asked) == [await engine.get(key) for key in asked]


def test_copies_are_kept_only_of_what_lies_elsewhere(tmp_path):
    class Cache:
        device = tmp_path.stat().st_dev

    def keeps(store, cache):
        storage = Storage(
            store=store,
            world=SimWorld(),
            sealers=simulated_sealers(VOLUME_ID),
            volume_id=VOLUME_ID,
            metrics=Metrics(),
            cache_memory_bytes=MIB,
            disk_cache=cache,
        )
        return storage.disk_cache_for(storage.origins.own) is not None

    other = Cache()
    other.device += 1
    beside = LocalStore(tmp_path, SimWorld())
    assert not keeps(beside, Cache())
    assert keeps(beside, other)
    assert keeps(MemoryStore(), Cache())
    assert not keeps(beside, None)
    odd = tmp_path / os.fsdecode(b"odd %41\xff")
    odd.mkdir()
    assert not keeps(LocalStore(odd, SimWorld()), Cache())
