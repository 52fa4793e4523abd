"""The quota, and what df shows."""

import os

import pytest

from tests.unit.fs.harness import C, Mounted, fails, new_mount
from zerofs.units import GIB, KIB, MIB


async def test_the_quota_holds_and_deleting_makes_room() -> None:
    mount = await new_mount(max_size_bytes=MIB)
    await mount.write_file("/a", b"x" * (MIB - C))
    handle = await mount.open("/a")
    await mount.fs.write(handle, MIB - C, b"x" * C)
    for offset, size in ((MIB, 1), (MIB + 5 * C, 10), (MIB - 1, 2)):
        with fails("ENOSPC"):
            await mount.fs.write(handle, offset, b"x" * size)
    await mount.fs.write(handle, 0, b"y" * MIB)  # over what is there
    with fails("ENOSPC"):
        await mount.write_file("/b", b"x")
    with fails("ENOSPC"):
        await mount.symlink("/l", b"x")
    await mount.change("/a", size_bytes=MIB - C)
    await mount.write_file("/c", b"x" * 100)
    await mount.fs.release(handle)
    await mount.unlink("/a")
    await mount.unlink("/c")
    await mount.write_file("/d", b"x" * MIB)
    mount.check()


async def test_holes_are_free_within_the_quota() -> None:
    mount = await new_mount(max_size_bytes=MIB)
    await mount.write_file("/a")
    await mount.change("/a", size_bytes=GIB)
    handle = await mount.open("/a")
    await mount.fs.write(handle, GIB - C, b"x" * C)
    await mount.fs.release(handle)
    assert (await mount.fs.statfs()).blocks_free == (MIB - C) // 4096
    mount.check()


async def test_growth_in_the_row_and_out_of_it_counts() -> None:
    mount = await new_mount(max_size_bytes=1900)
    await mount.write_file("/a", b"x" * 900)
    await mount.write_file("/b", b"x" * 900)
    with fails("ENOSPC"):
        await mount.change("/a", size_bytes=1024)
    with fails("ENOSPC"):
        await mount.change("/a", size_bytes=50000)
    await mount.change("/a", size_bytes=1000)
    await mount.unlink("/b")
    await mount.change("/a", size_bytes=1900)
    mount.check()


async def test_a_truncated_chunk_counts_whole_when_the_file_grows_again() -> None:
    mount = await new_mount(max_size_bytes=C + 100)
    await mount.write_file("/a", b"x" * 5000)
    with fails("ENOSPC"):
        await mount.write_file("/b", b"x" * (C - 4000))
    await mount.unlink("/b")
    await mount.change("/a", size_bytes=10 * C)
    assert mount.fs._ctx.usage.counters.used_bytes == C
    mount.check()


async def test_statfs_with_a_quota() -> None:
    mount = await new_mount(max_size_bytes=MIB)
    empty = await mount.fs.statfs()
    assert (empty.block_size, empty.blocks_total, empty.blocks_free, empty.name_max) == (4096, 256, 256, 255)
    await mount.write_file("/a", b"x" * 5000)
    found = await mount.fs.statfs()
    assert found.blocks_free == 254
    assert empty.files_free - found.files_free == 1
    assert found.files_total == empty.files_total


async def test_a_quota_below_what_is_used(mounted: Mounted) -> None:
    await mounted.write_file("/a", b"x" * MIB)
    await mounted.remount(max_size_bytes=100 * KIB)
    found = await mounted.fs.statfs()
    assert (found.blocks_total, found.blocks_free) == (25, 0)
    with fails("ENOSPC"):
        await mounted.write_file("/b", b"x")
    handle = await mounted.open("/a")
    await mounted.fs.write(handle, 0, b"y" * C)
    await mounted.fs.write(handle, 0, bytes(C))
    await mounted.fs.release(handle)
    await mounted.change("/a", size_bytes=MIB - 1)
    await mounted.change("/a", size_bytes=0)
    await mounted.unlink("/a")
    await mounted.remount(max_size_bytes=None)


async def test_statfs_without_a_quota_is_believable(mounted: Mounted) -> None:
    found = await mounted.fs.statfs()
    assert found.blocks_total * found.block_size == 2**50
    mounted.fs._ctx.usage.counters.used_bytes = 2**52
    grown = await mounted.fs.statfs()
    assert grown.blocks_free == grown.blocks_total // 2
    mounted.fs._ctx.usage.counters.used_bytes = 0


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, C, 3 * C + 5])
async def test_used_bytes_follow_a_file(mounted: Mounted, size: int) -> None:
    await mounted.write_file("/a", os.urandom(size))
    assert mounted.fs._ctx.usage.counters.used_bytes == size
    await mounted.unlink("/a")
    assert mounted.fs._ctx.usage.counters.used_bytes == 0
