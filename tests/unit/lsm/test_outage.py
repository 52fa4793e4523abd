"""The states of a writer whose store does not answer (P7), and the steps by which it holds writers back (P6)."""

import math
import random
from dataclasses import replace

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.unit.lsm.kit import TINY, Bed, chunk_key
from zerofs.errors import AccessDeniedError, UnavailableError
from zerofs.lsm.outage import SILENCE_S, SLOW_BYTES_PER_S, Outage
from zerofs.objectstore.decorator import StoreDecorator
from zerofs.objectstore.faults import FaultyStore
from zerofs.telemetry.metrics import Metrics
from zerofs.units import CHUNK_SIZE, MIB

DEADLINE_S = 30.0


class FrozenStore(StoreDecorator):
    """Takes requests and, while `frozen`, answers none of them: a server that was stopped."""

    frozen = False

    def __init__(self, inner):
        super().__init__(inner)
        self.thaw = trio.Event()

    async def _around(self, request, call):
        if self.frozen:
            await self.thaw.wait()
        return await call()


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path, options=replace(TINY, sync_timeout_s=DEADLINE_S))
    await bed.create()
    return bed


async def states(engine, seconds):
    """The states that it goes through within so many seconds, and when each began, to the second."""
    seen = {}
    begun = trio.current_time()
    while trio.current_time() - begun <= seconds:
        seen.setdefault(engine.state, round(trio.current_time() - begun))
        await trio.sleep(1)
    return seen


async def test_a_store_that_fails(bed, autojump_clock):
    faulty = FaultyStore(bed.store, random.Random(1))
    async with bed.open(store=faulty) as engine:
        engine.commit([(b"meta1", b"one")])
        await engine.sync()
        assert engine.state == "ok"
        faulty.partitioned = True
        engine.commit([(b"meta2", b"two")])
        with pytest.raises(UnavailableError, match="stays in memory"):
            await engine.sync()
        assert engine.state == "read-only", "the deadline of a sync is that of the outage"
        engine.commit([(b"meta3", b"three")])
        faulty.partitioned = False
        await engine.sync()
        assert engine.state == "ok"
        assert bed.metrics.get("outages_total") == 1
    async with bed.open() as engine:
        assert await engine.multi_get([b"meta1", b"meta2", b"meta3"]) == [b"one", b"two", b"three"]


async def test_the_states_of_a_store_that_fails_follow_each_other(bed, autojump_clock):
    faulty = FaultyStore(bed.store, random.Random(1))
    async with bed.open(store=faulty) as engine:
        faulty.partitioned = True
        engine.commit([(b"meta1", b"one")])
        with trio.move_on_after(0.001):
            await engine.sync()
        seen = await states(engine, 100)
        assert list(seen) == ["ok", "waiting", "read-only"]
        assert seen["waiting"] <= SILENCE_S + 1
        assert DEADLINE_S <= seen["read-only"] <= DEADLINE_S + 1
        faulty.partitioned = False
        assert list(await states(engine, 10)) == ["read-only", "ok"]


async def test_a_store_that_is_silent(bed, autojump_clock):
    """No error comes back, for as long as the client waits: silence is an outage too."""
    frozen = FrozenStore(bed.store)
    async with bed.open(store=frozen) as engine:
        engine.commit([(b"meta1", b"one")])
        await engine.sync()
        frozen.frozen = True
        engine.commit([(b"meta2", b"two")])
        with trio.move_on_after(0.001):
            await engine.sync()
        seen = await states(engine, 100)
        assert list(seen) == ["ok", "waiting", "read-only"]
        assert SILENCE_S <= seen["waiting"] <= SILENCE_S + 1
        assert DEADLINE_S <= seen["read-only"] <= DEADLINE_S + 1
        frozen.frozen = False
        frozen.thaw.set()
        await engine.sync()
        assert engine.state == "ok"
        assert bed.metrics.get("outages_total") == 0, "nothing failed"
    async with bed.open() as engine:
        assert await engine.multi_get([b"meta1", b"meta2"]) == [b"one", b"two"]


async def test_work_between_requests_is_no_silence(bed, autojump_clock):
    """A flush seals for a long time before it asks the store for anything."""
    storage = bed.storage()
    ages = []

    async def flush():
        await trio.sleep(1000)
        ages.append(storage.outage.age_s)

    await storage.until_it_answers("a flush", flush)
    assert ages == [None]


class FailsOnce:
    """An attempt that takes so long, fails, and succeeds the next time."""

    def __init__(self, takes_s):
        self.takes_s = takes_s
        self.is_new = True

    async def __call__(self):
        if self.is_new:
            self.is_new = False
            await trio.sleep(self.takes_s)
            raise UnavailableError("reset by peer")


@pytest.mark.parametrize("what", ["work", "an upload"])
async def test_an_outage_begins_when_its_first_attempt_may_have_failed(bed, autojump_clock, what):
    """A slow upload, or long work, that fails at its end has not failed all the time."""
    storage = bed.storage()
    body = [bytes(16 * MIB)]
    attempt = FailsOnce(takes_s=100.0)
    async with trio.open_nursery() as nursery:
        if what == "work":
            nursery.start_soon(storage.until_it_answers, "a flush", attempt)
        else:
            nursery.start_soon(storage._patiently, "compacted/1", attempt, len(body[0]))
        await trio.sleep(100.01)
        assert storage.outage.age_s is not None
        assert storage.outage.age_s < 1
    assert storage.outage.age_s is None


async def test_one_unreadable_object_is_no_outage_and_its_writer_gets_the_error(bed, autojump_clock):
    async with bed.open() as engine:
        tries = []

        async def read():
            tries.append(trio.current_time())
            assert engine.state == "ok"
            raise AccessDeniedError("compacted/1: it lies in an archive")

        begun = trio.current_time()
        with pytest.raises(AccessDeniedError, match="archive"):
            await engine.patiently(read)
        assert DEADLINE_S <= trio.current_time() - begun <= DEADLINE_S + 3
        assert len(tries) > 10
        assert bed.metrics.get("held_reads") == len(tries) - 1
        assert bed.metrics.get("outages_total") == 0


async def test_a_read_for_a_write_is_held_as_long_as_the_store_is_away(bed, autojump_clock):
    async with bed.open() as engine:
        errors = (
            [UnavailableError("no answer")] * 200 + [AccessDeniedError("not yet")] + [UnavailableError("again")] * 200
        )

        async def read():
            if errors:
                raise errors.pop()
            return b"data"

        assert await engine.patiently(read) == b"data"
        assert trio.current_time() > 5 * DEADLINE_S


async def test_who_is_held_is_let_go_when_the_outage_is_long_if_it_asks_for_that(bed, autojump_clock):
    faulty = FaultyStore(bed.store, random.Random(1))
    rng = random.Random(2)
    done = {}
    async with bed.open(store=faulty) as engine:
        faulty.partitioned = True
        begun = trio.current_time()
        with trio.move_on_after(1):
            for index in range(1000):
                await engine.admit(CHUNK_SIZE)
                engine.commit([(chunk_key(1, index), rng.randbytes(CHUNK_SIZE))])

        async def ask(name, **options):
            await engine.admit(CHUNK_SIZE, **options)
            done[name] = trio.current_time() - begun

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "write")
            await trio.testing.wait_all_tasks_blocked()
            counted = bed.metrics.get("held_writes", by="chunks")
            nursery.start_soon(lambda: ask("change", unless_read_only=True))
            await trio.sleep(200)
            assert list(done) == ["change"]
            assert DEADLINE_S <= done["change"] <= DEADLINE_S + 10
            assert bed.metrics.get("held_writes", by="chunks") == counted + 1, "once, however often it looked"
            faulty.partitioned = False
        assert list(done) == ["change", "write"]


async def fill_the_budget(engine):
    """Write until writers are held."""
    rng = random.Random(2)
    with trio.move_on_after(1):
        for index in range(1000):
            await engine.admit(CHUNK_SIZE)
            engine.commit([(chunk_key(1, index), rng.randbytes(CHUNK_SIZE))])
            await trio.lowlevel.checkpoint()


async def test_uploads_in_flight_are_the_first_step_of_backpressure(bed, autojump_clock):
    frozen = FrozenStore(bed.store)
    async with bed.open(store=frozen) as engine:
        frozen.frozen = True
        await fill_the_budget(engine)
        limit = bed.options.dirty_limit_bytes // bed.options.chunk_sst_size_bytes
        assert engine.statistics()["uploads_in_flight"] == min(limit, bed.options.uploads_max) > 1
        assert bed.metrics.get("held_writes", by="chunks") == 1
        frozen.frozen = False
        frozen.thaw.set()
        await engine.flush()
        assert engine.statistics()["uploads_in_flight"] == 0


async def test_uploads_that_have_to_wait_are_counted(tmp_path, autojump_clock):
    bed = Bed(tmp_path, options=replace(TINY, uploads_max=1))
    await bed.create()
    frozen = FrozenStore(bed.store)
    async with bed.open(store=frozen) as engine:
        frozen.frozen = True
        await fill_the_budget(engine)
        assert engine.statistics()["uploads_in_flight"] == 1
        assert bed.metrics.get("held_uploads") > 0
        frozen.frozen = False
        frozen.thaw.set()


class TestOutage:
    """The rules of `Outage` itself."""

    async def test_a_large_body_may_take_as_long_as_a_slow_line_needs(self, autojump_clock):
        outage = Outage(Metrics())
        with outage.question("an upload", 64 * MIB):
            await trio.sleep(64 * MIB / SLOW_BYTES_PER_S)
            assert outage.age_s is None
            assert outage.reason == ""
            await trio.sleep(SILENCE_S + 1)
            assert outage.reason == "no answer to an upload for 518 s"
        assert outage.age_s is None

    async def test_any_answer_ends_a_silence(self, autojump_clock):
        outage = Outage(Metrics())
        with outage.question("the first"):
            for _ in range(20):
                with outage.question("another"):
                    await trio.sleep(SILENCE_S - 1)
                outage.ended()
                assert outage.age_s is None
            await trio.sleep(SILENCE_S + 1)
            assert math.isclose(outage.age_s, SILENCE_S + 1)

    async def test_it_lasts_since_the_first_attempt_that_failed_was_begun(self, autojump_clock):
        outage = Outage(metrics := Metrics())
        outage.ended()
        for asked_s in (trio.current_time(), trio.current_time() + 40):
            await trio.sleep(30)
            outage.failed("503", asked_s)
        assert (outage.age_s, outage.reason, outage.has_failed) == (60.0, "503", True)
        outage.ended()
        assert (outage.age_s, outage.reason, outage.has_failed) == (None, "", False)
        outage.failed("503", trio.current_time() - 5)
        assert outage.age_s == 0.0, "it answered a moment ago"
        assert metrics.get("outages_total") == 2


@pytest.mark.parametrize("seed", range(20))
async def test_quiet_is_what_is_no_outage(mock_clock, seed):
    """The short answer is looked up less often, and says the same."""
    chance = random.Random(seed)
    outage = Outage(Metrics())
    asked = []
    for _ in range(400):
        match chance.randrange(5):
            case 0:
                question = outage.question("object", chance.choice([0, 0, 3 * SLOW_BYTES_PER_S]))
                question.__enter__()
                asked.append(question)
            case 1 if asked:
                asked.pop(chance.randrange(len(asked))).__exit__(None, None, None)
                outage.ended()
            case 2 if chance.random() < 0.1:
                outage.failed("broken", trio.current_time())
            case _:
                mock_clock.jump(chance.choice([0.01, 1.0, SILENCE_S / 2, SILENCE_S]))
        assert outage.is_quiet == (outage.age_s is None)
