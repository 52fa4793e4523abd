"""`create` and `replace` against injected faults; against real servers see tests/contract/test_s3_ambiguity.py."""

import random

import pytest
import trio

from tests.unit.objectstore.kit import SeededWorld, TracedStore
from zerofs.errors import ObjectNotFoundError, ObjectStoreError, PreconditionFailedError, UnavailableError
from zerofs.objectstore.conditional import create, replace
from zerofs.objectstore.decorator import Kind
from zerofs.objectstore.faults import Fault, FaultRates, FaultyStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.retrying import RetryingStore
from zerofs.telemetry.metrics import Metrics

OUR_ID = b"our own put id.."
OTHER_ID = b"another's put id"
OURS = OUR_ID + b"x" * 100
OTHERS = OTHER_ID + b"x" * 100


class Client:
    """One client of a shared store, through a bad network."""

    def __init__(self, memory=None, seed=1, rates=None, network=None):
        self.world = SeededWorld(seed)
        self.memory = memory or MemoryStore()
        self.faulty = FaultyStore(self.memory, random.Random(seed), rates, network)
        self.traced = TracedStore(self.faulty)
        self.store = RetryingStore(self.traced, self.world.random, Metrics())

    async def create(self, body=OURS, put_id=OUR_ID, deadline_s=30.0):
        await create(self.store, self.world, "name", body, put_id, deadline_s)

    async def replace(self, version, body=OURS, put_id=OUR_ID, deadline_s=30.0):
        await replace(self.store, self.world, "name", body, version, put_id, deadline_s)


async def test_all_well_is_one_request():
    client = Client()
    await client.create()
    await client.replace((await client.memory.head("name")).version, OTHERS, OTHER_ID)
    assert client.traced.kinds == ["put_if_absent", "put_if_match"]


async def test_lost_reply_is_ours(autojump_clock):
    client = Client()
    client.faulty.plan(Fault.LOST_REPLY)
    await client.create()
    assert client.traced.kinds == ["put_if_absent", "head", "get"]
    assert client.traced.trace[-1].received_bytes == 64


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.BUSY, Fault.CONFLICT])
async def test_what_never_arrived_is_sent_again(fault, autojump_clock):
    client = Client()
    client.faulty.plan(fault)
    await client.create()
    assert client.traced.kinds == ["put_if_absent", "head", "put_if_absent"]
    assert await client.memory.get("name") == OURS


async def test_a_put_that_arrives_between_look_and_second_try_is_ours(autojump_clock):
    async with trio.open_nursery() as network:
        client = Client(rates=FaultRates(delay_s=(0.0001, 0.0001)), network=network)
        client.faulty.plan(Fault.DELAYED)
        await client.create()
        assert client.traced.kinds == ["put_if_absent", "head", "put_if_absent", "head", "get"]


@pytest.mark.parametrize("fault", [None, Fault.LOST_REPLY, Fault.FAIL_BEFORE, Fault.CONFLICT])
@pytest.mark.parametrize("others", [OTHERS, OTHERS + b"!", OURS[:-1], OTHERS[:20], b""])
async def test_anothers_is_never_ours(fault, others, autojump_clock):
    """Also a prefix of ours is not ours, for the size differs."""
    client = Client()
    await client.memory.put("name", others)
    if fault:
        client.faulty.plan(fault)
    with pytest.raises(PreconditionFailedError, match="name in memory:// is another's"):
        await client.create()
    assert client.traced.kinds.count("put_if_absent") == 1
    assert await client.memory.get("name") == others


async def test_a_body_with_our_id_but_other_bytes_around_it_is_not_ours(autojump_clock):
    client = Client()
    await client.memory.put("name", OUR_ID + b"y" * 100)
    with pytest.raises(PreconditionFailedError):
        await client.create()


async def test_a_look_that_fails_is_repeated_before_anything_is_sent_again(autojump_clock):
    client = Client()
    client.faulty.plan(Fault.LOST_REPLY)
    client.faulty.plan(Fault.BUSY, Kind.HEAD)
    client.faulty.plan(Fault.SHORT_BODY)
    await create(client.traced, client.world, "name", OURS, OUR_ID, 30)
    assert client.traced.kinds == ["put_if_absent", "head", "head", "get", "head", "get"]


async def test_silence_until_the_deadline_is_unknown(autojump_clock):
    client = Client()
    client.faulty.partitioned = True
    begun = trio.current_time()
    with pytest.raises(UnavailableError, match="not known after 7 s"):
        await client.create(deadline_s=7)
    assert trio.current_time() - begun <= 7
    assert client.traced.kinds.count("put_if_absent") == 1  # nobody knows, so nothing is sent again before a look


async def test_effect_and_then_silence_is_unknown_not_success(autojump_clock):
    client = Client()
    client.faulty.plan(Fault.CRASH_AFTER)
    with pytest.raises(UnavailableError, match="not known"):
        await client.create(deadline_s=7)
    assert await client.memory.get("name") == OURS


async def test_never_arriving_is_unknown_at_the_deadline(autojump_clock):
    client = Client(rates=FaultRates(conflict=1.0))
    with pytest.raises(UnavailableError, match="not known after 20 s"):
        await client.create(deadline_s=20)
    assert client.traced.kinds.count("put_if_absent") > 5


async def test_replace_lost_reply_is_ours(autojump_clock):
    client = Client()
    await client.memory.put("name", OTHERS)
    client.faulty.plan(Fault.LOST_REPLY)
    await client.replace((await client.memory.head("name")).version)
    assert client.traced.kinds == ["put_if_match", "head", "get"]
    assert await client.memory.get("name") == OURS


async def test_replace_that_never_arrived_is_sent_again(autojump_clock):
    client = Client()
    await client.memory.put("name", OTHERS)
    client.faulty.plan(Fault.CONFLICT)
    await client.replace((await client.memory.head("name")).version)
    assert client.traced.kinds == ["put_if_match", "head", "put_if_match"]


async def test_replace_of_what_is_gone_or_changed_is_lost(autojump_clock):
    client = Client()
    await client.memory.put("name", OTHERS)
    version = (await client.memory.head("name")).version
    await client.memory.put("name", OTHERS)
    with pytest.raises(PreconditionFailedError):
        await client.replace(version)
    await client.memory.delete("name")
    client.faulty.plan(Fault.FAIL_BEFORE)
    with pytest.raises(PreconditionFailedError):
        await client.replace(version)
    with pytest.raises(ObjectNotFoundError):
        await client.memory.get("name")


async def test_an_object_that_shrinks_during_the_look_is_looked_at_again(autojump_clock):
    client = Client()
    await client.memory.put("name", OTHERS)

    class Shrinking(TracedStore):
        async def head(self, name):
            info = await super().head(name)
            await client.memory.put("name", b"short")
            return info

    with pytest.raises(PreconditionFailedError):
        await create(Shrinking(client.memory), client.world, "name", OURS, OUR_ID, 30)


async def test_other_errors_go_up_at_once():
    client = Client()
    with pytest.raises(ObjectStoreError, match="is not a name"):
        await create(client.store, client.world, "/", OURS, OUR_ID, 30)


async def test_a_body_without_its_put_id_is_a_bug():
    client = Client()
    for body in (b"x" * 64 + OUR_ID, b"", OUR_ID[1:]):
        with pytest.raises(AssertionError):
            await client.create(body)
    assert client.traced.kinds == []


async def test_cancelling_does_not_wait_for_the_deadline(autojump_clock):
    client = Client()
    client.faulty.partitioned = True
    with trio.move_on_after(3) as scope:
        await client.create()
    assert scope.cancelled_caught


BAD_NETWORK = FaultRates(
    fail_before=0.15, lost_reply=0.15, delayed=0.15, conflict=0.1, busy=0.05, short_body=0.05,
    latency_s=(0.0, 0.3), delay_s=(0.0, 4.0),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
async def test_of_contenders_in_a_bad_network_at_most_one_creates(seed, autojump_clock):
    memory = MemoryStore()
    verdicts = {}

    async def contend(client, put_id, deadline_s):
        try:
            await client.create(put_id + b"y" * 60, put_id, deadline_s)
        except (PreconditionFailedError, UnavailableError) as exc:
            verdicts[put_id] = type(exc)
        else:
            verdicts[put_id] = None

    async with trio.open_nursery() as network, trio.open_nursery() as clients:
        for number in range(3):
            client = Client(memory, 100 * seed + number, BAD_NETWORK, network)
            clients.start_soon(contend, client, b"contender no %04d" % number, client.world.random.choice([1, 60]))
    winner = (await memory.get("name"))[:17] if await memory.list("") else None
    for put_id, verdict in verdicts.items():
        if verdict is None:
            assert winner == put_id
        if verdict is PreconditionFailedError:
            assert winner != put_id
    assert UnavailableError in verdicts.values() or None in verdicts.values()


@pytest.mark.parametrize("seed", range(40))
async def test_replacing_in_a_bad_network_loses_and_doubles_nothing(seed, autojump_clock):
    """Each replacement puts its id before what it read: in the end each success stands there exactly once."""
    memory = MemoryStore()
    await memory.put("name", b"")
    succeeded, doubtful = [], []

    async def append(client, letter):
        for number in range(5):
            put_id = b"%s%015d" % (letter, number)
            while True:
                before, version = await client.store.get_versioned("name")
                try:
                    await client.replace(version, put_id + before, put_id, 60)
                except PreconditionFailedError:
                    doubtful.append(put_id)
                    continue
                succeeded.append(put_id)
                break

    async with trio.open_nursery() as network, trio.open_nursery() as clients:
        for index, letter in enumerate((b"a", b"b", b"c")):
            clients.start_soon(append, Client(memory, 100 * seed + index, BAD_NETWORK, network), letter)
    history = await memory.get("name")
    ids = [history[start : start + 16] for start in range(0, len(history), 16)]
    assert set(ids) == set(succeeded)
    assert len(succeeded) == 15
    for put_id in set(ids) - set(doubtful):
        assert ids.count(put_id) == 1
