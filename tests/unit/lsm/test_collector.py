"""The collector's rule, clause by clause (decision 0010)."""

import random

import pytest
import trio

from tests.unit.lsm.kit import Bed, Crash, chunk_key
from zerofs.errors import CorruptionError, FencedError
from zerofs.lsm.collector import doomed_manifests, doomed_ssts, doomed_wal
from zerofs.lsm.format.names import sst_name, wal_name
from zerofs.lsm.format.wal import FENCE_OBJECT_MAX_SIZE
from zerofs.objectstore.faults import FaultyStore
from zerofs.units import CHUNK_SIZE

RNG = random.Random(9)
CHUNKS = {chunk_key(1, i): RNG.randbytes(CHUNK_SIZE) for i in range(8)}


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


async def names(bed, prefix):
    return [info.name for info in await bed.store.list(prefix)]


# --- the pure rule ----------------------------------------------------------------------------------------------------


def test_ssts():
    listed = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    assert doomed_ssts(listed, epoch=2, referred={(1, 1), (2, 1)}, protected={(2, 2)}) == [(1, 2), (2, 3)]
    assert doomed_ssts(listed, epoch=2, referred=set(), protected={(1, 2)}) == [(1, 1), (2, 1), (2, 2), (2, 3)]
    with pytest.raises(CorruptionError, match="later epoch"):
        doomed_ssts(listed, epoch=1, referred=set(listed), protected=set())


def test_wal():
    listed = [(1, FENCE_OBJECT_MAX_SIZE), (2, 500), (3, FENCE_OBJECT_MAX_SIZE + 1), (4, 500)]
    assert doomed_wal(listed, mark=3) == [2, 3]
    assert doomed_wal(listed, mark=0) == []


def test_manifests():
    assert doomed_manifests([1, 2, 3, 4, 5, 6], current=6, kept={2}) == [1, 3, 4]
    assert doomed_manifests([1], current=1, kept=set()) == []


# --- the pass ---------------------------------------------------------------------------------------------------------


async def test_what_only_the_wal_names_is_held(bed, autojump_clock):
    """Chunk SSTs that were synced and not flushed: no version knows them."""
    with pytest.raises(Crash):
        async with bed.open() as engine:
            engine.commit(list(CHUNKS.items()))
            await engine.sync()
            assert await names(bed, "compacted/")
            await engine.maintenance.collect()
            assert await engine.multi_get(list(CHUNKS)) == list(CHUNKS.values())
            raise Crash
    with pytest.raises(Crash):
        async with bed.open() as engine:
            # The same for rows that were replayed, and overwritten since: the WAL objects still name the old ones.
            engine.commit([(key, b"new") for key in CHUNKS])
            await engine.maintenance.collect()
            raise Crash
    bed.cache_bytes = 0
    async with bed.open() as engine:
        assert await engine.multi_get(list(CHUNKS)) == list(CHUNKS.values())
        engine.commit([(key, b"new") for key in CHUNKS])
        await engine.flush()
        await engine.maintenance.collect()
        assert await engine.multi_get(list(CHUNKS)) == [b"new"] * len(CHUNKS)


async def test_what_is_overwritten_after_a_cut_is_held_until_that_is_flushed(bed, autojump_clock):
    """Two memtables: the flush of the older one does not let go of what the newer one's WAL objects name."""
    slow = FaultyStore(bed.store, random.Random(1))
    real_put, synced = slow.put_if_absent, trio.Event()

    async def put_if_absent(name, body, put_id):
        if name.startswith("manifest/") and not synced.is_set():
            await synced.wait()
        await real_put(name, body, put_id)

    with pytest.raises(Crash):
        async with bed.open(store=slow) as engine:
            slow.put_if_absent = put_if_absent
            engine.commit([(b"meta1", b"x")])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.flush)
                while not engine.statistics()["frozen_memtables"]:
                    await trio.lowlevel.checkpoint()
                engine.commit(list(CHUNKS.items()))
                await engine.sync()
                synced.set()
            engine.commit([(key, b"new") for key in CHUNKS])
            await engine.maintenance.collect()
            raise Crash
    bed.cache_bytes = 0
    async with bed.open() as engine:
        assert await engine.multi_get(list(CHUNKS)) == list(CHUNKS.values())


async def test_what_is_stored_while_the_store_is_listed_is_not_mistaken(bed, autojump_clock):
    """An SST that is uploaded and committed between the listing and the decision."""
    store = FaultyStore(bed.store, random.Random(1))
    async with bed.open(store=store) as engine:
        await engine.flush()
        real_list = store.list

        async def listing(prefix, start_after=""):
            if prefix == "compacted/":
                engine.commit(list(CHUNKS.items()))
                await engine.flush()
            return await real_list(prefix, start_after)

        store.list = listing
        before = engine.manifest
        await engine.maintenance.collect()
        store.list = real_list
        assert engine.manifest is not before
        bed.cache_bytes = 0
        async with bed.open(host="reader", read_only=True) as reader:
            assert await reader.multi_get(list(CHUNKS)) == list(CHUNKS.values())


async def test_a_writer_that_was_replaced_collects_nothing(bed, autojump_clock):
    with pytest.raises(FencedError):
        async with bed.open() as old:
            await old.maintenance.stop()  # its own pass may be under way
            old.commit([(b"meta1", b"x")])
            await old.flush()
            async with bed.open(host="there") as new:
                new.commit([(b"meta2", b"y")])
                await new.flush()
                await new.maintenance.stop()
                there = await bed.store.list("")
                with pytest.raises(FencedError):
                    await old.maintenance.collect()
                assert await bed.store.list("") == there


async def test_fences_stay_for_ever(bed, autojump_clock):
    for number in range(4):
        async with bed.open() as engine:
            engine.commit([(b"meta%d" % number, b"x" * 200)])
            await engine.sync()
            await engine.maintenance.tighten()
    sizes = {info.name: info.size_bytes for info in await bed.store.list("wal/")}
    fences = [name for name, size in sizes.items() if size <= FENCE_OBJECT_MAX_SIZE]
    assert len(fences) == 4
    assert wal_name(1) in fences
    assert len(sizes) <= 6, "all others below the mark are gone"


async def test_the_wal_above_the_mark_stays(bed, autojump_clock):
    with pytest.raises(Crash):
        async with bed.open() as engine:
            engine.commit([(b"meta1", b"x" * 300)])
            await engine.flush()
            engine.commit([(b"meta2", b"y" * 300)])
            await engine.sync()
            await engine.maintenance.collect()
            raise Crash
    async with bed.open() as engine:
        assert await engine.multi_get([b"meta1", b"meta2"]) == [b"x" * 300, b"y" * 300]


async def test_an_object_of_a_later_epoch_ends_the_pass(bed, autojump_clock):
    async with bed.open() as engine:
        engine.commit([(b"meta1", b"x")])
        await engine.flush()
        await bed.store.put(sst_name((99, 1)), b"whose is it?")
        there = await bed.store.list("")
        with pytest.raises(CorruptionError, match="later epoch"):
            await engine.maintenance.collect()
        assert await bed.store.list("") == there
        await bed.store.delete(sst_name((99, 1)))


async def test_strangers_stay_and_are_told(bed, autojump_clock):
    async with bed.open() as engine:
        await engine.flush()
        for name in ("compacted/notes.txt", "wal/1", "manifest/old"):
            await bed.store.put(name, b"mine")
        doomed = await engine.maintenance.collect()
        assert set(doomed.strangers) == {"compacted/notes.txt", "wal/1", "manifest/old"}
        assert {"compacted/notes.txt", "wal/1", "manifest/old"} <= set(await names(bed, ""))
        for name in doomed.strangers:
            await bed.store.delete(name)


async def test_a_merge_before_the_first_flush_leaves_the_wal_readable(bed, autojump_clock):
    """A version edit that does not move the mark must not forget the tokens of the WAL objects above it."""
    for number in range(5):
        async with bed.open() as engine:
            engine.commit([(b"meta%d" % number, b"x" * 100)])
    with pytest.raises(Crash):
        async with bed.open() as engine:
            engine.commit([(b"meta9", b"only in the WAL")])
            await engine.sync()
            raise Crash
    with pytest.raises(Crash):
        async with bed.open() as engine:
            runs = len(engine.manifest.tree(b"meta").runs)
            await engine.maintenance.keep_up()
            assert len(engine.manifest.tree(b"meta").runs) < runs
            raise Crash
    async with bed.open() as engine:
        assert await engine.get(b"meta9") == b"only in the WAL"


async def test_deletes_hide_older_runs_after_a_merge_that_leaves_them_out(bed, autojump_clock):
    async with bed.open() as engine:
        engine.commit([(b"meta%04d" % i, RNG.randbytes(200)) for i in range(400)])
        await engine.flush()
        for number in range(4):
            engine.commit([(b"meta%04d" % (i + number), None) for i in range(0, 400, 8)])
            await engine.flush()
        await engine.maintenance.keep_up()
        assert len(engine.manifest.tree(b"meta").runs) == 2, "the old run is too large to be merged"
        left = [key for key, _ in await engine.scan(b"meta", b"metb", 1000)]
        assert left == [b"meta%04d" % i for i in range(400) if i % 8 >= 4]
