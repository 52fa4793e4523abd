"""What has no name but somebody refers to it, through crashes, closes and races."""

import os

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.model.fs_checker import assert_consistent
from tests.unit.fs.harness import ROOT_CALLER, C, Mounted, fails
from zerofs.errors import UnavailableError
from zerofs.fs.format.keys import chunk_key, orphan_key
from zerofs.testing.engine import immediately


async def orphan(mounted: Mounted, size: int = 100 * C) -> tuple[int, int]:
    """(inode, handle) of an open file without name, durable."""
    inode = await mounted.write_file("/f", b"x" * size)
    await mounted.fs.setxattr(ROOT_CALLER, inode, b"user.a", b"1")
    handle = await mounted.open("/f")
    await mounted.unlink("/f")
    await mounted.engine.sync()
    return inode, handle


@pytest.mark.parametrize("size", [10, 3 * C, 100 * C])
async def test_a_crash_leaves_orphans_to_the_next_mount(mounted: Mounted, size: int) -> None:
    inode, _ = await orphan(mounted, size)
    await mounted.remount(crash=True)
    assert_consistent(mounted.engine.rows())
    with fails("ESTALE"):
        await mounted.fs.getattr(inode)
    assert not any(key.startswith(b"chunk") for key in mounted.engine.rows())


async def test_a_read_only_mount_leaves_them_alone(mounted: Mounted) -> None:
    inode, _ = await orphan(mounted)
    await mounted.remount(crash=True, read_only=True)
    assert orphan_key(inode) in mounted.engine.rows()
    await mounted.remount(read_only=False)
    assert_consistent(mounted.engine.rows())


async def test_close_reclaims_what_is_still_open(mounted: Mounted) -> None:
    await orphan(mounted)
    await mounted.fs.close()
    assert_consistent(mounted.engine.durable_rows())
    await mounted.mount()


async def test_many_orphans(mounted: Mounted) -> None:
    for index in range(1500):
        await mounted.fs.mknod(ROOT_CALLER, 1, b"%d" % index, 0o644, 0)
        await mounted.fs.unlink(ROOT_CALLER, 1, b"%d" % index)
    await mounted.engine.sync()
    await mounted.remount(crash=True)
    assert_consistent(mounted.engine.rows())


async def test_an_orphan_mark_without_inode_is_cleared(mounted: Mounted) -> None:
    await mounted.fs.close()
    mounted.engine.replace(orphan_key(77), b"\1")
    await mounted.mount()
    assert orphan_key(77) not in mounted.engine.rows()


async def test_forget_on_a_fenced_engine_raises_nothing(mounted: Mounted) -> None:
    made = await mounted.fs.mknod(ROOT_CALLER, 1, b"f", 0o644, 0)
    await mounted.unlink("/f")
    mounted.checked = False
    mounted.engine.fence()
    mounted.fs.forget(made.inode, 1)


async def test_an_inode_goes_only_when_the_last_operation_on_it_has_ended(
    mounted: Mounted, autojump_clock: MockClock
) -> None:
    inode, handle = await orphan(mounted, 2 * C)
    goes_on = trio.Event()

    async def pause(keys: object) -> None:
        await goes_on.wait()

    async def write() -> None:
        await mounted.fs.write(handle, 5, b"y")

    mounted.engine.pause = pause
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        await mounted.fs.release(handle)  # as a kernel never does
        assert (await mounted.fs.getattr(inode)).nlink == 0
        mounted.engine.pause = immediately
        goes_on.set()
    assert (await mounted.fs.getattr(inode)).nlink == 0
    async with trio.open_nursery() as nursery:
        await nursery.start(mounted.fs.run)
        await trio.sleep(6)
        nursery.cancel_scope.cancel()
    with fails("ESTALE"):
        await mounted.fs.getattr(inode)


async def test_a_failed_read_at_open_fails_the_open(mounted: Mounted) -> None:
    await orphan(mounted)
    mounted.engine = mounted.engine.crash()
    mounted.engine.read_error = lambda key: UnavailableError("down") if key == orphan_key(2) else None
    with pytest.raises(UnavailableError):
        await mounted.mount()
    mounted.engine.read_error = lambda key: None
    await mounted.mount()


async def test_writing_to_an_orphan_is_counted_and_given_back(mounted: Mounted) -> None:
    handle, made = await mounted.fs.create(ROOT_CALLER, 1, b"f", 0o644, os.O_RDWR)
    await mounted.unlink("/f")
    await mounted.fs.write(handle, 0, b"x" * 3 * C)
    used = mounted.fs._ctx.usage.counters
    assert (used.used_bytes, used.used_inodes) == (3 * C, 2)
    assert chunk_key(made.inode, 2) in mounted.engine.rows()
    mounted.fs.forget(made.inode, 1)
    await mounted.fs.release(handle)
    assert (used.used_bytes, used.used_inodes) == (0, 1)
