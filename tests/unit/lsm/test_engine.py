"""The engine through its door: what is visible, what survives, what is refused."""

import contextlib
import itertools
import os
import random
from dataclasses import replace

import pytest
import trio

from tests.unit.lsm.kit import TINY, Bed, Crash, chunk_key
from zerofs.errors import (
    CorruptionError,
    FencedError,
    MissingObjectError,
    ReadOnlyError,
    RollbackError,
    UnavailableError,
)
from zerofs.lsm.commits import ENCODED_AT_ONCE, LIVE_MAX
from zerofs.lsm.format.names import FLOOR_NAME
from zerofs.lsm.registers import RegisterView
from zerofs.lsm.syncer import LOOK_TIMEOUT_S
from zerofs.objectstore.decorator import StoreDecorator
from zerofs.units import CHUNK_SIZE, MIB


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


NUMBERS = itertools.count()
NOISE = [random.Random(i).randbytes(CHUNK_SIZE) for i in range(4)]


class Live:
    """A live value whose encodings are counted."""

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.encodings = 0

    def encode(self) -> bytes:
        self.encodings += 1
        return self.value


async def test_what_was_committed_is_visible_and_survives_a_close(bed):
    async with bed.open() as engine:
        engine.commit([(b"meta1", b"one"), (b"meta2", b"two")])
        assert await engine.get(b"meta1") == b"one"
        engine.commit([(b"meta2", None)])
        assert await engine.get(b"meta2") is None
    async with bed.open() as engine:
        assert await engine.get(b"meta1") == b"one"
        assert await engine.get(b"meta2") is None
        assert await engine.multi_get([b"meta1", b"meta3"]) == [b"one", None]


async def test_a_crash_loses_what_was_not_synced_and_nothing_else(bed):
    with pytest.raises(Crash):
        async with bed.open() as engine:
            engine.commit([(b"meta1", b"one"), (chunk_key(1, 0), b"x" * 1000)])
            await engine.sync()
            engine.commit([(b"meta2", b"two")])
            raise Crash
    async with bed.open() as engine:
        assert await engine.get(b"meta1") == b"one"
        assert await engine.get(chunk_key(1, 0)) == b"x" * 1000
        assert await engine.get(b"meta2") is None


async def test_live_values_are_encoded_once_per_cut(bed):
    live = Live(b"v1")
    async with bed.open() as engine:
        for _ in range(10):
            engine.commit([(b"meta1", live)])
        assert await engine.get(b"meta1") is live
        await engine.sync()
        assert live.encodings == 1
        assert await engine.get(b"meta1") == b"v1"
        live.value = b"v2"
        engine.commit([(b"meta1", live)])
        await engine.sync()
        assert live.encodings == 2
    async with bed.open() as engine:
        assert await engine.get(b"meta1") == b"v2"


async def test_live_chunks_are_sealed_at_the_cut(bed):
    live = Live(b"c" * 5000)
    async with bed.open() as engine:
        engine.commit([(chunk_key(1, 0), live)])
        assert engine.dirty_bytes >= CHUNK_SIZE
        await engine.sync()
        live.value = b""
        engine.commit([(chunk_key(1, 1), live), (chunk_key(1, 2), b"z")])
        assert await engine.get(chunk_key(1, 0)) == b"c" * 5000
    async with bed.open() as engine:
        assert await engine.get(chunk_key(1, 0)) == b"c" * 5000
        assert await engine.get(chunk_key(1, 1)) is None
        assert await engine.get(chunk_key(1, 2)) == b"z"


async def test_a_small_sync_is_one_put(bed):
    async with bed.open() as engine:
        engine.commit([(b"meta1", b"one"), (chunk_key(1, 0), os.urandom(4096))])
        before = len(await bed.store.list(""))
        await engine.sync()
        await engine.sync()
        names = {info.name for info in await bed.store.list("")}
        assert len(names) == before + 1
        assert sum(name.startswith("wal/") for name in names) == 2  # the fence and this


async def test_much_chunk_data_goes_into_chunk_ssts_and_comes_back(bed):
    rng = random.Random(7)
    data = {chunk_key(i % 3, i): rng.randbytes(CHUNK_SIZE) for i in range(60)}
    async with bed.open() as engine:
        for key, value in data.items():
            await engine.admit(len(value))
            engine.commit([(key, value)])
        await engine.sync()
        assert engine.dirty_bytes == 0
        assert bed.metrics.get("chunk_ssts") >= 5
        keys = list(data)
        assert await engine.multi_get(keys) == list(data.values())
    async with bed.open() as engine:
        assert await engine.multi_get(keys) == list(data.values())
        assert bed.metrics.get("chunk_fetches") < 60
        assert engine.statistics()["chunk_cache"]["evictions"] > 0


async def test_held_writers_are_let_in_in_the_order_in_which_they_came(bed):
    came, admitted = [], []

    async def write(engine, number):
        came.append(number)
        await engine.admit(CHUNK_SIZE)
        admitted.append(number)
        engine.commit([(chunk_key(1, number), os.urandom(CHUNK_SIZE))])

    async with bed.open() as engine:
        for _ in range(8):  # the scheduler's own order is the right one every other time
            for number in range(100, 300):  # at once, so that nothing of it is stored when the writers come
                engine.commit([(chunk_key(1, number), os.urandom(CHUNK_SIZE))])
            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(write, engine, number)
    assert admitted == came
    assert bed.metrics.get("held_writes", by="chunks") == 8 * 40, "once for each that was held"


async def test_range_deletes_hide_older_rows_only(bed):
    async with bed.open() as engine:
        for i in range(20):
            engine.commit([(chunk_key(1, i), b"old")])
        await engine.flush()
        engine.commit([(chunk_key(1, 5), b"new")], [(chunk_key(1, 0), chunk_key(1, 10))])
        assert await engine.get(chunk_key(1, 4)) is None
        assert await engine.get(chunk_key(1, 5)) == b"new"
        assert await engine.get(chunk_key(1, 10)) == b"old"
        await engine.flush()
        assert await engine.get(chunk_key(1, 4)) is None
        assert await engine.get(chunk_key(1, 5)) == b"new"
    async with bed.open() as engine:
        found = [key for key, _ in await engine.scan(chunk_key(1, 0), chunk_key(2, 0), 100)]
        assert found == [chunk_key(1, 5), *(chunk_key(1, i) for i in range(10, 20))]


async def test_scan_pages_over_all_sources(bed):
    expected = {}
    rng = random.Random(3)
    async with bed.open() as engine:
        for round_number in range(4):
            for _ in range(400):
                key = b"meta%05d" % rng.randrange(2000)
                if rng.random() < 0.3:
                    expected.pop(key, None)
                    engine.commit([(key, None)])
                else:
                    expected[key] = b"%d" % round_number
                    engine.commit([(key, expected[key])])
            if round_number < 3:
                await engine.flush()
        assert engine.statistics()["trees"]["meta"]["runs"] >= 3
        found = await engine.scan(b"meta", b"metb", 10_000)
        assert found == sorted(expected.items())
        part = await engine.scan(b"meta00500", b"meta01500", 7)
        assert part == [item for item in sorted(expected.items()) if b"meta00500" <= item[0] < b"meta01500"][:7]


async def test_a_full_memtable_is_flushed_without_being_asked(bed):
    async with bed.open() as engine:
        for i in range(2000):
            await engine.admit(0)
            engine.commit([(b"meta%06d" % i, b"v" * 50)])
        with trio.fail_after(10):
            while not bed.metrics.get("flushes"):
                await trio.sleep(0.01)
        for i in range(0, 2000, 97):
            assert await engine.get(b"meta%06d" % i) == b"v" * 50


async def test_a_second_writer_fences_the_first(bed):
    with pytest.raises(FencedError):
        async with bed.open() as first:
            first.commit([(b"meta1", b"one")])
            await first.sync()
            async with bed.open(host="there") as second:
                assert await second.get(b"meta1") == b"one"
                first.commit([(b"meta2", b"lost")])
                with pytest.raises(FencedError):
                    await first.sync()
                with pytest.raises(FencedError):
                    await first.sync()
                with pytest.raises(FencedError):
                    first.commit([(b"meta3", b"lost")])
                assert first.state == "fenced"
                assert await first.get(b"meta1") == b"one"
                second.commit([(b"meta2", b"two")])
                await second.sync()
    async with bed.open(host="there") as engine:
        assert await engine.get(b"meta2") == b"two"


@pytest.mark.parametrize("taken_over", [True, False])
async def test_a_writer_that_misses_an_object_asks_whether_it_is_the_writer_still(bed, taken_over):
    """The winner's collector deletes what the loser still reads: that is no damage, and the loser says so at once."""
    with pytest.raises(FencedError) if taken_over else contextlib.nullcontext():
        async with bed.open() as engine, contextlib.AsyncExitStack() as others:
            engine.commit([(chunk_key(1, index), bytes([index]) * 20_000) for index in range(20)])
            await engine.flush()
            await engine.maintenance.stop()  # it would find out too, a moment later
            pointer = await engine._lookup.find(chunk_key(1, 7))
            engine._storage.chunks.discard(pointer.nonce)
            if taken_over:
                await others.enter_async_context(bed.open(host="there"))
            await bed.store.delete(pointer.object_name)
            with pytest.raises(MissingObjectError):
                await engine.get(chunk_key(1, 7))
            assert engine.state == ("fenced" if taken_over else "ok")
            await others.aclose()


async def test_a_read_that_misses_an_object_does_not_wait_for_a_store_that_is_away(bed, autojump_clock):
    away = []

    class Away(StoreDecorator):
        async def _around(self, request, call):
            if away and request.name == FLOOR_NAME:
                raise UnavailableError("away")
            return await call()

    async with bed.open(store=Away(bed.store)) as engine:
        engine.commit([(chunk_key(1, index), bytes([index]) * 20_000) for index in range(20)])
        await engine.flush()
        await engine.maintenance.stop()
        pointer = await engine._lookup.find(chunk_key(1, 7))
        engine._storage.chunks.discard(pointer.nonce)
        await bed.store.delete(pointer.object_name)
        away.append(True)
        began = trio.current_time()
        with pytest.raises(MissingObjectError):
            await engine.get(chunk_key(1, 7))
        assert trio.current_time() - began <= LOOK_TIMEOUT_S
        away.clear()


async def test_a_reader_sees_the_volume_and_changes_nothing(bed):
    async with bed.open() as engine:
        engine.commit([(b"meta1", b"one"), (chunk_key(1, 0), b"data")])
        await engine.sync()
        before = await bed.store.list("")
        async with bed.open(read_only=True, host="reader") as reader:
            assert await reader.get(b"meta1") == b"one"
            assert await reader.get(chunk_key(1, 0)) == b"data"
            with pytest.raises(ReadOnlyError):
                reader.commit([(b"meta1", b"no")])
        assert await bed.store.list("") == before


async def _some_volume(bed: Bed) -> None:
    """Two closed sessions and one that crashed after a sync: every kind of object is there."""
    async with bed.open() as engine:
        engine.commit([(b"meta%03d" % i, b"v" * 40) for i in range(100)])
        engine.commit([(chunk_key(1, i), NOISE[i]) for i in range(4)])
    with pytest.raises(Crash):
        async with bed.open() as engine:
            engine.commit([(b"meta%03d" % i, b"w" * 40) for i in range(50)])
            engine.commit([(chunk_key(2, 0), b"tail" * 100)])
            await engine.sync()
            raise Crash


async def _read_everything(bed: Bed) -> None:
    """As a host that never saw the volume before."""
    async with bed.open(host=f"fresh {next(NUMBERS)}", read_only=True) as engine:
        for i in range(100):
            assert await engine.get(b"meta%03d" % i) == (b"w" if i < 50 else b"v") * 40
        chunks = await engine.multi_get([chunk_key(1, i) for i in range(4)])
        assert chunks == NOISE
        assert await engine.get(chunk_key(2, 0)) == b"tail" * 100
        assert [register async for register in RegisterView(bed.storage(), engine.manifest).all()]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "delete"])
async def test_any_damaged_object_is_named_and_never_read_wrong(bed, damage):
    await _some_volume(bed)
    await _read_everything(bed)
    names = [info.name for info in await bed.store.list("")]
    live = await _live_objects(bed, names)
    assert {name.split("/")[0] for name in live} == {"manifest", "wal", "compacted"}
    if damage == "delete":
        # A missing tail of the WAL is an older state: only a host that saw it can know (tested below).
        live.remove(max(name for name in live if name.startswith("wal/")))
    for name in live:
        body = await bed.store.get(name)
        await bed.store.delete(name)
        if damage == "flip":
            middle = len(body) // 2
            await bed.store.put(name, body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])
        elif damage == "cut":
            await bed.store.put(name, body[: len(body) // 2])
        elif damage == "empty":
            await bed.store.put(name, b"")
        try:
            # Without the newest manifest, what its epoch wrote to the WAL gives the loss away.
            lost_manifest = damage == "delete" and name.startswith("manifest")
            named = "which the manifest does not know" if lost_manifest else name.replace(".", r"\.")
            with pytest.raises(CorruptionError, match=named):
                await _read_everything(bed)
        finally:
            await bed.store.delete(name)
            await bed.store.put(name, body)
    await _read_everything(bed)


async def _live_objects(bed: Bed, names: list[str]) -> list[str]:
    """The objects that a read of everything needs: the last manifest and its predecessor, the WAL above the mark,
    and the SSTs of both families."""
    async with bed.open(host="fresh", read_only=True) as engine:
        mark = engine.manifest.wal_mark
        manifests = sorted(name for name in names if name.startswith("manifest/"))[-1:]
        wal = [name for name in names if name.startswith("wal/") and int(name[4:24]) > mark]
        return manifests + wal + [name for name in names if name.startswith("compacted/")]


async def test_deleting_the_newest_manifest_or_wal_is_noticed_by_a_host_that_saw_it(bed):
    await _some_volume(bed)
    for prefix in ("manifest/", "wal/"):
        name = [info.name for info in await bed.store.list(prefix)][-1]
        body = await bed.store.get(name)
        await bed.store.delete(name)
        with pytest.raises((RollbackError, CorruptionError)):
            async with bed.open(host="here"):
                pass
        await bed.store.put(name, body)


async def test_swapped_objects_of_one_kind_are_refused(bed):
    await _some_volume(bed)
    names = [info.name for info in await bed.store.list("")]
    for prefix in ("manifest/", "wal/", "compacted/"):
        same = [name for name in names if name.startswith(prefix)]
        left, right = same[-2], same[-1]
        bodies = await bed.store.get(left), await bed.store.get(right)
        for name, body in ((left, bodies[1]), (right, bodies[0])):
            await bed.store.delete(name)
            await bed.store.put(name, body)
        with pytest.raises(CorruptionError):
            await _read_everything(bed)
        for name, body in ((left, bodies[0]), (right, bodies[1])):
            await bed.store.delete(name)
            await bed.store.put(name, body)
    await _read_everything(bed)


async def test_an_older_bucket_is_refused_unless_accepted(bed):
    async with bed.open() as engine:
        engine.commit([(b"meta1", b"old")])
    backup = {info.name: await bed.store.get(info.name) for info in await bed.store.list("")}
    async with bed.open() as engine:
        engine.commit([(b"meta1", b"new")])
    for info in await bed.store.list(""):
        await bed.store.delete(info.name)
    for name, body in backup.items():
        await bed.store.put(name, body)
    with pytest.raises(RollbackError, match="accept-rollback"):
        async with bed.open():
            pass
    async with bed.open(accept_rollback=True) as engine:
        assert await engine.get(b"meta1") == b"old"
        engine.commit([(b"meta2", b"after")])
    async with bed.open() as engine:
        assert await engine.get(b"meta1") == b"old"
        assert await engine.get(b"meta2") == b"after"
        engine.commit([(b"meta3", b"x")])
        await engine.sync()
    async with bed.open() as engine:
        assert await engine.get(b"meta3") == b"x"


async def test_few_live_values_are_left_for_the_cut(bed):
    """It holds everybody up for as long as it encodes. What is put again and again waits for it nevertheless."""
    bed.options = replace(TINY, memtable_size_bytes=16 * MIB)
    values = {b"meta%06d" % number: Live(b"%d" % number) for number in range(3 * LIVE_MAX)}
    often, value = b"meta often", Live(b"")
    async with bed.open() as engine:
        for number, (key, live) in enumerate(values.items()):
            value.value = b"%d" % number
            engine.commit([(key, live), (often, value)])
        asked = sum(live.encodings for live in values.values())
        assert 2 * LIVE_MAX - ENCODED_AT_ONCE <= asked <= 2 * LIVE_MAX + ENCODED_AT_ONCE
        assert not value.encodings
        first = next(iter(values))
        values[first].value = b"changed"
        engine.commit([(first, values[first])])
        await engine.sync()
        assert sum(live.encodings for live in values.values()) == len(values) + 1, "once each, and what came back again"
        assert value.encodings == 1
        expected = {key: live.value for key, live in values.items()} | {often: value.value}
        assert dict(zip(expected, await engine.multi_get(list(expected)), strict=True)) == expected
    async with bed.open(read_only=True) as reader:
        assert dict(await reader.scan(b"meta", b"metb", 10**6)) == expected


async def test_a_memtable_counts_what_it_holds_however_often_that_was_put(bed):
    bed.options = replace(TINY, memtable_size_bytes=16 * MIB)
    values = {b"meta%06d" % number: Live(bytes(150)) for number in range(2 * LIVE_MAX)}
    async with bed.open() as engine:
        sizes = []
        for _ in range(20):
            for key, value in values.items():
                engine.commit([(key, value)])
            sizes.append(engine.statistics()["memtable_bytes"])
        assert sizes[-1] <= 1.1 * sizes[1]


async def test_a_live_value_that_is_deleted_does_not_come_back(bed):
    bed.options = replace(TINY, memtable_size_bytes=16 * MIB)
    async with bed.open() as engine:
        engine.commit([(b"meta gone", Live(b"x")), (b"meta range", Live(b"x")), (b"meta put", Live(b"x"))])
        engine.commit([(b"meta gone", None), (b"meta put", b"bytes")], [(b"meta range", b"meta range!")])
        for number in range(2 * LIVE_MAX):
            engine.commit([(b"meta%06d" % number, Live(b"x"))])
        await engine.sync()
        assert await engine.multi_get([b"meta gone", b"meta range", b"meta put"]) == [None, None, b"bytes"]


async def test_random_life_against_a_dictionary(bed):
    """Commits, range deletes, syncs, flushes, crashes and reopenings, with everything checked after each opening."""
    rng = random.Random(11)
    durable: dict[bytes, bytes] = {}
    for _ in range(12):
        model = dict(durable)
        with contextlib.suppress(Crash):
            async with bed.open() as engine:
                for key in rng.sample(sorted(model), min(20, len(model))):
                    assert await engine.get(key) == model[key]
                assert [k for k, _ in await engine.scan(b"chunk", b"metb", 10**6)] == sorted(model) or model
                for _ in range(rng.randrange(60)):
                    action = rng.random()
                    inode, index = rng.randrange(4), rng.randrange(12)
                    if action < 0.5:
                        key, value = chunk_key(inode, index), rng.randbytes(rng.choice((10, 5000, CHUNK_SIZE)))
                        await engine.admit(len(value))
                        engine.commit([(key, value)])
                        model[key] = value
                    elif action < 0.7:
                        key, value = b"meta%d" % rng.randrange(50), rng.randbytes(20)
                        engine.commit([(key, value)])
                        model[key] = value
                    elif action < 0.8:
                        start, stop = chunk_key(inode, index), chunk_key(inode, 99)
                        engine.commit([], [(start, stop)])
                        model = {k: v for k, v in model.items() if not start <= k < stop}
                    elif action < 0.95:
                        await engine.sync()
                        durable = dict(model)
                    else:
                        await engine.flush()
                        for _ in range(20):  # a repack may commit new pointers meanwhile
                            if not engine.dirty_bytes:
                                break
                            await engine.flush()
                            await trio.testing.wait_all_tasks_blocked()
                        assert engine.dirty_bytes == 0
                        durable = dict(model)
                if rng.random() < 0.5:
                    raise Crash
            durable = dict(model)
        async with bed.open(read_only=True) as reader:
            keys = sorted(durable)
            assert await reader.multi_get(keys) == [durable[key] for key in keys]
            metas = await reader.scan(b"meta", b"metb", 10**6)
            assert metas == sorted((k, v) for k, v in durable.items() if k.startswith(b"meta"))
            chunks = [k for k, _ in await reader.scan(b"chunk", b"chunl", 10**6)]
            assert chunks == [k for k in keys if k.startswith(b"chunk")]
