import random
import uuid

import pytest
import trio

from tests.unit.objectstore.kit import SeededWorld, TracedStore
from zerofs.errors import CorruptionError, ObjectStoreError, StoreUnsuitableError, UnavailableError
from zerofs.objectstore.faults import Fault, FaultRates, FaultyStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.open import open_store
from zerofs.objectstore.options import S3Options
from zerofs.objectstore.probe import BUCKET_ID_NAME, PROBE_PREFIX, adopt_bucket_id, probe, read_bucket_id
from zerofs.objectstore.retrying import RetryingStore
from zerofs.telemetry.metrics import Metrics


class IgnoresIfNoneMatch(TracedStore):
    async def put_if_absent(self, name, body, put_id):
        await self.put(name, body)


class IgnoresIfMatch(TracedStore):
    async def put_if_match(self, name, body, version, put_id):
        await self.put(name, body)


async def names(store):
    return [info.name for info in await store.list("")]


async def test_a_store_that_cannot_be_made_is_refused_at_once(world, autojump_clock):
    store = open_store("file:///proc/absent/store", S3Options(), world, Metrics())
    with trio.fail_after(1), pytest.raises(ObjectStoreError, match="the directory of the store cannot be made"):
        await probe(store, world)


async def test_a_bucket_id_of_any_size_is_refused_with_its_remedy():
    store = MemoryStore()
    await store.put(BUCKET_ID_NAME, bytes(5000))
    with pytest.raises(CorruptionError, match=r"5000 bytes.*restore it from a backup, or delete it"):
        await read_bucket_id(store)


async def test_a_good_store_is_asked_five_things(world):
    store = TracedStore()
    await probe(store, world)
    assert store.kinds == ["list", "put_if_absent", "put_if_absent", "put_if_match", "delete"]
    asked = {traced.name for traced in store.trace if traced.kind != "list"}
    assert len(asked) == 1
    suffix = asked.pop().removeprefix(PROBE_PREFIX)
    assert str(uuid.UUID(suffix)) == suffix
    assert await names(store) == []


async def test_leftovers_are_found_by_string_and_removed(world):
    store = TracedStore()
    leftovers = [f"{PROBE_PREFIX}{number}" for number in range(3)]
    for name in [*leftovers, ".zerofs_compatibility", "zerofs.key", BUCKET_ID_NAME]:
        await store.put(name, b"x")
    await probe(store, world)
    assert await names(store) == [BUCKET_ID_NAME, ".zerofs_compatibility", "zerofs.key"]


@pytest.mark.parametrize(
    ("unsuitable", "what"), [(IgnoresIfNoneMatch, "ignores If-None-Match"), (IgnoresIfMatch, "ignores If-Match")]
)
async def test_a_store_that_ignores_conditions_is_refused_after_two_probes(world, unsuitable, what):
    store = unsuitable()
    with pytest.raises(StoreUnsuitableError, match=what):
        await probe(store, world)
    probed = {traced.name for traced in store.trace if traced.kind == "delete"}
    assert len(probed) == 2
    assert await names(store) == []


async def test_a_probe_that_another_start_up_cleaned_away_is_repeated(world):
    """The other one takes our object for a leftover just before our second put."""
    memory = MemoryStore()

    class CleanedOnce(TracedStore):
        cleanings = 1

        async def put_if_absent(self, name, body, put_id):
            if self.kinds.count("put_if_absent") == 1 and self.cleanings:
                self.cleanings -= 1
                await memory.delete(name)
            await super().put_if_absent(name, body, put_id)

    store = CleanedOnce(memory)
    await probe(store, world)
    assert store.kinds.count("put_if_absent") == 4
    assert await names(memory) == []


async def test_many_start_ups_at_once_all_accept_the_store(autojump_clock):
    memory = MemoryStore()

    async def start(seed):
        await trio.sleep(seed * 0.05)
        world = SeededWorld(seed)
        await probe(FaultyStore(memory, world.random, FaultRates(latency_s=(0.001, 0.02))), world)

    async with trio.open_nursery() as nursery:
        for seed in range(8):
            nursery.start_soon(start, seed)
    assert await names(memory) == []


@pytest.mark.parametrize("seed", range(20))
async def test_a_bad_network_is_no_reason_to_refuse(seed, autojump_clock):
    world = SeededWorld(seed)
    memory = MemoryStore()
    async with trio.open_nursery() as network:
        rates = FaultRates(fail_before=0.1, lost_reply=0.1, busy=0.1, conflict=0.1, latency_s=(0.0, 0.1))
        faulty = FaultyStore(memory, random.Random(seed), rates, network)
        await probe(RetryingStore(faulty, world.random, Metrics()), world)
    assert await names(memory) == []


async def test_a_silent_store_is_unavailable_not_unsuitable(world, autojump_clock):
    store = FaultyStore(MemoryStore(), world.random)
    store.plan(Fault.CRASH_BEFORE, skip=2)
    with pytest.raises(UnavailableError):
        await probe(store, world, deadline_s=5)


async def test_what_a_crashed_probe_leaves_the_next_one_removes(world, autojump_clock):
    for at in range(1, 5):
        memory = MemoryStore()
        store = FaultyStore(memory, world.random)
        store.plan(Fault.CRASH_BEFORE, skip=at)
        with pytest.raises(UnavailableError):
            await probe(store, world, deadline_s=5)
        assert len(await names(memory)) == (0 if at == 1 else 1)
        await probe(memory, world)
        assert await names(memory) == []


# --- the bucket's id


async def test_a_new_bucket_gets_an_id_for_two_requests_and_keeps_it_for_one(world):
    store = TracedStore()
    first = await adopt_bucket_id(store, world)
    assert store.kinds == ["get", "put_if_absent"]
    assert str(uuid.UUID(first)) == first
    assert uuid.UUID(first).version == 4
    assert await adopt_bucket_id(store, world) == first
    assert store.kinds == ["get", "put_if_absent", "get"]
    assert await store.get(BUCKET_ID_NAME) == first.encode()


async def test_reading_writes_nothing(world):
    store = TracedStore()
    assert await read_bucket_id(store) is None
    assert store.kinds == ["get"]


@pytest.mark.parametrize("seed", range(20))
async def test_all_that_start_at_once_adopt_the_same_id(seed, autojump_clock):
    memory = MemoryStore()
    adopted = []
    rates = FaultRates(fail_before=0.1, lost_reply=0.2, delayed=0.1, latency_s=(0.0, 0.1), delay_s=(0.0, 1.0))

    async def start(number, network):
        world = SeededWorld(1000 * seed + number)
        faulty = FaultyStore(memory, world.random, rates, network)
        adopted.append(await adopt_bucket_id(RetryingStore(faulty, world.random, Metrics()), world))

    async with trio.open_nursery() as network, trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(start, number, network)
    assert len(adopted) == 4
    assert set(adopted) == {(await memory.get(BUCKET_ID_NAME)).decode()}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a uuid",
        b"A2F1C8F0-0E9B-4F64-9F0C-6C1D2E3F4A5B",
        b"a2f1c8f00e9b4f649f0c6c1d2e3f4a5b",
        b"a2f1c8f0-0e9b-4f64-9f0c-6c1d2e3f4a5b\n",
        b"a2f1c8f0-0e9b-4f64-9f0c-6c1d2e3f4a5",
        b"{a2f1c8f0-0e9b-4f64-9f0c-6c1d2e3f4a5b}",
        "a2f1c8f0-0e9b-4f64-9f0c-6c1d2e3f4a\uff15b".encode(),
        b"\xff" * 36,
    ],
)
async def test_a_malformed_id_is_corruption(world, data):
    store = MemoryStore()
    await store.put(BUCKET_ID_NAME, data)
    for call in (read_bucket_id(store), adopt_bucket_id(store, world)):
        with pytest.raises(CorruptionError, match="holds no UUID"):
            await call
    assert await store.get(BUCKET_ID_NAME) == data
