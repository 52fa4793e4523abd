"""Group commit on a store that is far away: who syncs all the time shares each append with all others who do."""

import random

import pytest
import trio

from tests.unit.lsm.kit import Bed
from zerofs.errors import UnavailableError
from zerofs.objectstore.decorator import StoreDecorator
from zerofs.objectstore.faults import FaultRates, FaultyStore

LATENCY_S = 0.1
WRITERS, ROUNDS = 16, 30


class FarStore(StoreDecorator):
    """Each request takes a while."""

    async def _around(self, request, call):
        await trio.sleep(LATENCY_S)
        return await call()


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


async def write_and_sync(engine, writer, starts_at_s, pause_s, chance, took):
    await trio.sleep(starts_at_s)
    for number in range(ROUNDS):
        engine.commit([(b"meta%d" % writer, b"%d" % number)])
        begun = trio.current_time()
        await engine.sync()
        took.append(trio.current_time() - begun)
        await trio.sleep(chance.random() * pause_s)


async def run(bed, starts_at, pause_s):
    """(appends, seconds, the longest sync) of all writers."""
    chance, took = random.Random(1), []
    async with bed.open(store=FarStore(bed.store)) as engine:
        before, begun = len(bed.trace), trio.current_time()
        async with trio.open_nursery() as nursery:
            for writer, starts_at_s in enumerate(starts_at):
                nursery.start_soon(write_and_sync, engine, writer, starts_at_s, pause_s, chance, took)
        return len(bed.trace) - before, trio.current_time() - begun, max(took)


async def test_two_groups_become_one(bed, autojump_clock):
    half = WRITERS // 2
    starts_at = [0.0] * half + [LATENCY_S / 2] * half
    requests, seconds, longest_s = await run(bed, starts_at, LATENCY_S / 10)
    assert requests < 1.2 * ROUNDS, "not one append for each half"
    assert seconds < 1.3 * ROUNDS * LATENCY_S
    assert longest_s < 2.5 * LATENCY_S


async def test_nobody_is_waited_for_who_does_not_come_back(bed, autojump_clock):
    """Writers that pause for longer than an append: the wait for them gets short, and costs next to nothing."""
    _, _, longest_s = await run(bed, [LATENCY_S / 3 * writer for writer in range(4)], 5 * LATENCY_S)
    assert longest_s < 2.5 * LATENCY_S


async def test_one_writer_waits_for_nobody(bed, autojump_clock):
    requests, seconds, _ = await run(bed, [0.0], 0.0)
    assert requests == ROUNDS
    assert seconds < 1.01 * ROUNDS * LATENCY_S


async def test_those_who_come_back_one_after_the_other_are_waited_for(bed, autojump_clock):
    """As programs do whose replies one thread sends: the last of them is back when half an append would have passed."""

    async def come_back(engine, writer):
        for number in range(ROUNDS):
            engine.commit([(b"meta%d" % writer, b"%d" % number)])
            await engine.sync()
            await trio.sleep(0.03 * LATENCY_S * writer)

    async with bed.open(store=FarStore(bed.store)) as engine:
        before, begun = len(bed.trace), trio.current_time()
        async with trio.open_nursery() as nursery:
            for writer in range(WRITERS):
                nursery.start_soon(come_back, engine, writer)
        assert len(bed.trace) - before < 1.2 * ROUNDS
        assert trio.current_time() - begun < 1.6 * ROUNDS * LATENCY_S


async def test_after_an_outage_nobody_waits_for_those_who_gave_up(bed, autojump_clock):
    """The append that went on for ten minutes says nothing of how long it is worth waiting for others."""
    faulty = FaultyStore(bed.store, random.Random(1))
    async with bed.open(store=faulty) as engine:

        async def give_up(writer):
            engine.commit([(b"meta%d" % writer, b"x")])
            with pytest.raises(UnavailableError):
                await engine.sync()

        faulty.rates = FaultRates(fail_before=1.0)
        async with trio.open_nursery() as nursery:
            for writer in range(3):
                nursery.start_soon(give_up, writer)
        await trio.sleep(600)
        faulty.rates = FaultRates()
        await trio.sleep(5)
        begun = trio.current_time()
        engine.commit([(b"meta9", b"x")])
        await engine.sync()
        assert trio.current_time() - begun < 1
