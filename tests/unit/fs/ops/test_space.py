"""fallocate: holes and zeros where they are asked for, room where it is promised, odd requests refused."""

import os
import random

import pytest

from tests.unit.fs.harness import ALICE, C, Mounted, fails, new_mount
from zerofs.fs.ops.space import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE

PUNCH = PUNCH_HOLE | KEEP_SIZE
BIG = 2**63 - 1


async def opened(mounted: Mounted, data: bytes) -> int:
    await mounted.write_file("/f", data)
    return await mounted.open("/f", os.O_RDWR)


def zeroed(data: bytes, start: int, stop: int) -> bytes:
    stop = min(stop, len(data))
    return data[:start] + bytes(max(0, stop - start)) + data[max(start, stop) :]


@pytest.mark.parametrize("mode", [PUNCH, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE])
@pytest.mark.parametrize("seed", range(25))
async def test_random_ranges_read_as_zeros_and_nothing_else_changes(mounted: Mounted, seed: int, mode: int) -> None:
    rng = random.Random(seed)
    model = bytearray(rng.randbytes(rng.choice([0, 5, 1024, 1025, 5000, C, 3 * C, 3 * C + 77, 40 * C])))
    handle = await opened(mounted, bytes(model))
    for _ in range(8):
        start, size = rng.choice([0, 7, C, 2 * C, C + 7, 5 * C]), rng.choice([1, 100, C, 2 * C, 3 * C + 50, 30 * C])
        if rng.random() < 0.3:
            piece = rng.randbytes(rng.choice([1, C, 2 * C]))
            await mounted.fs.write(handle, start, piece)
            model.extend(bytes(max(0, start - len(model))))
            model[start : start + len(piece)] = piece
        await mounted.fs.allocate(handle, mode, start, size)
        if not mode & KEEP_SIZE:
            model.extend(bytes(max(0, start + size - len(model))))
        model[:] = zeroed(bytes(model), start, start + size)
        assert await mounted.read_file("/f") == bytes(model)
        mounted.check()
    await mounted.fs.release(handle)
    await mounted.remount()
    assert await mounted.read_file("/f") == bytes(model)


async def test_a_hole_gives_its_space_back(mounted: Mounted) -> None:
    handle = await opened(mounted, os.urandom(100 * C))
    before = await mounted.fs.statfs()
    await mounted.fs.allocate(handle, PUNCH, 10 * C - 5, 50 * C + 10)
    attributes = await mounted.look("/f")
    assert attributes.size_bytes == 100 * C
    assert attributes.blocks == 50 * C // 512
    assert (await mounted.fs.statfs()).blocks_free - before.blocks_free == 50 * C // 4096
    assert await mounted.fs.seek_hole(handle, 0) == 10 * C
    assert await mounted.fs.seek_data(handle, 10 * C) == 60 * C
    await mounted.fs.allocate(handle, PUNCH, 0, 100 * C)
    assert (await mounted.look("/f")).blocks == 1
    with fails("ENXIO"):
        await mounted.fs.seek_data(handle, 0)
    mounted.check()
    await mounted.fs.release(handle)


async def test_a_large_hole_takes_few_rows(mounted: Mounted) -> None:
    handle = await opened(mounted, b"")
    for index in range(40):
        await mounted.fs.write(handle, index * C, b"x")
    commits = []
    original = mounted.engine.commit
    mounted.engine.commit = lambda rows, ranges=(): (commits.append((rows, ranges)), original(rows, ranges))
    await mounted.fs.allocate(handle, PUNCH, 0, 40 * C)
    ((rows, ranges),) = commits
    assert (len(rows), len(ranges)) == (2, 1)
    await mounted.fs.release(handle)


@pytest.mark.parametrize("size", [0, 10, 1024, 1025, 3 * C])
async def test_allocating_lets_a_file_grow_with_zeros(mounted: Mounted, size: int) -> None:
    data = os.urandom(size)
    handle = await opened(mounted, data)
    await mounted.fs.allocate(handle, KEEP_SIZE, 0, 9 * C)
    assert await mounted.read_file("/f") == data
    await mounted.fs.allocate(handle, 0, 2 * C, 3 * C)
    assert await mounted.read_file("/f") == data + bytes(5 * C - size)
    await mounted.fs.allocate(handle, 0, 0, 10)
    assert (await mounted.look("/f")).size_bytes == 5 * C
    mounted.check()
    await mounted.fs.release(handle)


async def test_beyond_the_end_there_is_nothing_to_punch(mounted: Mounted) -> None:
    data = os.urandom(2 * C + 9)
    handle = await opened(mounted, data)
    await mounted.fs.allocate(handle, PUNCH, 2 * C + 9, C)
    await mounted.fs.allocate(handle, PUNCH, BIG - 10, 10)
    assert await mounted.read_file("/f") == data
    await mounted.fs.allocate(handle, PUNCH, 2 * C + 4, C)
    assert await mounted.read_file("/f") == data[: 2 * C + 4] + bytes(5)
    await mounted.fs.release(handle)


async def test_what_cannot_be_is_refused_and_changes_nothing(mounted: Mounted) -> None:
    data = os.urandom(2 * C)
    handle = await opened(mounted, data)
    reader = await mounted.open("/f", os.O_RDONLY)
    before = await mounted.look("/f")
    for mode in (0, KEEP_SIZE, PUNCH, ZERO_RANGE):
        for offset, size in ((-1, 5), (0, 0), (0, -1), (5, -5)):
            with fails("EINVAL"):
                await mounted.fs.allocate(handle, mode, offset, size)
        with fails("EFBIG"):
            await mounted.fs.allocate(handle, mode, BIG, 1)
        with fails("EBADF"):
            await mounted.fs.allocate(reader, mode, 0, 1)
        with fails("EBADF"):
            await mounted.fs.allocate(99, mode, 0, 1)
    for mode in (PUNCH_HOLE, PUNCH_HOLE | ZERO_RANGE, PUNCH | ZERO_RANGE, 0x08, 0x20, 0x40, 0x80, 1 << 40):
        with fails("EOPNOTSUPP"):
            await mounted.fs.allocate(handle, mode, 0, C)
    assert await mounted.look("/f") == before
    assert await mounted.read_file("/f") == data
    await mounted.fs.release(handle)
    await mounted.fs.release(reader)


@pytest.mark.parametrize("mode", [0, KEEP_SIZE])
async def test_room_is_promised_only_where_the_quota_has_it(mode: int) -> None:
    mounted = await new_mount(max_size_bytes=10 * C)
    handle = await opened(mounted, os.urandom(2 * C))
    await mounted.fs.allocate(handle, mode, 0, 10 * C)
    with fails("ENOSPC"):
        await mounted.fs.allocate(handle, mode, 0, 10 * C + 1)
    with fails("ENOSPC"):
        await mounted.fs.allocate(handle, mode, 5 * C, 9 * C)
    await mounted.fs.allocate(handle, mode, 2 * C, 8 * C)
    await mounted.fs.allocate(handle, PUNCH, 0, 2 * C)
    await mounted.fs.allocate(handle, mode, 20 * C, 10 * C)
    mounted.check()
    await mounted.fs.release(handle)


@pytest.mark.parametrize("mode", [0, KEEP_SIZE, PUNCH, ZERO_RANGE])
async def test_it_changes_times_and_takes_privileges_as_a_write_does(mounted: Mounted, mode: int) -> None:
    await mounted.write_file("/f", os.urandom(C), 0o666)
    await mounted.change("/f", mode=0o6777)
    before = await mounted.look("/f")
    handle = await mounted.open("/f", os.O_RDWR, ALICE)
    await mounted.fs.allocate(handle, mode, 0, 5)
    after = await mounted.look("/f")
    assert after.mtime_ns == after.ctime_ns > before.mtime_ns
    assert after.mode & 0o7777 == 0o777
    await mounted.fs.release(handle)


async def test_only_regular_files(mounted: Mounted) -> None:
    await mounted.mknod("/fifo", 0o010666)
    handle = await mounted.open("/fifo", os.O_RDWR)
    with fails("ENODEV"):
        await mounted.fs.allocate(handle, 0, 0, 1)
    await mounted.fs.release(handle)


async def test_a_read_only_mount_refuses_it(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"data")
    await mounted.remount(read_only=True)
    with fails("EROFS"):
        handle = await mounted.open("/f", os.O_RDWR)
        await mounted.fs.allocate(handle, 0, 0, 1)
