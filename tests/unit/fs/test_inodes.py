"""One object per inode, whoever asks, however the asking interleaves."""

import gc

import pytest
import trio

from tests.unit.fs.harness import Mounted, fails, forget_all
from zerofs.errors import CorruptionError, UnavailableError
from zerofs.fs.format.keys import inode_key
from zerofs.fs.inodes import Inodes
from zerofs.testing.engine import FakeEngine, with_checkpoint
from zerofs.units import KIB


async def some_inodes(mounted: Mounted, count: int) -> tuple[FakeEngine, list[int]]:
    numbers = [await mounted.write_file(f"/{index}", b"x" * index) for index in range(count)]
    await mounted.engine.sync()
    return FakeEngine(rows=mounted.engine.rows()), numbers


async def test_loads_are_single_flight(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 3)
    engine.pause = with_checkpoint
    inodes = Inodes(engine, 10)
    found = []

    async def load() -> None:
        found.append(await inodes.get(numbers[0]))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(load)
    assert len({id(node) for node in found}) == 1
    assert engine.calls == ["get"]


async def test_single_and_many_share_their_loads(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 4)
    engine.pause = with_checkpoint
    inodes = Inodes(engine, 10)
    found: dict[str, object] = {}

    async def one() -> None:
        found["one"] = await inodes.get(numbers[1])

    async def many() -> None:
        found["many"] = await inodes.find_many([*numbers, numbers[1], 999])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(many)
        nursery.start_soon(one)
        nursery.start_soon(many)
    first = found["many"]
    assert isinstance(first, list)
    assert [node and node.number for node in first] == [*numbers, numbers[1], None]
    assert first[1] is first[4] is found["one"]


async def test_an_object_that_is_held_is_never_doubled_by_eviction(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 40)
    inodes = Inodes(engine, 5)
    held = await inodes.get(numbers[0])
    for number in numbers:
        await inodes.get(number)
    assert await inodes.get(numbers[0]) is held
    forget_all(inodes._recent)
    assert await inodes.get(numbers[0]) is held


async def test_what_nobody_holds_is_freed(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 40)
    inodes = Inodes(engine, 5)
    for number in numbers:
        await inodes.get(number)
    gc.collect()
    assert sum(inodes.cached(number) is not None for number in numbers) <= 10


async def test_a_missing_inode(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 1)
    inodes = Inodes(engine, 5)
    assert await inodes.find(max(numbers) + 1) is None
    with fails("ESTALE"):
        await inodes.get(max(numbers) + 1)
    assert await inodes.find_many([]) == []


async def test_a_failed_load_fails_its_waiters_no_more_than_themselves(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 1)
    engine.pause = with_checkpoint
    errors: list[UnavailableError | None] = [UnavailableError("once")]
    engine.read_error = lambda key: errors.pop() if errors else None
    inodes = Inodes(engine, 5)
    results: list[object] = []

    async def load() -> None:
        try:
            results.append(await inodes.get(numbers[0]))
        except UnavailableError as error:
            results.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(load)
        nursery.start_soon(load)
    assert sum(isinstance(result, UnavailableError) for result in results) == 1


async def test_a_damaged_row_is_corruption(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 1)
    engine.replace(inode_key(numbers[0]), b"\1" * 20)
    with pytest.raises(CorruptionError):
        await Inodes(engine, 5).get(numbers[0])


async def test_the_caches_of_a_mount_stay_within_their_counts(mounted: Mounted) -> None:
    await mounted.remount(inode_cache_count=10, dentry_cache_count=10)
    for index in range(200):
        await mounted.write_file(f"/{index}", b"y" * KIB)
        if not index % 20:
            await mounted.engine.sync()
    assert sorted(await mounted.list("/", limit=7)) == sorted(b"%d" % index for index in range(200))
    for index in range(200):
        assert await mounted.read_file(f"/{index}") == b"y" * KIB
