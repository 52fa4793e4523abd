"""open, release, seek, and what reading and writing do to times and modes. Contents: see test_io."""

import os
import stat

import trio.testing

from tests.unit.fs.harness import ALICE, CAROL, ROOT_CALLER, C, Mounted, fails
from zerofs.fs.access import Caller


async def test_an_empty_write_changes_nothing(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"abc")
    handle = await mounted.open("/f")
    before = await mounted.look("/f")
    assert await mounted.fs.write(handle, 100, b"") == 0
    assert await mounted.look("/f") == before
    with fails("EINVAL"):
        await mounted.fs.write(handle, -1, b"x")
    await mounted.fs.release(handle)


async def test_opening(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"abc", 0o640)
    await mounted.change("/f", uid=ALICE.uid)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        with fails("EACCES"):
            await mounted.fs.open(CAROL, inode, flags)
        await mounted.fs.release(await mounted.fs.open(Caller(uid=9, gid=9, checked=True), inode, flags & ~os.O_TRUNC))
    directory = await mounted.mkdir("/d")
    link = await mounted.symlink("/l", b"x")
    for number, error in ((directory, "EISDIR"), (link, "ELOOP"), (999, "ESTALE")):
        with fails(error):
            await mounted.fs.open(ROOT_CALLER, number, os.O_RDONLY)
    assert await mounted.read_file("/f") == b"abc"
    handle = await mounted.fs.open(ALICE, inode, os.O_WRONLY | os.O_TRUNC)
    assert (await mounted.look("/f")).size_bytes == 0
    assert await mounted.fs.read(handle, 0, 10) == b""  # a writeback cache fills pages through any handle
    await mounted.fs.release(handle)


async def test_truncating_open_takes_privileges_and_sets_times(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"x" * (2 * C))
    await mounted.change("/f", mode=0o6777)
    before = mounted.world.time_ns
    handle = await mounted.open("/f", os.O_RDWR | os.O_TRUNC, ALICE)
    found = await mounted.look("/f")
    assert (stat.S_IMODE(found.mode), found.size_bytes, found.blocks) == (0o777, 0, 0)
    assert found.mtime_ns == found.ctime_ns > before
    await mounted.fs.release(handle)


async def test_bad_handles(mounted: Mounted) -> None:
    await mounted.write_file("/f")
    handle = await mounted.open("/f", os.O_RDONLY)
    with fails("EBADF"):
        await mounted.fs.write(handle, 0, b"x")
    await mounted.fs.release(handle)
    directory = await mounted.fs.opendir(ROOT_CALLER, 1)
    for work in (
        mounted.fs.read(handle, 0, 1),
        mounted.fs.write(handle, 0, b"x"),
        mounted.fs.flush(handle),
        mounted.fs.fsync(handle),
        mounted.fs.release(handle),
        mounted.fs.readdir(handle, 0, 1),
        mounted.fs.seek_data(handle, 0),
    ):
        with fails("EBADF"):
            await work
    for work in (mounted.fs.read(directory, 0, 1), mounted.fs.write(directory, 0, b"x")):
        with fails("EISDIR"):
            await work
    await mounted.fs.releasedir(directory)


async def test_special_files_have_no_data(mounted: Mounted) -> None:
    inode = await mounted.mknod("/p", stat.S_IFIFO | 0o600)
    handle = await mounted.fs.open(ROOT_CALLER, inode, os.O_RDWR)
    for work in (mounted.fs.read(handle, 0, 1), mounted.fs.write(handle, 0, b"x"), mounted.fs.seek_hole(handle, 0)):
        with fails("EINVAL"):
            await work
    await mounted.fs.release(handle)


async def test_a_write_sets_times_and_takes_privileges_except_roots(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"x")
    for caller, after in ((ROOT_CALLER, 0o6777), (ALICE, 0o777)):
        await mounted.change("/f", mode=0o6777)
        handle = await mounted.open("/f", os.O_RDWR, caller)
        before = mounted.world.time_ns
        await mounted.fs.write(handle, 0, b"y")
        found = await mounted.look("/f")
        assert stat.S_IMODE(found.mode) == after
        assert found.mtime_ns == found.ctime_ns > before > found.atime_ns
        await mounted.fs.release(handle)


async def test_noatime(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"abc")
    await mounted.symlink("/l", b"f")
    await mounted.remount(noatime=True)
    before = [await mounted.look(path) for path in ("/", "/f", "/l")]
    await mounted.read_file("/f")
    await mounted.fs.readlink((await mounted.look("/l")).inode)
    await mounted.list("/")
    assert [await mounted.look(path) for path in ("/", "/f", "/l")] == before
    assert mounted.engine.dirty_bytes == 0


async def test_a_handle_that_leaves_access_times_alone(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"abc")
    before = await mounted.look("/f")
    handle = await mounted.open("/f", os.O_RDONLY | os.O_NOATIME)
    assert await mounted.fs.read(handle, 0, 3) == b"abc"
    await mounted.fs.release(handle)
    assert await mounted.look("/f") == before


async def test_memory_answers_without_a_checkpoint(mounted: Mounted) -> None:
    """What is asked all the time must not give up the thread."""
    with trio.testing.assert_no_checkpoints():
        handle, made = await mounted.fs.create(ROOT_CALLER, 1, b"f", 0o644, os.O_RDWR)
        await mounted.fs.write(handle, 0, b"x" * 4096)
        await mounted.fs.write(handle, 4096, b"x" * 4096)
        await mounted.fs.read(handle, 0, 8192)
        await mounted.fs.getattr(made.inode)
        await mounted.fs.lookup(ROOT_CALLER, 1, b"f")
        await mounted.fs.flush(handle)
        await mounted.fs.release(handle)
        await mounted.fs.unlink(ROOT_CALLER, 1, b"f")


async def test_seeking_data_and_holes(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"x" * (2 * C))
    handle = await mounted.open("/f")
    await mounted.fs.write(handle, 5 * C + 100, b"y")
    await mounted.change("/f", size_bytes=9 * C)
    size = 9 * C
    for offset, data, hole in (
        (0, 0, 2 * C),
        (C + 7, C + 7, 2 * C),
        (2 * C, 5 * C, 2 * C),
        (3 * C + 1, 5 * C, 3 * C + 1),
        (5 * C + 3, 5 * C + 3, 6 * C),
        (6 * C, None, 6 * C),
        (size - 1, None, size - 1),
    ):
        if data is None:
            with fails("ENXIO"):
                await mounted.fs.seek_data(handle, offset)
        else:
            assert await mounted.fs.seek_data(handle, offset) == data
        assert await mounted.fs.seek_hole(handle, offset) == hole
    for offset in (size, size + 1, -1):
        for seek in (mounted.fs.seek_data, mounted.fs.seek_hole):
            with fails("ENXIO"):
                await seek(handle, offset)
    await mounted.fs.release(handle)


async def test_seeking_in_files_without_holes(mounted: Mounted) -> None:
    for size in (10, C + 10):
        await mounted.write_file("/f", b"x" * size)
        handle = await mounted.open("/f")
        assert await mounted.fs.seek_data(handle, 5) == 5
        assert await mounted.fs.seek_hole(handle, 5) == size
        await mounted.fs.release(handle)
