"""One object per inode, whoever asks, however the asking interleaves."""

import gc
import stat
from collections.abc import Sequence

import pytest
import trio

from tests.unit.fs.harness import ROOT_CALLER, Mounted, fails, forget_all
from zerofs.errors import CorruptionError, UnavailableError
from zerofs.fs import inodes as module
from zerofs.fs.attributes import Attributes, attributes_of
from zerofs.fs.format.keys import inode_key
from zerofs.fs.format.records import Inode
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
    found: list[Inode] = []
    shown: list[list[Attributes | None]] = []

    async def one() -> None:
        found.append(await inodes.get(numbers[1]))

    async def many() -> None:
        shown.append(await inodes.show_many([*numbers, numbers[1], 999]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(many)
        nursery.start_soon(one)
        nursery.start_soon(many)
    first, second = shown
    assert [known and known.inode for known in first] == [*numbers, numbers[1], None]
    assert first == second
    assert first[1] == attributes_of(found[0])
    assert engine.calls.count("multi_get") == 1, "for all but the one that is being loaded"


async def test_what_is_only_shown_becomes_no_object_until_somebody_needs_it(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 4)
    inodes = Inodes(engine, 10)
    shown = await inodes.show_many(numbers)
    assert len(inodes._live) == 0
    engine.calls.clear()
    assert await inodes.show_many(numbers) == shown
    nodes = [await inodes.get(number) for number in numbers]
    assert [attributes_of(node) for node in nodes] == shown
    assert engine.calls == []
    nodes[1].mode ^= 0o111
    assert (await inodes.show_many(numbers))[1] == attributes_of(nodes[1]) != shown[1]
    inodes.drop(numbers[2])
    engine.replace(inode_key(numbers[2]), None)
    assert (await inodes.show_many(numbers))[2] is None


async def test_what_is_shown_is_as_new_as_the_newest_object_even_when_that_is_evicted(mounted: Mounted) -> None:
    await mounted.remount(inode_cache_count=2)
    for index in range(6):
        await mounted.write_file(f"/{index}", b"x" * index)
    root = await mounted.fs.opendir(ROOT_CALLER, 1)
    for mode in (0o751, 0o640):
        for index in range(6):
            await mounted.change(f"/{index}", mode=mode)
        await mounted.engine.sync()
        gc.collect()
        entries = await mounted.fs.readdir(root, 0, 10)
        assert {stat.S_IMODE(entry.attributes.mode) for entry in entries} == {mode}
        assert [entry.attributes.size_bytes for entry in entries] == [*range(6)]
    await mounted.fs.releasedir(root)


@pytest.mark.parametrize("tries", [0, 1])
async def test_what_is_forgotten_while_others_are_loaded_is_shown_all_the_same(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    engine, numbers = await some_inodes(mounted, 6)
    monkeypatch.setattr(module, "_TRIES", tries)
    inodes = Inodes(engine, 2)
    right = await Inodes(engine, 100).show_many(numbers)
    await inodes.show_many(numbers[:2])

    async def forget(keys: Sequence[bytes]) -> None:
        forget_all(inodes._recent)
        forget_all(inodes._rows)

    engine.pause = forget
    assert await inodes.show_many([*numbers, 999]) == [*right, None]


async def test_kept_rows_are_bounded(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 40)
    inodes = Inodes(engine, 5)
    for number in numbers:
        await inodes.show_many([number])
    assert len(inodes._rows) <= 10


async def test_files_that_stand_in_their_rows_are_not_kept_twice(mounted: Mounted) -> None:
    engine, numbers = await some_inodes(mounted, 1)
    engine.replace(inode_key(numbers[0]), small_file(1000).encode())
    inodes = Inodes(engine, 10)
    (shown,) = await inodes.show_many(numbers)
    assert shown is not None
    assert shown.size_bytes == 1000
    assert len(inodes._rows) == 0
    assert inodes.cached(numbers[0]) is not None


def small_file(size: int) -> Inode:
    node = Inode(7, b"", mode=stat.S_IFREG | 0o644, uid=1, gid=2, now_ns=3)
    node.size, node.content = size, b"c" * size
    return node


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
    assert await inodes.show_many([]) == []
    assert await inodes.show_many([max(numbers) + 1]) == [None]


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
    with pytest.raises(CorruptionError):
        await Inodes(engine, 5).show_many(numbers)


async def test_the_caches_of_a_mount_stay_within_their_counts(mounted: Mounted) -> None:
    await mounted.remount(inode_cache_count=10, dentry_cache_count=10)
    for index in range(200):
        await mounted.write_file(f"/{index}", b"y" * KIB)
        if not index % 20:
            await mounted.engine.sync()
    assert sorted(await mounted.list("/", limit=7)) == sorted(b"%d" % index for index in range(200))
    for index in range(200):
        assert await mounted.read_file(f"/{index}") == b"y" * KIB
