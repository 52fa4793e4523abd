"""Contents: what is written, read, cut and left out, and how it lies in the engine. Handles: see test_io_handles."""

import os
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from tests.unit.fs.harness import C, Mounted, fails
from zerofs.errors import CorruptionError
from zerofs.fs.format.keys import chunk_key
from zerofs.fs.format.records import INLINE_LIMIT
from zerofs.units import NS_PER_S

BIG = 2**63 - 1
DAY = 24 * 3600 * NS_PER_S


def chunks_of(mounted: Mounted, inode: int) -> dict[int, int]:
    """Index → stored length."""
    return {
        index: len(data)
        for index in range(100)
        if (data := mounted.engine.rows().get(chunk_key(inode, index))) is not None
    }


@pytest.mark.parametrize("size", [0, 1, INLINE_LIMIT - 1, INLINE_LIMIT, INLINE_LIMIT + 1, C - 1, C, C + 1, 3 * C + 77])
async def test_what_was_written_is_read(mounted: Mounted, size: int) -> None:
    data = os.urandom(size)[:-1] + b"x" * min(size, 1)  # a last chunk of one zero byte would be a hole
    inode = await mounted.write_file("/f", data)
    for _ in range(2):
        assert await mounted.read_file("/f") == data
        found = await mounted.look("/f")
        assert found.size_bytes == size
        assert found.blocks == -(-size // 512)
        stored = chunks_of(mounted, inode)
        assert sum(stored.values()) == (size if size > INLINE_LIMIT else 0)
        await mounted.remount()


async def test_reading_beyond_the_end(mounted: Mounted) -> None:
    for size in (100, C + 100):
        await mounted.write_file("/f", b"x" * size)
        handle = await mounted.open("/f")
        assert await mounted.fs.read(handle, size - 1, 10) == b"x"
        for offset in (size, size + 1, 10 * C, BIG):
            assert await mounted.fs.read(handle, offset, 10) == b""
        assert await mounted.fs.read(handle, 0, 0) == b""
        with fails("EINVAL"):
            await mounted.fs.read(handle, -1, 10)
        await mounted.fs.release(handle)
        await mounted.unlink("/f")


@pytest.mark.parametrize("step", [1, 7, 100, 1024, 4096, 5000, C, C + 1])
async def test_appending_in_small_steps(mounted: Mounted, step: int) -> None:
    data = os.urandom(min(3 * C, 200 * step))
    inode = await mounted.write_file("/f")
    handle = await mounted.open("/f")
    for offset in range(0, len(data), step):
        await mounted.fs.write(handle, offset, data[offset : offset + step])
        if offset // step % 37 == 5:
            await mounted.fs.fsync(handle)
    await mounted.fs.release(handle)
    assert await mounted.read_file("/f") == data
    assert sum(chunks_of(mounted, inode).values()) in (0, len(data))


async def test_a_memoryview_is_as_good_as_bytes(mounted: Mounted) -> None:
    source = bytearray(os.urandom(2 * C + 10))
    data = bytes(source)
    await mounted.write_file("/f")
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, 0, memoryview(source)[:100])
    await mounted.fs.write(handle, 100, memoryview(source)[100:])
    source[:] = bytes(len(source))  # the buffer is the caller's again
    assert await mounted.read_file("/f") == data
    await mounted.fs.release(handle)


async def test_a_new_small_file_is_stored_without_a_copy(mounted: Mounted) -> None:
    data = os.urandom(4096)
    inode = await mounted.write_file("/f", data)
    assert await mounted.engine.get(chunk_key(inode, 0)) is data


async def test_a_chunk_gathers_in_place_and_is_final_when_full(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"a" * 4096)
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, 4096, b"b" * 4096)
    gathering = await mounted.engine.get(chunk_key(inode, 0))
    assert not isinstance(gathering, bytes)
    for offset in range(8192, C, 4096):
        assert await mounted.engine.get(chunk_key(inode, 0)) is gathering
        await mounted.fs.write(handle, offset, b"c" * 4096)
    assert isinstance(await mounted.engine.get(chunk_key(inode, 0)), bytes)
    await mounted.fs.write(handle, 5, b"overwrite")
    again = await mounted.engine.get(chunk_key(inode, 0))
    await mounted.fs.write(handle, 500, b"overwrite")
    assert await mounted.engine.get(chunk_key(inode, 0)) is again
    await mounted.fs.release(handle)


async def test_a_cut_keeps_what_was_there_at_its_time(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"a" * 4096)
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, 4096, b"b" * 100)
    await mounted.fs.fsync(handle)
    await mounted.fs.write(handle, 0, b"c" * 5000)
    await mounted.remount(crash=True)
    assert await mounted.read_file("/f") == b"a" * 4096 + b"b" * 100


async def test_relatime(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"abc")
    await mounted.read_file("/f")
    first = await mounted.look("/f")
    assert first.atime_ns > first.mtime_ns
    await mounted.read_file("/f")
    assert await mounted.look("/f") == first
    mounted.world.time_ns += DAY
    await mounted.read_file("/f")
    second = await mounted.look("/f")
    assert second.atime_ns >= first.atime_ns + DAY
    assert second.ctime_ns == first.ctime_ns
    await mounted.change("/f", mode=0o600)
    await mounted.read_file("/f")
    assert (await mounted.look("/f")).atime_ns > second.atime_ns


async def test_gaps_are_holes(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"start" * 300)
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, 5 * C + 10, b"end")
    assert chunks_of(mounted, inode) == {0: 1500, 5: 13}
    found = await mounted.look("/f")
    assert (found.size_bytes, found.blocks) == (5 * C + 13, 2 * C // 512)
    data = await mounted.fs.read(handle, 0, 6 * C)
    assert data == (b"start" * 300).ljust(5 * C + 10, b"\0") + b"end"
    await mounted.fs.write(handle, 3 * C - 1, b"xy")
    assert chunks_of(mounted, inode) == {0: 1500, 2: C, 3: 1, 5: 13}
    await mounted.fs.release(handle)


async def test_zeros_are_holes(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x" * (3 * C))
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, C, bytes(C))
    assert chunks_of(mounted, inode) == {0: C, 2: C}
    await mounted.fs.write(handle, C, bytes(C))
    await mounted.fs.write(handle, C + 5, bytes(10))
    assert chunks_of(mounted, inode) == {0: C, 2: C}
    await mounted.fs.write(handle, 2 * C + 10, bytes(C - 10))
    assert chunks_of(mounted, inode) == {0: C, 2: C}
    await mounted.fs.write(handle, 2 * C, bytes(10))
    assert chunks_of(mounted, inode) == {0: C}
    assert (await mounted.look("/f")).size_bytes == 3 * C
    assert await mounted.read_file("/f") == b"x" * C + bytes(2 * C)
    await mounted.fs.write(handle, 0, bytes(3 * C))
    assert (await mounted.look("/f")).blocks == 1
    await mounted.fs.release(handle)


async def test_a_file_of_zeros_from_the_start(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", bytes(2 * C))
    assert chunks_of(mounted, inode) == {}
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, 100, b"x")
    assert chunks_of(mounted, inode) == {0: 101}
    assert await mounted.read_file("/f") == bytes(100) + b"x" + bytes(2 * C - 101)
    await mounted.fs.release(handle)


async def test_a_small_file_moves_out_of_its_row_and_back(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x" * INLINE_LIMIT)
    assert chunks_of(mounted, inode) == {}
    await mounted.change("/f", size_bytes=INLINE_LIMIT + 1)
    assert chunks_of(mounted, inode) == {0: INLINE_LIMIT}
    assert await mounted.read_file("/f") == b"x" * INLINE_LIMIT + b"\0"
    await mounted.change("/f", size_bytes=INLINE_LIMIT)
    assert chunks_of(mounted, inode) == {}
    assert await mounted.read_file("/f") == b"x" * INLINE_LIMIT
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, 10 * C, b"y")
    assert chunks_of(mounted, inode) == {0: INLINE_LIMIT, 10: 1}
    await mounted.change("/f", size_bytes=3)
    assert await mounted.read_file("/f") == b"xxx"
    await mounted.fs.write(handle, 1000, b"z" * 100)
    assert await mounted.read_file("/f") == b"xxx" + bytes(997) + b"z" * 100
    assert chunks_of(mounted, inode) == {0: 1100}
    await mounted.change("/f", size_bytes=0)
    await mounted.fs.write(handle, 2 * C, b"w")
    assert chunks_of(mounted, inode) == {2: 1}
    await mounted.fs.release(handle)


@pytest.mark.parametrize("remount", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
async def test_truncate(mounted: Mounted, sparse: bool, remount: bool) -> None:
    inode = await mounted.write_file("/f", b"x")
    content = bytearray(os.urandom(8 * C + 500))
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, 0, bytes(content))
    if sparse:
        for index in (1, 2, 6):
            await mounted.fs.write(handle, index * C, bytes(C))
            content[index * C : (index + 1) * C] = bytes(C)
    await mounted.fs.release(handle)
    sizes = [
        8 * C,
        8 * C + 1,
        7 * C - 3,
        3 * C,
        3 * C + 5,
        2 * C - 1,
        C + 1,
        C,
        C - 1,
        6 * C,
        INLINE_LIMIT + 1,
        10,
        3 * C,
        0,
    ]
    for size in sizes:
        if remount:
            await mounted.remount()
        content = (content + bytes(max(0, size - len(content))))[:size]
        assert (await mounted.change("/f", size_bytes=size)).size_bytes == size
        assert await mounted.read_file("/f") == content
        mounted.check()
    assert chunks_of(mounted, inode) == {}


async def test_what_was_cut_off_does_not_come_back(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"secret" * C)
    await mounted.change("/f", size_bytes=C + 10)
    await mounted.change("/f", size_bytes=6 * C)
    assert await mounted.read_file("/f") == ((b"secret" * C)[: C + 10]).ljust(6 * C, b"\0")
    assert chunks_of(mounted, inode) == {0: C, 1: 10}


async def test_cutting_within_zeros_leaves_no_zero_chunk(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x" * C + bytes(100) + b"y" * 100)
    await mounted.change("/f", size_bytes=C + 50)
    assert chunks_of(mounted, inode) == {0: C}
    assert (await mounted.look("/f")).blocks == C // 512


async def test_huge_sparse_files(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f")
    found = await mounted.change("/f", size_bytes=BIG)
    assert (found.size_bytes, found.blocks) == (BIG, 1)
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, BIG - 3, b"end")
    assert await mounted.fs.read(handle, BIG - 5, 100) == b"\0\0end"
    assert (await mounted.look("/f")).blocks == C // 512
    with fails("EFBIG"):
        await mounted.fs.write(handle, BIG - 2, b"end")
    with fails("EFBIG"):
        await mounted.fs.write(handle, BIG, b"x")
    with fails("EFBIG"):
        await mounted.change("/f", size_bytes=BIG + 1)
    await mounted.fs.flush(handle)
    await mounted.change("/f", size_bytes=BIG - 1)
    assert await mounted.fs.read(handle, BIG - 5, 100) == b"\0\0en"
    await mounted.change("/f", size_bytes=2**40)
    assert len([key for key in mounted.engine.rows() if key.startswith(b"chunk")]) == 0
    await mounted.fs.release(handle)
    assert inode


async def test_a_write_from_a_kernels_cache_leaves_the_times_alone(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"old")
    before = await mounted.look("/f")
    handle = await mounted.open("/f", os.O_WRONLY)
    await mounted.fs.write(handle, 0, b"cached", keep_times=True)
    kept = await mounted.look("/f")
    assert (kept.mtime_ns, kept.ctime_ns, kept.size_bytes) == (before.mtime_ns, before.ctime_ns, 6)
    await mounted.fs.write(handle, 0, b"direct")
    assert (await mounted.look("/f")).mtime_ns > before.mtime_ns
    await mounted.fs.release(handle)


async def test_a_write_to_a_part_of_a_stored_chunk_reads_nothing(mounted: Mounted) -> None:
    data = os.urandom(4 * C)
    await mounted.write_file("/f", data)
    await mounted.engine.sync()
    handle = await mounted.open("/f", os.O_RDWR)
    mounted.engine.calls.clear()
    await mounted.fs.write(handle, C + 5, b"part")
    await mounted.fs.write(handle, 3 * C - 2, b"part")
    assert set(mounted.engine.calls) == {"bases"}
    expected = data[: C + 5] + b"part" + data[C + 9 : 3 * C - 2] + b"part" + data[3 * C + 2 :]
    assert await mounted.fs.read(handle, 0, 5 * C) == expected
    await mounted.fs.fsync(handle)
    assert await mounted.fs.read(handle, 0, 5 * C) == expected
    await mounted.fs.release(handle)


async def test_a_chunk_that_could_become_a_hole_is_read(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x" + bytes(2 * C - 1) + b"x" * C)
    await mounted.engine.sync()
    handle = await mounted.open("/f", os.O_RDWR)
    await mounted.fs.write(handle, 0, bytes(10))
    assert chunk_key(inode, 0) not in mounted.engine.rows()
    await mounted.fs.release(handle)


async def test_a_patch_that_leaves_nothing_of_the_chunk_is_a_chunk(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", os.urandom(2 * C))
    await mounted.engine.sync()
    mounted.engine.base_error = lambda key: CorruptionError("read for nothing")
    handle = await mounted.open("/f", os.O_WRONLY)
    new = os.urandom(C)
    for offset in range(0, C, 8192):
        await mounted.fs.write(handle, offset, new[offset : offset + 8192])
    await mounted.fs.fsync(handle)
    assert mounted.engine.durable_rows()[chunk_key(inode, 0)] == new
    await mounted.fs.release(handle)


async def test_writes_to_one_file_wait_for_the_store_together(mounted: Mounted) -> None:
    await mounted.write_file("/f", os.urandom(3 * C))
    await mounted.engine.sync()
    handle = await mounted.open("/f", os.O_RDWR)
    answer = trio.Event()

    async def pause(keys: Sequence[bytes]) -> None:
        await answer.wait()

    mounted.engine.pause = pause
    mounted.engine.calls.clear()
    async with trio.open_nursery() as nursery:
        for index in range(3):
            nursery.start_soon(mounted.fs.write, handle, index * C + 5, b"%d" % index)
        await trio.testing.wait_all_tasks_blocked()
        assert mounted.engine.calls == ["bases"] * 3
        answer.set()
    for index in range(3):
        assert await mounted.fs.read(handle, index * C + 5, 1) == b"%d" % index
    await mounted.fs.release(handle)
