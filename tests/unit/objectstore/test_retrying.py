import random

import pytest
import trio

from tests.unit.objectstore.kit import TracedStore
from zerofs.errors import AccessDeniedError, ObjectNotFoundError, UnavailableError
from zerofs.objectstore.faults import Fault, FaultRates, FaultyStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.options import RetryOptions
from zerofs.objectstore.retrying import RetryingStore
from zerofs.telemetry.metrics import Metrics


class Stack:
    def __init__(self, world, options=None):
        self.memory = MemoryStore()
        self.faulty = FaultyStore(self.memory, world.random)
        self.traced = TracedStore(self.faulty)
        self.metrics = Metrics()
        self.store = RetryingStore(self.traced, world.random, self.metrics, options)


@pytest.fixture
def stack(world):
    return Stack(world)


CALLS = {
    "get": lambda store: store.get("name"),
    "head": lambda store: store.head("name"),
    "list": lambda store: store.list(""),
    "delete": lambda store: store.delete("name"),
    "put": lambda store: store.put("name", [b"a ", b"body"]),
}


@pytest.mark.parametrize("kind", CALLS)
async def test_what_may_be_repeated_is(stack, kind, autojump_clock):
    await stack.memory.put("name", b"a body")
    for _ in range(3):
        stack.faulty.plan(Fault.BUSY)
    stack.faulty.plan(Fault.LOST_REPLY)
    await CALLS[kind](stack.store)
    assert stack.traced.kinds == [kind] * 5
    assert stack.metrics.snapshot() == {f'store_retries_total{{kind="{kind}"}}': 4}


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.LOST_REPLY, Fault.CONFLICT])
async def test_conditional_puts_are_sent_once(stack, fault, autojump_clock):
    stack.faulty.plan(fault)
    with pytest.raises(UnavailableError):
        await stack.store.put_if_absent("new", b"x", b"id")
    await stack.memory.put("old", b"x")
    version = (await stack.memory.head("old")).version
    stack.faulty.plan(fault)
    with pytest.raises(UnavailableError):
        await stack.store.put_if_match("old", b"y", version, b"id")
    assert stack.traced.kinds == ["put_if_absent", "put_if_match"]
    assert stack.metrics.snapshot() == {}


async def test_answers_are_not_repeated(stack, autojump_clock):
    with pytest.raises(ObjectNotFoundError):
        await stack.store.get("absent")
    assert stack.traced.kinds == ["get"]


async def test_success_at_once_costs_no_time_and_no_count(stack, autojump_clock):
    begun = trio.current_time()
    await stack.store.put("name", b"x")
    assert trio.current_time() == begun
    assert stack.metrics.snapshot() == {}


async def test_the_deadline_ends_it_with_the_last_error(world, autojump_clock):
    stack = Stack(world, RetryOptions(deadline_s=10, first_pause_s=0.1, longest_pause_s=2))
    stack.faulty.partitioned = True
    begun = trio.current_time()
    with pytest.raises(UnavailableError, match="no connection"):
        await stack.store.get("name")
    assert 7 < trio.current_time() - begun <= 10
    assert len(stack.traced.kinds) == stack.metrics.get("store_retries_total", kind="get") + 1 > 8


async def test_slow_failures_count_against_the_deadline(world, autojump_clock):
    stack = Stack(world, RetryOptions(deadline_s=10))
    stack.faulty.rates = FaultRates(latency_s=(6.0, 6.0), fail_before=1.0)
    with pytest.raises(UnavailableError):
        await stack.store.get("name")
    assert len(stack.traced.kinds) == 2


async def test_it_comes_back_when_the_store_does(stack, nursery, autojump_clock):
    await stack.memory.put("name", b"x")
    stack.faulty.partitioned = True

    async def heal():
        await trio.sleep(20)
        stack.faulty.partitioned = False

    nursery.start_soon(heal)
    assert await stack.store.get("name") == b"x"
    assert 20 <= trio.current_time() < 26


async def test_a_permanent_error_after_a_transient_one_ends_it(world, autojump_clock):
    class Denied:
        url = "memory://"
        errors = [UnavailableError("first"), AccessDeniedError("second")]

        async def get(self, name, start=0, length=None, *, limit_bytes=None):
            raise self.errors.pop(0)

    with pytest.raises(AccessDeniedError, match="second"):
        await RetryingStore(Denied(), world.random, Metrics()).get("name")


async def test_many_at_once_do_not_disturb_each_other(stack, autojump_clock):
    stack.faulty.rates = FaultRates(fail_before=0.4, lost_reply=0.1, latency_s=(0.0, 0.1))
    results = {}

    async def one(number):
        await stack.store.put(f"n/{number}", b"%d" % number)
        results[number] = await stack.store.get(f"n/{number}")

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(one, number)
    assert results == {number: b"%d" % number for number in range(50)}


async def test_pauses_are_a_function_of_the_randomness(autojump_clock):
    async def duration(seed):
        faulty = FaultyStore(MemoryStore(), random.Random(1))
        for _ in range(5):
            faulty.plan(Fault.BUSY)
        begun = trio.current_time()
        await RetryingStore(faulty, random.Random(seed), Metrics()).list("")
        return trio.current_time() - begun

    first, again, other = await duration(1), await duration(1), await duration(2)
    assert abs(first - again) < 1e-9
    assert abs(first - other) > 1e-3


async def test_cancelling_ends_a_pause(stack, autojump_clock):
    stack.faulty.partitioned = True
    with trio.move_on_after(3) as scope:
        await stack.store.get("name")
    assert scope.cancelled_caught
