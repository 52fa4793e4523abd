import random

import pytest
import trio

from tests.unit.objectstore.kit import TracedStore
from zerofs.errors import ObjectNotFoundError, PreconditionFailedError, UnavailableError
from zerofs.objectstore.decorator import Kind
from zerofs.objectstore.faults import Fault, FaultRates, FaultyStore
from zerofs.objectstore.memory import MemoryStore


@pytest.fixture
def memory():
    return MemoryStore()


@pytest.fixture
def store(memory):
    return FaultyStore(memory, random.Random(1))


async def contents(memory):
    return {info.name: await memory.get(info.name) for info in await memory.list("")}


async def test_without_faults_nothing_is_drawn_and_nothing_slept(memory):
    store = FaultyStore(memory, None)  # any draw would fail
    await store.put("a", b"x")
    assert await store.get("a") == b"x"
    assert store.calls == 2


@pytest.mark.parametrize(
    ("fault", "lands"),
    [
        (Fault.FAIL_BEFORE, False),
        (Fault.BUSY, False),
        (Fault.CONFLICT, False),
        (Fault.CRASH_BEFORE, False),
        (Fault.LOST_REPLY, True),
        (Fault.CRASH_AFTER, True),
    ],
)
async def test_whether_a_put_that_failed_has_landed(store, memory, fault, lands):
    store.plan(fault)
    with pytest.raises(UnavailableError, match=f"put_if_absent of a: injected {fault.name}"):
        await store.put_if_absent("a", b"x", b"x")
    assert await contents(memory) == ({"a": b"x"} if lands else {})


async def test_a_lost_reply_hides_refusals_too(store, memory):
    await memory.put("a", b"x")
    store.plan(Fault.LOST_REPLY)
    with pytest.raises(UnavailableError):
        await store.put_if_absent("a", b"y", b"y")
    store.plan(Fault.LOST_REPLY)
    with pytest.raises(UnavailableError):
        await store.get("absent")
    with pytest.raises(PreconditionFailedError):
        await store.put_if_absent("a", b"y", b"y")
    with pytest.raises(ObjectNotFoundError):
        await store.get("absent")


async def test_a_short_body_is_noticed(store, memory):
    await memory.put("a", b"x")
    store.plan(Fault.SHORT_BODY)
    await store.head("a")
    with pytest.raises(UnavailableError):
        await store.get("a")
    assert await store.get("a") == b"x"


async def test_a_delayed_put_lands_later(memory, autojump_clock):
    async with trio.open_nursery() as network:
        store = FaultyStore(memory, random.Random(1), FaultRates(delay_s=(5.0, 6.0)), network)
        begun = trio.current_time()
        for call in (store.put("a", b"x"), store.put_if_absent("b", b"x", b"x")):
            store.plan(Fault.DELAYED)
            with pytest.raises(UnavailableError):
                await call
        assert trio.current_time() == begun
        assert await contents(memory) == {}
        await store.put("b", b"in between")
        store.crash()  # what is on its way arrives all the same
    assert 5 <= trio.current_time() - begun <= 6
    assert await contents(memory) == {"a": b"x", "b": b"in between"}


async def test_a_delayed_read_just_fails(store):
    store.plan(Fault.DELAYED)
    with pytest.raises(UnavailableError):
        await store.list("")


async def test_plans_choose_by_kind_name_and_count(store, memory):
    store.plan(Fault.BUSY, Kind.PUT, "wal/", skip=2)
    await store.put("wal/1", b"")
    await store.put("manifest/1", b"")
    await store.list("wal/")
    await store.put("wal/2", b"")
    with pytest.raises(UnavailableError):
        await store.put("wal/3", b"")
    await store.put("wal/3", b"")
    assert list(await contents(memory)) == ["manifest/1", "wal/1", "wal/2", "wal/3"]


async def test_a_fault_that_does_not_fit_cannot_be_planned(store):
    with pytest.raises(AssertionError):
        store.plan(Fault.SHORT_BODY, Kind.PUT)
    with pytest.raises(AssertionError):
        store.plan(Fault.CONFLICT, Kind.DELETE)


async def test_a_crash_is_for_ever_and_for_one_client(store, memory):
    other = FaultyStore(memory, random.Random(2))
    await store.put("a", b"x")
    store.plan(Fault.CRASH_AFTER, skip=1)
    await store.put("b", b"x")
    with pytest.raises(UnavailableError):
        await store.put("c", b"x")
    await store.wait_crashed()
    for call in (store.get("a"), store.put("d", b"x"), store.list(""), store.delete("a")):
        with pytest.raises(UnavailableError, match="no connection"):
            await call
    assert store.calls == 3
    assert list(await contents(other)) == ["a", "b", "c"]


async def test_crashing_at_each_call_in_turn_leaves_each_prefix(autojump_clock):
    """How a workload is crashed at every store call: count its calls, then plan one crash a run."""

    async def workload(store):
        for number in range(4):
            await store.put(f"n/{number}", b"")

    for fault, extra in ((Fault.CRASH_BEFORE, 0), (Fault.CRASH_AFTER, 1)):
        for at in range(4):
            memory = MemoryStore()
            store = FaultyStore(memory, random.Random(1))
            store.plan(fault, skip=at)
            with pytest.raises(UnavailableError):
                await workload(store)
            assert len(await contents(memory)) == at + extra


async def test_a_partition_loses_requests_and_replies_until_it_heals(memory, autojump_clock):
    store = FaultyStore(memory, random.Random(1), FaultRates(latency_s=(1.0, 1.0)))

    async def split(after_s):
        await trio.sleep(after_s)
        store.partitioned = True

    for name, after_s in (("before the request arrives", 0.5), ("before the reply arrives", 1.5)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(split, after_s)
            with pytest.raises(UnavailableError, match="no connection"):
                await store.put(name.replace(" ", "-"), b"")
        with pytest.raises(UnavailableError):
            await store.list("")
        store.partitioned = False
    assert list(await contents(memory)) == ["before-the-reply-arrives"]


async def test_latency_is_paid_both_ways(memory, autojump_clock):
    store = FaultyStore(memory, random.Random(1), FaultRates(latency_s=(1.0, 2.0)))
    begun = trio.current_time()
    await store.put("a", b"")
    assert 2 < trio.current_time() - begun < 4


async def outcomes(seed):
    """What 300 calls with all faults at once come to."""
    memory = MemoryStore()
    seen = []
    async with trio.open_nursery() as network:
        rates = FaultRates(
            fail_before=0.05, lost_reply=0.05, delayed=0.05, conflict=0.05, busy=0.05, short_body=0.05,
            latency_s=(0.01, 0.1),
        )  # fmt: skip
        store = FaultyStore(memory, random.Random(seed), rates, network)
        for number in range(100):
            for call in (store.put_if_absent(f"n/{number}", b"x", b"x"), store.get(f"n/{number}"), store.list("")):
                try:
                    await call
                except (UnavailableError, ObjectNotFoundError, PreconditionFailedError) as exc:
                    seen.append((round(trio.current_time(), 6), str(exc)))
    return seen, sorted(await contents(memory))


async def test_a_run_is_a_function_of_its_seed(autojump_clock):
    begun = trio.current_time()
    runs = []
    for seed in (1, 1, 2):
        seen, left = await outcomes(seed)
        runs.append(([text for _, text in seen], left))
    assert trio.current_time() > begun
    assert runs[0] == runs[1] != runs[2]


async def test_every_fault_happens_at_about_its_rate(autojump_clock):
    seen, left = await outcomes(4)
    texts = " ".join(text for _, text in seen)
    for fault in ("FAIL_BEFORE", "LOST_REPLY", "DELAYED", "CONFLICT", "BUSY", "SHORT_BODY"):
        assert 1 <= texts.count(fault) <= 40, fault
    assert 75 <= len(left) < 100


async def test_closing_forwards(memory):
    traced = TracedStore(memory)
    store = FaultyStore(traced, random.Random(1))
    await store.aclose()
    assert store.url == "memory://"
