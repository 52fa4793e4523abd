"""Many operations at once over an engine that makes every read wait: races, atomicity, no deadlock.

The order in which tasks run is drawn from a seed by the engine's pauses; what must hold does not depend on it.
"""

import errno
import os
import random
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from tests.unit.fs.harness import ROOT_CALLER, C, Mounted, evict_all
from zerofs.errors import FsError
from zerofs.fs.attributes import AttributeChanges
from zerofs.fs.format.keys import chunk_key
from zerofs.fs.ops.rename import EXCHANGE
from zerofs.testing.engine import immediately

seeds = pytest.mark.parametrize("seed", range(6))


def make_slow(mounted: Mounted, seed: int) -> random.Random:
    """Let every read take 0 to 3 turns, and forget what is cached now and then."""
    rng = random.Random(seed)

    async def pause(keys: Sequence[bytes]) -> None:
        if rng.random() < 0.05:
            evict_all(mounted.fs)
        for _ in range(rng.randrange(4)):
            await trio.lowlevel.checkpoint()

    mounted.engine.pause = pause
    return rng


@seeds
async def test_names_under_fire(mounted: Mounted, seed: int) -> None:
    """Several tasks make, rename, exchange, link and remove the same few names in the same few directories."""
    directories = [1, await mounted.mkdir("/p"), await mounted.mkdir("/p/q"), await mounted.mkdir("/r")]
    await mounted.remount()
    rng = make_slow(mounted, seed)
    expected = {"ENOENT", "EEXIST", "ENOTEMPTY", "EISDIR", "ENOTDIR", "EINVAL", "EPERM", "ESTALE"}
    outcomes: set[str] = set()
    fs = mounted.fs

    async def step() -> None:
        name, other = rng.choice([b"a", b"b", b"c"]), rng.choice([b"a", b"b", b"c", b"q"])
        parent, target = rng.choice(directories), rng.choice(directories)
        kind = rng.randrange(9)
        if kind == 0:
            directories.append((await fs.mkdir(ROOT_CALLER, parent, name, 0o755)).inode)
            fs.forget(directories[-1], 1)
        elif kind == 1:
            handle, made = await fs.create(ROOT_CALLER, parent, name, 0o644, os.O_RDWR)
            await fs.write(handle, rng.choice([0, 2000, C]), b"x" * rng.choice([10, 2000, C]))
            await fs.release(handle)
            fs.forget(made.inode, 1)
        elif kind == 2:
            await fs.unlink(ROOT_CALLER, parent, name)
        elif kind == 3:
            await fs.rmdir(ROOT_CALLER, parent, name)
        elif kind in (4, 5):
            await fs.rename(ROOT_CALLER, parent, name, target, other, 0)
        elif kind == 6:
            await fs.rename(ROOT_CALLER, parent, name, target, other, EXCHANGE)
        elif kind == 7:
            found = await fs.lookup(ROOT_CALLER, parent, name)
            try:
                made = await fs.link(ROOT_CALLER, found.inode, target, other)
                fs.forget(made.inode, 1)
            finally:
                fs.forget(found.inode, 1)
        else:
            handle = await fs.opendir(ROOT_CALLER, parent)
            for entry in await fs.readdir(handle, 0, 100):
                fs.forget(entry.attributes.inode, 1)
            await fs.releasedir(handle)

    async def worker() -> None:
        for _ in range(60):
            try:
                await step()
                outcomes.add("done")
            except FsError as error:
                name = errno.errorcode[error.errno]
                assert name in expected
                outcomes.add(name)

    async def sync_now_and_then() -> None:
        for _ in range(20):
            await fs.sync()
            await trio.lowlevel.checkpoint()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(worker)
            nursery.start_soon(sync_now_and_then)
    assert {"done", "ENOENT", "EEXIST"} <= outcomes
    assert len(fs._ctx.locks) == 0
    mounted.check()


@seeds
async def test_directories_never_lose_their_way_to_the_root(mounted: Mounted, seed: int) -> None:
    """Moves of directories into each other, all at once, make no ring: the checker would find it unreachable."""
    inodes = [await mounted.mkdir(f"/{index}") for index in range(5)]
    await mounted.remount()
    rng = make_slow(mounted, seed)
    moved = 0
    refused: set[int] = set()

    async def worker() -> None:
        nonlocal moved
        for _ in range(40):
            source = rng.randrange(5)
            places = [1, *inodes]
            try:
                old, new = rng.choice(places), rng.choice(places)
                await mounted.fs.rename(ROOT_CALLER, old, b"%d" % source, new, b"%d" % source, 0)
                moved += 1
            except FsError as error:
                refused.add(error.errno)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(worker)
    assert moved > 5
    assert refused <= {errno.ENOENT, errno.EINVAL, errno.ENOTEMPTY}
    mounted.check()


@seeds
async def test_reads_and_writes_are_atomic(mounted: Mounted, seed: int) -> None:
    """A request that spans chunks is seen whole or not at all, whatever waits in between."""
    span = 2 * C + 500
    await mounted.write_file("/f", b"a" * span)
    await mounted.remount()
    rng = make_slow(mounted, seed)
    handle = await mounted.open("/f")
    seen: set[bytes] = set()

    async def write(fill: bytes) -> None:
        for _ in range(30):
            await mounted.fs.write(handle, 100, fill * (span - 200))
            await trio.lowlevel.checkpoint()

    async def read() -> None:
        for _ in range(60):
            data = await mounted.fs.read(handle, 100, span - 200)
            assert len(set(data)) == 1
            seen.add(data[:1])
            await trio.lowlevel.checkpoint()
            if rng.random() < 0.3:
                await mounted.fs.sync()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, b"b")
            nursery.start_soon(write, b"c")
            nursery.start_soon(read)
            nursery.start_soon(read)
    assert len(seen) > 1
    await mounted.fs.release(handle)


@seeds
async def test_reads_and_truncations_are_atomic(mounted: Mounted, seed: int) -> None:
    """A reader never sees the zeros of a shrinking or growing file mixed into what it had."""
    full = b"x" * (3 * C)
    await mounted.write_file("/f", full)
    await mounted.remount()
    rng = make_slow(mounted, seed)
    handle = await mounted.open("/f")
    inode = (await mounted.look("/f")).inode

    async def change() -> None:
        for _ in range(25):
            for size in (500, 0):
                await mounted.fs.setattr(ROOT_CALLER, inode, AttributeChanges(size_bytes=size))
                await trio.lowlevel.checkpoint()
            await mounted.fs.write(handle, 0, full)
            await mounted.fs.sync()
            for _ in range(rng.randrange(5)):
                await trio.lowlevel.checkpoint()

    sizes: set[int] = set()

    async def read() -> None:
        for _ in range(100):
            data = await mounted.fs.read(handle, 0, 3 * C)
            assert data == b"x" * len(data)
            sizes.add(len(data))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(change)
            nursery.start_soon(read)
            nursery.start_soon(read)
    assert {0, 500, 3 * C} & sizes
    await mounted.fs.release(handle)


@seeds
async def test_writers_of_different_parts_do_not_lose_each_others_bytes(mounted: Mounted, seed: int) -> None:
    """Small writes of several tasks into the same chunks, with cuts in between."""
    await mounted.write_file("/f", bytes(1) + b"-" * (3 * C))
    await mounted.remount()
    rng = make_slow(mounted, seed)
    handle = await mounted.open("/f")
    expected = bytearray(bytes(1) + b"-" * (3 * C))

    async def write(part: int) -> None:
        for _ in range(40):
            offset = rng.randrange(0, 3 * C // 16 - 1) * 16 + part
            value = bytes([rng.randrange(256)])
            expected[offset : offset + 1] = value
            await mounted.fs.write(handle, offset, value)
            if rng.random() < 0.1:
                await mounted.fs.fsync(handle)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for part in range(8):
                nursery.start_soon(write, part)
    assert await mounted.fs.read(handle, 0, 4 * C) == expected
    await mounted.fs.release(handle)
    await mounted.remount()
    assert await mounted.read_file("/f") == expected


@seeds
async def test_a_crash_at_any_time_leaves_a_prefix(mounted: Mounted, seed: int) -> None:
    """Several tasks append numbered records to their own files and sync; the engine dies in between."""
    rng = make_slow(mounted, seed)
    done: dict[int, int] = {}
    synced: dict[int, int] = {}
    engine = mounted.engine

    async def append(task: int) -> None:
        handle, made = await mounted.fs.create(ROOT_CALLER, 1, b"%d" % task, 0o644, os.O_RDWR)
        mounted.fs.forget(made.inode, 1)
        for number in range(200):
            record = b"%07d\n" % number * 128
            if engine.state == "fenced":
                return
            await mounted.fs.write(handle, number * 1024, record)
            done[task] = number
            if rng.random() < 0.2:
                try:
                    await mounted.fs.fsync(handle)
                except FsError:
                    assert engine.state == "fenced"
                    return
                synced[task] = max(number, synced.get(task, 0))
            await trio.lowlevel.checkpoint()

    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            for task in range(4):
                nursery.start_soon(append, task)
            for _ in range(300):
                await trio.lowlevel.checkpoint()
            mounted.engine = engine.crash()
            nursery.cancel_scope.cancel()
    await mounted.mount()
    mounted.check()
    assert synced
    for task, last in synced.items():
        data = await mounted.read_file(f"/{task}")
        assert len(data) % 1024 == 0
        assert last * 1024 < len(data) <= (done[task] + 1) * 1024
        for number in range(len(data) // 1024):
            assert data[number * 1024 : number * 1024 + 8] == b"%07d\n" % number


@pytest.mark.parametrize("change", ["write", "truncate"])
async def test_a_read_that_was_overtaken_is_done_again(mounted: Mounted, change: str) -> None:
    """The first chunk is live in memory and changes in place; the second comes from the store, as it was before."""
    inode = await mounted.write_file("/f", b"a" * (2 * C))
    await mounted.remount()
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, 10, b"a")
    goes_on = trio.Event()
    got: list[bytes] = []

    async def pause(keys: Sequence[bytes]) -> None:
        if chunk_key(inode, 1) in keys:
            await goes_on.wait()

    async def read() -> None:
        got.append(await mounted.fs.read(handle, 0, 2 * C))

    mounted.engine.pause = pause
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        if change == "write":
            mounted.engine.pause = immediately
            await mounted.fs.write(handle, 1, b"b" * (2 * C - 2))
        else:
            await mounted.fs.setattr(ROOT_CALLER, inode, AttributeChanges(size_bytes=C // 2))
        goes_on.set()
    assert got == [b"a" + b"b" * (2 * C - 2) + b"a" if change == "write" else b"a" * (C // 2)]
    await mounted.fs.release(handle)


async def test_a_file_that_changes_all_the_time_can_be_read(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"a" * (2 * C))
    await mounted.remount()
    handle = await mounted.open("/f")
    reads = 0

    async def pause(keys: Sequence[bytes]) -> None:
        nonlocal reads
        if chunk_key(inode, 1) in keys and reads < 10:
            reads += 1
            if mounted.fs._ctx.locks.is_held(inode):
                return
            mounted.engine.pause = immediately
            await mounted.fs.write(handle, 0, b"%d" % reads)
            mounted.engine.pause = pause

    mounted.engine.pause = pause
    data = await mounted.fs.read(handle, 0, 2 * C)
    assert data == b"3" + b"a" * (2 * C - 1)
    assert reads == 4
    await mounted.fs.release(handle)
