"""copy_file_range: the bytes of the source, counted as any others, and odd requests refused."""

import os
import random

import pytest

from tests.unit.fs.harness import ALICE, C, Mounted, fails

BIG = 2**63 - 1


async def copy_all(mounted: Mounted, source: int, start: int, target: int, place: int, size: int) -> int:
    """As a program does it: until nothing comes any more."""
    done = 0
    while done < size:
        got = await mounted.fs.copy_range(source, start + done, target, place + done, size - done)
        if not got:
            break
        done += got
    return done


async def opened(mounted: Mounted, source: bytes, target: bytes) -> tuple[int, int]:
    await mounted.write_file("/s", source)
    await mounted.write_file("/t", target)
    return await mounted.open("/s", os.O_RDONLY), await mounted.open("/t", os.O_RDWR)


@pytest.mark.parametrize("seed", range(30))
async def test_random_ranges_give_the_bytes_of_the_source(mounted: Mounted, seed: int) -> None:
    rng = random.Random(seed)
    sizes = [0, 5, 900, 5000, C, 3 * C, 3 * C + 77, 300 * C]
    source, model = rng.randbytes(rng.choice(sizes)), bytearray(rng.randbytes(rng.choice(sizes)))
    if rng.random() < 0.5:
        source = source[: len(source) // 3] + bytes(len(source) // 3) + source[len(source) // 3 :]
    reader, writer = await opened(mounted, source, bytes(model))
    for _ in range(6):
        start, place = rng.choice([0, 7, C, 2 * C, C + 7]), rng.choice([0, 7, C, 5 * C, C + 7])
        size = rng.choice([1, 100, C, 2 * C, 3 * C + 50, 400 * C])
        wanted = source[start : start + size]
        assert await copy_all(mounted, reader, start, writer, place, size) == len(wanted)
        if wanted:
            model.extend(bytes(max(0, place - len(model))))
            model[place : place + len(wanted)] = wanted
        assert await mounted.read_file("/t") == bytes(model)
        mounted.check()
    assert await mounted.read_file("/s") == source
    await mounted.fs.release(reader)
    await mounted.fs.release(writer)
    await mounted.remount()
    assert await mounted.read_file("/t") == bytes(model)


async def test_within_one_file_and_not_onto_itself(mounted: Mounted) -> None:
    data = os.urandom(4 * C)
    await mounted.write_file("/f", data)
    handle = await mounted.open("/f", os.O_RDWR)
    for start, place in ((0, 0), (0, C), (C, 0), (0, 2 * C - 1)):
        with fails("EINVAL"):
            await mounted.fs.copy_range(handle, start, handle, place, 2 * C)
    assert await mounted.fs.copy_range(handle, 0, handle, 2 * C, 2 * C) == 2 * C
    assert await mounted.read_file("/f") == data[: 2 * C] * 2
    await mounted.fs.release(handle)


async def test_a_file_appended_to_itself_may_ask_for_more_than_it_has(mounted: Mounted) -> None:
    """Ranges overlap only as far as there is something to copy."""
    data = os.urandom(4 * C)
    await mounted.write_file("/f", data)
    handle = await mounted.open("/f", os.O_RDWR)
    assert await mounted.fs.copy_range(handle, 0, handle, 4 * C, 8 * C) == 4 * C
    assert await mounted.read_file("/f") == data * 2
    await mounted.fs.release(handle)


async def test_what_is_changed_afterwards_is_changed_in_one_of_them(mounted: Mounted) -> None:
    data = os.urandom(3 * C)
    reader, writer = await opened(mounted, data, b"")
    await copy_all(mounted, reader, 0, writer, 0, len(data))
    await mounted.fs.write(writer, C + 5, b"other")
    assert await mounted.read_file("/s") == data
    assert await mounted.read_file("/t") == data[: C + 5] + b"other" + data[C + 10 :]
    await mounted.unlink("/s")
    await mounted.fs.release(reader)
    assert (await mounted.read_file("/t"))[2 * C :] == data[2 * C :]
    await mounted.fs.release(writer)


async def test_what_cannot_be_copied_is_refused_and_changes_nothing(mounted: Mounted) -> None:
    reader, writer = await opened(mounted, b"s" * 2 * C, b"t" * 100)
    appending = await mounted.open("/t", os.O_WRONLY | os.O_APPEND)
    fs = mounted.fs
    for source, target in ((writer, reader), (appending, writer), (reader, appending)):
        with fails("EBADF"):
            await fs.copy_range(source, 0, target, 0, 10)
    for start, place, size in ((-1, 0, 1), (0, -1, 1), (0, 0, -1)):
        with fails("EINVAL"):
            await fs.copy_range(reader, start, writer, place, size)
    with fails("EFBIG"):
        await fs.copy_range(reader, 0, writer, BIG, 1)
    with fails("EBADF"):
        await fs.copy_range(reader, 0, 999, 0, 1)
    for start, size in ((0, 0), (2 * C, 10), (BIG, BIG)):
        assert await fs.copy_range(reader, start, writer, 0, size) == 0
    assert await mounted.read_file("/t") == b"t" * 100
    for handle in (reader, writer, appending):
        await fs.release(handle)


async def test_the_quota_counts_what_is_shared_as_if_it_were_copied(mounted: Mounted) -> None:
    await mounted.remount(max_size_bytes=5 * C)
    reader, writer = await opened(mounted, b"s" * 3 * C, b"")
    with fails("ENOSPC"):
        await mounted.fs.copy_range(reader, 0, writer, 0, 3 * C)
    assert (await mounted.look("/t")).size_bytes == 0
    assert await mounted.fs.copy_range(reader, 0, writer, 0, C) == C
    await mounted.fs.release(reader)
    await mounted.fs.release(writer)


async def test_it_changes_times_and_takes_privileges_as_a_write_does(mounted: Mounted) -> None:
    reader, writer = await opened(mounted, b"s" * C, b"t")
    await mounted.fs.release(writer)
    before = await mounted.change("/t", uid=ALICE.uid, mode=0o4755)
    writer = await mounted.open("/t", os.O_RDWR, ALICE)
    await mounted.fs.copy_range(reader, 0, writer, 0, C)
    after = await mounted.look("/t")
    assert after.mtime_ns > before.mtime_ns
    assert after.ctime_ns == after.mtime_ns
    assert after.mode & 0o7777 == 0o755
    await mounted.fs.release(reader)
    await mounted.fs.release(writer)
