"""unlink, rmdir."""

import os
import stat

import pytest

from tests.unit.fs.harness import ALICE, BOB, ROOT_CALLER, C, Mounted, fails


async def test_unlink(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x")
    await mounted.unlink("/f")
    assert await mounted.list("/") == {}
    with fails("ESTALE"):
        await mounted.fs.getattr(inode)
    with fails("ENOENT"):
        await mounted.unlink("/f")


@pytest.mark.parametrize("size", [0, 10, C, 5 * C, 200 * C, 200 * C + 1])
async def test_everything_of_a_file_goes_with_it(mounted: Mounted, size: int) -> None:
    before = mounted.engine.rows().keys()
    await mounted.write_file("/f", b"x" * size)
    inode = (await mounted.look("/f")).inode
    await mounted.fs.setxattr(ROOT_CALLER, inode, b"user.a", b"1")
    await mounted.unlink("/f")
    assert mounted.engine.rows().keys() == before
    assert mounted.fs._ctx.usage.counters.used_bytes == 0


async def test_deleting_a_huge_file_takes_few_rows(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x")
    await mounted.change("/f", size_bytes=2**60)
    handle = await mounted.open("/f")
    for index in range(40):
        await mounted.fs.write(handle, index << 50, b"y" * C)
    await mounted.fs.release(handle)
    commits = []
    original = mounted.engine.commit
    mounted.engine.commit = lambda rows, ranges=(): (commits.append((rows, ranges)), original(rows, ranges))
    await mounted.unlink("/f")
    ((rows, ranges),) = commits
    assert len(rows) < 10
    assert len(ranges) == 1
    assert not any(inode.to_bytes(8, "big") in key for key in mounted.engine.rows() if key.startswith(b"chunk"))


async def test_unlink_of_one_of_several_names(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x")
    await mounted.link("/f", "/g")
    before = mounted.world.time_ns
    await mounted.unlink("/f")
    found = await mounted.look("/g")
    assert (found.inode, found.nlink) == (inode, 1)
    assert found.ctime_ns > before > found.mtime_ns


async def test_kinds(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    await mounted.symlink("/l", b"d")
    await mounted.mknod("/fifo", stat.S_IFIFO | 0o600)
    with fails("EISDIR"):
        await mounted.unlink("/d")
    for path in ("/l", "/fifo"):
        with fails("ENOTDIR"):
            await mounted.rmdir(path)
        await mounted.unlink(path)
    await mounted.rmdir("/d")
    assert await mounted.list("/") == {}


async def test_rmdir(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    await mounted.mkdir("/d/e")
    with fails("ENOTEMPTY"):
        await mounted.rmdir("/d")
    before = await mounted.look("/d")
    await mounted.rmdir("/d/e")
    after = await mounted.look("/d")
    assert (before.nlink, after.nlink) == (3, 2)
    assert after.mtime_ns > before.mtime_ns
    await mounted.rmdir("/d")
    assert (await mounted.look("/")).nlink == 2
    with fails("ENOENT"):
        await mounted.rmdir("/d")


async def test_names(mounted: Mounted) -> None:
    directory = await mounted.mkdir("/d")
    for name, error in ((b".", "EINVAL"), (b"..", "ENOTEMPTY"), (b"x" * 256, "ENAMETOOLONG"), (b"x", "ENOENT")):
        with fails(error):
            await mounted.fs.rmdir(ROOT_CALLER, directory, name)
    with fails("ENAMETOOLONG"):
        await mounted.fs.unlink(ROOT_CALLER, directory, b"x" * 256)
    await mounted.write_file("/f")
    for work in (mounted.unlink("/f/x"), mounted.rmdir("/f/x")):
        with fails("ENOTDIR"):
            await work


async def test_permissions(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    await mounted.change("/d", uid=ALICE.uid)
    await mounted.write_file("/d/f")
    await mounted.mkdir("/d/e")
    with fails("EACCES"):
        await mounted.unlink("/d/f", BOB)
    with fails("EACCES"):
        await mounted.rmdir("/d/e", BOB)
    with fails("ENOENT"):
        await mounted.unlink("/d/g", BOB)
    await mounted.change("/d", mode=0o1777)
    with fails("EPERM"):
        await mounted.unlink("/d/f", BOB)
    with fails("EPERM"):
        await mounted.rmdir("/d/e", BOB)
    await mounted.change("/d/e", uid=BOB.uid)
    await mounted.rmdir("/d/e", BOB)
    await mounted.unlink("/d/f", ALICE)  # the directory is hers


async def test_an_open_file_lives_on_without_name(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"a" * 3 * C)
    handle = await mounted.open("/f")
    inode = (await mounted.look("/f")).inode
    await mounted.unlink("/f")
    assert (await mounted.fs.getattr(inode)).nlink == 0
    await mounted.fs.write(handle, C, b"b" * C)
    assert await mounted.fs.read(handle, C - 1, C + 2) == b"a" + b"b" * C + b"a"
    mounted.check()
    await mounted.fs.release(handle)
    with fails("ESTALE"):
        await mounted.fs.getattr(inode)
    assert not [key for key in mounted.engine.rows() if key.startswith(b"chunk")]


async def test_handle_and_lookup_must_both_go(mounted: Mounted) -> None:
    handle, made = await mounted.fs.create(ROOT_CALLER, 1, b"f", 0o644, os.O_RDWR)
    await mounted.unlink("/f")
    mounted.fs.forget(made.inode, 1)
    assert (await mounted.fs.getattr(made.inode)).nlink == 0
    await mounted.fs.release(handle)
    with fails("ESTALE"):
        await mounted.fs.getattr(made.inode)


async def test_an_open_directory_lives_on_without_name(mounted: Mounted) -> None:
    inode = await mounted.mkdir("/d")
    handle = await mounted.fs.opendir(ROOT_CALLER, inode)
    await mounted.rmdir("/d")
    assert await mounted.fs.readdir(handle, 0, 10) == []
    assert (await mounted.fs.getattr(inode)).nlink == 0
    await mounted.fs.releasedir(handle)
    with fails("ESTALE"):
        await mounted.fs.getattr(inode)
