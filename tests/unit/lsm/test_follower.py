"""A reader that follows the writer: whole states only, never an error, soon, and for two requests a look."""

import contextlib
import random
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from tests.unit.lsm.kit import TINY, Bed, Crash, chunk_key
from zerofs.errors import MissingObjectError, UnavailableError
from zerofs.objectstore.decorator import StoreDecorator
from zerofs.units import CHUNK_SIZE, NS_PER_S

INTERVAL_S = 10.0
KEYS = [b"meta%03d" % i for i in range(40)] + [chunk_key(1, i) for i in range(6)]


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path, options=replace(TINY, poll_interval_s=INTERVAL_S))
    await bed.create()
    return bed


async def nothing_to_prepare(read):
    return lambda: None


@asynccontextmanager
async def follower(bed, prepare=nothing_to_prepare, **options):
    """An open reader that follows, as a host of its own."""
    async with bed.open(read_only=True, host="reader", **options) as reader, trio.open_nursery() as nursery:
        nursery.start_soon(reader.follow, prepare)
        yield reader
        nursery.cancel_scope.cancel()


def write(engine, generation):
    """All keys say the same generation, in one commit."""
    rng = random.Random(generation)
    rows = [(key, generation.to_bytes(4) + rng.randbytes(50)) for key in KEYS if key.startswith(b"meta")]
    rows += [(key, generation.to_bytes(4) + rng.randbytes(CHUNK_SIZE - 4)) for key in KEYS if key.startswith(b"chunk")]
    engine.commit(rows)


async def read(reader):
    """The one generation that a reader sees, in gets and in a scan."""
    values = await reader.multi_get(KEYS)
    generations = {int.from_bytes(value[:4]) for value in values}
    assert len(generations) == 1, f"a mixture of states: {generations}"
    rows = await reader.scan(b"meta", b"metb", 1000)
    assert len({value[:4] for _, value in rows}) == 1
    assert len(rows) == 40
    return generations.pop()


async def test_a_follower_sees_what_was_synced_within_the_interval(bed, autojump_clock):
    async with bed.open() as engine:
        write(engine, 1)
        await engine.sync()
        async with follower(bed) as reader:
            assert await read(reader) == 1
            write(engine, 2)
            await engine.sync()
            assert await read(reader) == 1, "not before it has looked"
            await trio.sleep(INTERVAL_S + 0.1)
            assert await read(reader) == 2
            write(engine, 3)
            await engine.flush()
            await trio.sleep(INTERVAL_S)
            assert await read(reader) == 3
            assert reader.manifest.manifest_id == engine.manifest.manifest_id
            assert reader.state == "read-only"


async def test_an_idle_follower_makes_two_requests_per_interval(bed, autojump_clock):
    async with bed.open() as engine:
        write(engine, 1)
        await engine.sync()
        await engine.maintenance.tighten()
    async with follower(bed) as reader:
        assert await read(reader) == 1
        await trio.sleep(1)
        before = bed.requests()
        await trio.sleep(100 * INTERVAL_S)
        assert bed.requests() - before == 2 * 100
        assert reader.follower.age_ns <= (INTERVAL_S + 1) * NS_PER_S


async def test_followers_beside_everything_that_a_writer_does(bed, autojump_clock):
    """Flushes, merges, repacks, collections, checkpoints, a takeover, one after the other; one reader is slow."""
    rng = random.Random(7)
    synced = [(-INTERVAL_S - 1, 0)]
    done = trio.Event()

    async def check(reader):
        seen = 0
        while not done.is_set():
            began = trio.current_time()
            found = await read(reader)
            assert found >= seen, "time runs backwards"
            seen = found
            old_enough = max(generation for at, generation in synced if at <= began - INTERVAL_S - 1)
            assert seen >= old_enough, "older than the interval allows"
            await trio.sleep(rng.random())
        await trio.sleep(2 * INTERVAL_S)
        assert await read(reader) == synced[-1][1]

    async def work(engine, first, last):
        for generation in range(first, last):
            write(engine, generation)
            step = rng.randrange(6)
            await (engine.flush() if step == 0 else engine.sync())
            synced.append((trio.current_time(), generation))
            if step == 1:
                await engine.maintenance.keep_up()
            if step == 2:
                await engine.maintenance.tighten()
            if step == 3:
                await engine.maintenance.collect()
            if step == 4:
                await engine.checkpoints.create(f"at {generation}")
            await trio.sleep(3 * rng.random())

    async with bed.open() as engine:
        write(engine, 0)
    slow = Slow(bed.store)
    async with follower(bed) as one, follower(bed, store=slow) as two, trio.open_nursery() as nursery:
        nursery.start_soon(check, one)
        nursery.start_soon(check, two)
        with contextlib.suppress(Crash):
            async with bed.open() as engine:
                await work(engine, 1, 40)
                raise Crash
        async with bed.open(host="elsewhere") as engine:
            await work(engine, 40, 80)
        done.set()
    assert bed.metrics.get("looks", found="newer") > 10
    assert bed.metrics.get("collected_objects") > 50


class Slow(StoreDecorator):
    """Reads take so long that states change under them."""

    async def _around(self, request, call):
        if request.name.startswith("compacted/"):
            await trio.sleep(random.Random(request.name).random())
        return await call()


async def test_what_was_collected_is_looked_for_in_a_newer_state_at_once(bed, autojump_clock):
    async with bed.open() as engine:
        write(engine, 1)
        await engine.flush()
        async with follower(bed) as reader:
            for generation in range(2, 6):
                write(engine, generation)
                await engine.flush()
            await engine.maintenance.tighten()
            started = trio.current_time()
            assert await read(reader) == 5
            assert trio.current_time() - started < 1, "it did not wait for the next look"
            assert bed.metrics.get("reads_repeated") > 0


async def test_what_is_missing_from_the_newest_state_too_is_an_error(bed, autojump_clock):
    async with bed.open() as engine:
        write(engine, 1)
        await engine.flush()
    for info in await bed.store.list("compacted/"):
        await bed.store.delete(info.name)
    async with follower(bed) as reader:
        with pytest.raises(MissingObjectError):
            await read(reader)
        assert reader.state == "read-only"


async def test_without_anybody_who_follows_a_missing_object_is_an_error_at_once(bed, autojump_clock):
    async with bed.open() as engine:
        write(engine, 1)
        await engine.flush()
        async with bed.open(read_only=True, host="reader") as reader:
            write(engine, 2)
            await engine.maintenance.tighten()
            with trio.fail_after(5), pytest.raises(MissingObjectError):
                await read(reader)


class Outage(StoreDecorator):
    """Does not answer while `down`."""

    down = False

    async def _around(self, request, call):
        if self.down:
            raise UnavailableError("no answer")
        return await call()


async def test_an_outage_leaves_what_is_known_and_ends_by_itself(bed, autojump_clock, caplog):
    store = Outage(bed.store)
    async with bed.open() as engine:
        write(engine, 1)
        await engine.sync()
        async with follower(bed, store=store) as reader:
            assert await read(reader) == 1
            store.down = True
            write(engine, 2)
            await engine.sync()
            await trio.sleep(20 * INTERVAL_S)
            assert await read(reader) == 1
            assert reader.state == "waiting"
            assert reader.follower.age_ns >= 19 * INTERVAL_S * NS_PER_S
            assert caplog.text.count("cannot be followed") == 1
            store.down = False
            await trio.sleep(2 * INTERVAL_S)
            assert await read(reader) == 2
            assert reader.state == "read-only"
            assert reader.follower.age_ns <= 2 * INTERVAL_S * NS_PER_S


async def test_a_damaged_wal_object_leaves_the_older_state(bed, autojump_clock):
    async with bed.open() as engine:
        write(engine, 1)
        await engine.sync()
        async with follower(bed) as reader:
            write(engine, 2)
            await engine.sync()
            newest = (await bed.store.list("wal/"))[-1].name
            body = await bed.store.get(newest)
            await bed.store.delete(newest)
            await bed.store.put(newest, body[:-1] + bytes([body[-1] ^ 1]))
            await trio.sleep(3 * INTERVAL_S)
            assert await reader.get(b"meta000")
            await bed.store.delete(newest)
            await bed.store.put(newest, body)
            await trio.sleep(2 * INTERVAL_S)
            assert await read(reader) == 2


async def test_an_accepted_roll_back_under_a_follower(bed, autojump_clock):
    """The writer goes on above everything: ids with a gap, another epoch."""
    async with bed.open() as engine:
        write(engine, 1)
        await engine.sync()
    backup = {info.name: await bed.store.get(info.name) for info in await bed.store.list("")}
    async with follower(bed) as reader:
        async with bed.open() as engine:
            write(engine, 2)
            await engine.sync()
            await trio.sleep(INTERVAL_S + 1)
            assert await read(reader) == 2
        for info in await bed.store.list(""):
            await bed.store.delete(info.name)
        for name, body in backup.items():
            await bed.store.put(name, body)
        async with bed.open(accept_rollback=True) as engine:
            write(engine, 3)
            await engine.sync()
            await trio.sleep(3 * INTERVAL_S)
            assert await read(reader) == 3
            assert reader.manifest.epoch > 1000


async def test_a_newer_state_can_be_read_before_it_is_shown(bed, autojump_clock):
    shown = []

    async def prepare(read_newer):
        (newer,) = await read_newer([b"meta000"])
        older = await reader.get(b"meta000")
        return lambda: shown.append((int.from_bytes(older[:4]), int.from_bytes(newer[:4])))

    async with bed.open() as engine:
        write(engine, 1)
        await engine.sync()
        async with follower(bed, prepare) as reader:
            for generation in (2, 3):
                write(engine, generation)
                await engine.sync()
                await trio.sleep(INTERVAL_S + 1)
    assert shown == [(1, 2), (2, 3)]


async def test_followers_and_checkpoints_leave_the_store_as_it_is(bed, autojump_clock):
    async with bed.open() as engine:
        write(engine, 1)
        await engine.checkpoints.create("one")
        write(engine, 2)
        await engine.sync()
    before = {info.name: await bed.store.get(info.name) for info in await bed.store.list("")}
    async with follower(bed) as reader, bed.open(checkpoint="one", host="third") as pinned:
        assert (await read(reader), await read(pinned)) == (2, 1)
        assert pinned.follower is None
        await trio.sleep(50 * INTERVAL_S)
    assert {info.name: await bed.store.get(info.name) for info in await bed.store.list("")} == before
    assert {traced.kind for traced in bed.trace[-50:]} <= {"get", "list", "head"}
