"""O_TMPFILE: a file that has no name until somebody gives it one, and goes if nobody does."""

import os
import stat

import pytest

from tests.unit.fs.harness import ALICE, BOB, ROOT_CALLER, Mounted, fails

ROOT = 1


async def test_it_has_no_name_and_goes_with_its_last_handle(mounted: Mounted) -> None:
    free = await mounted.fs.statfs()
    handle, made = await mounted.fs.tmpfile(ROOT_CALLER, ROOT, 0o644, os.O_RDWR)
    assert (made.nlink, stat.S_IMODE(made.mode), made.size_bytes) == (0, 0o644, 0)
    await mounted.fs.write(handle, 0, b"x" * 5000)
    assert await mounted.fs.read(handle, 0, 10) == b"x" * 10
    assert await mounted.list("/") == {}
    mounted.check()
    await mounted.fs.release(handle)
    mounted.fs.forget(made.inode, 1)
    assert await mounted.fs.statfs() == free
    mounted.check()
    with fails("ESTALE"):
        await mounted.fs.getattr(made.inode)


async def test_a_name_makes_it_a_file_like_any_other(mounted: Mounted) -> None:
    handle, made = await mounted.fs.tmpfile(ROOT_CALLER, ROOT, 0o600, os.O_RDWR)
    await mounted.fs.write(handle, 0, b"kept")
    linked = await mounted.fs.link(ROOT_CALLER, made.inode, ROOT, b"name")
    assert linked.nlink == 1
    mounted.check()
    await mounted.fs.release(handle)
    mounted.fs.forget(made.inode, 2)
    assert await mounted.read_file("/name") == b"kept"
    await mounted.remount(crash=False)
    assert await mounted.read_file("/name") == b"kept"
    await mounted.unlink("/name")
    mounted.check()


async def test_once_it_has_lost_a_name_it_gets_no_other(mounted: Mounted) -> None:
    handle, made = await mounted.fs.tmpfile(ROOT_CALLER, ROOT, 0o600, os.O_RDWR)
    await mounted.fs.link(ROOT_CALLER, made.inode, ROOT, b"name")
    await mounted.unlink("/name")
    with fails("ENOENT"):
        await mounted.fs.link(ROOT_CALLER, made.inode, ROOT, b"again")
    await mounted.fs.release(handle)
    mounted.fs.forget(made.inode, 2)
    mounted.check()


async def test_o_excl_forbids_a_name(mounted: Mounted) -> None:
    handle, made = await mounted.fs.tmpfile(ROOT_CALLER, ROOT, 0o600, os.O_RDWR | os.O_EXCL)
    with fails("ENOENT"):
        await mounted.fs.link(ROOT_CALLER, made.inode, ROOT, b"name")
    await mounted.fs.release(handle)
    mounted.fs.forget(made.inode, 1)
    mounted.check()


@pytest.mark.parametrize("crash", [True, False])
async def test_nothing_is_left_of_it_after_a_remount(mounted: Mounted, crash: bool) -> None:
    free = await mounted.fs.statfs()
    handle, _ = await mounted.fs.tmpfile(ROOT_CALLER, ROOT, 0o600, os.O_RDWR)
    await mounted.fs.write(handle, 0, b"x" * 100_000)
    await mounted.fs.sync()
    await mounted.remount(crash=crash)
    assert await mounted.fs.statfs() == free
    mounted.check()


async def test_the_directory_says_who_may_and_to_whom_it_belongs(mounted: Mounted) -> None:
    closed = await mounted.mkdir("/closed", 0o755)
    shared = await mounted.mkdir("/shared", 0o777)
    await mounted.change("/shared", gid=BOB.gid, mode=0o2777)
    before = await mounted.look("/shared")
    with fails("EACCES"):
        await mounted.fs.tmpfile(ALICE, closed, 0o600, os.O_RDWR)
    handle, made = await mounted.fs.tmpfile(ALICE, shared, 0o600, os.O_WRONLY)
    assert (made.uid, made.gid) == (ALICE.uid, BOB.gid)
    assert await mounted.look("/shared") == before, "a directory without a new entry has not changed"
    await mounted.fs.release(handle)
    mounted.fs.forget(made.inode, 1)


async def test_what_cannot_be_is_refused(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"")
    with fails("EINVAL"):
        await mounted.fs.tmpfile(ROOT_CALLER, ROOT, 0o600, os.O_RDONLY)
    with fails("ENOTDIR"):
        await mounted.fs.tmpfile(ROOT_CALLER, inode, 0o600, os.O_RDWR)
    with fails("ESTALE"):
        await mounted.fs.tmpfile(ROOT_CALLER, 999, 0o600, os.O_RDWR)
    await mounted.remount(read_only=True)
    with fails("EROFS"):
        await mounted.fs.tmpfile(ROOT_CALLER, ROOT, 0o600, os.O_RDWR)
