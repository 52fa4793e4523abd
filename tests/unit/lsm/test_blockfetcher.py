"""Blocks of meta SSTs: who reads them one behind the other needs few requests, and what came along is good."""

import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.unit.lsm.compaction.kit import TOKENS, Bench
from tests.unit.lsm.kit import GatedStore
from zerofs.errors import UnavailableError
from zerofs.lsm.format.rows import PUT
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sst import SstReader, put_meta_sst

TOKEN = TOKENS[1]
ROWS = [(b"m%05d" % number, PUT, b"%05d" % number * 20) for number in range(200)]


@pytest.fixture
async def sst():
    bench = Bench()
    info = await put_meta_sst(bench.storage, (1, 1), TOKEN, ROWS, KeyRanges(), 100)
    return bench, info


async def open_reader(bench, info, store=None):
    reader = SstReader(bench.make_storage(store), TOKENS)
    index = await reader.index(info)
    bench.calls.clear()
    return reader, index, len(index.last_keys)


async def read(reader, info, index, numbers):
    return [row for number in numbers for row in await reader.block(info, index, number)]


async def test_blocks_one_behind_the_other_come_with_ever_fewer_requests(sst):
    bench, info = sst
    reader, index, count = await open_reader(bench, info)
    assert await read(reader, info, index, range(count)) == ROWS
    assert len(bench.calls) < count // 4
    assert sum(call.received_bytes for call in bench.calls) == index.offsets[-1] - index.offsets[0], "each byte once"


async def test_blocks_at_random_come_alone(sst):
    bench, info = sst
    reader, index, count = await open_reader(bench, info)
    numbers = random.Random(7).sample(range(0, count, 2), 30)
    for number in numbers:
        await reader.block(info, index, number)
    assert len(bench.calls) == 30
    assert sum(call.received_bytes for call in bench.calls) == sum(
        index.offsets[number + 1] - index.offsets[number] for number in numbers
    )


async def test_two_that_want_the_same_blocks_fetch_them_once(sst):
    bench, info = sst
    store = GatedStore(bench.store)
    reader, index, _ = await open_reader(bench, info, store)
    await read(reader, info, index, range(3))
    bench.calls.clear()
    store.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.block, info, index, 3)
        await wait_all_tasks_blocked()
        for number in (4, 3, 5):
            nursery.start_soon(reader.block, info, index, number)
        await wait_all_tasks_blocked()
        store.gate.set()
    assert len(bench.calls) == 1


async def test_who_waited_for_a_store_that_does_not_answer_has_waited_long_enough(sst):
    """Else each of them would wait for as long again, one after the other."""
    bench, info = sst
    store = GatedStore(bench.store)
    reader, index, _ = await open_reader(bench, info, store)
    store.gate, store.error = trio.Event(), UnavailableError("the store is away")
    failed = []

    async def get():
        with pytest.raises(UnavailableError, match="the store is away"):
            await reader.block(info, index, 0)
        failed.append(True)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(get)
        await wait_all_tasks_blocked()
        store.gate.set()
    assert len(failed) == 6
    assert len(bench.calls) == 1
    assert await read(reader, info, index, [0]) == ROWS[: len(await reader.block(info, index, 0))]


async def test_who_waited_for_one_that_was_cancelled_fetches_himself(sst):
    bench, info = sst
    store = GatedStore(bench.store)
    reader, index, _ = await open_reader(bench, info, store)
    store.gate, scope, found = trio.Event(), trio.CancelScope(), []

    async def first():
        with scope:
            await reader.block(info, index, 0)

    async def second():
        found.extend(await reader.block(info, index, 0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await wait_all_tasks_blocked()
        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        store.gate.set()
    assert scope.cancelled_caught
    assert found == ROWS[: len(found)] != []


async def test_what_came_along_damaged_is_fetched_again(sst):
    bench, info = sst
    reader, index, count = await open_reader(bench, info)
    real, largest = bench.store.get, max(map(int.__sub__, index.offsets[1:], index.offsets))

    async def damaged(name, start=0, length=None, **options):
        body = bytearray(await real(name, start, length, **options))
        if len(body) > largest:
            body[-1] ^= 1
        return bytes(body)

    bench.store.get = damaged
    assert await read(reader, info, index, range(count)) == ROWS
