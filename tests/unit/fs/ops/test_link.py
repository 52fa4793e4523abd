"""link, readlink."""

import stat

from tests.unit.fs.harness import ALICE, CAROL, ROOT_CALLER, Mounted, fails, new_mount


async def test_another_name(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x")
    await mounted.mkdir("/d")
    before = mounted.world.time_ns
    made = await mounted.link("/f", "/d/g")
    assert (made.inode, made.nlink) == (inode, 2)
    assert made.ctime_ns > before > made.mtime_ns
    assert (await mounted.look("/d")).mtime_ns == made.ctime_ns
    assert await mounted.read_file("/d/g") == b"x"
    await mounted.remount()
    assert (await mounted.look("/f")).nlink == 2


async def test_symlinks_and_special_files_can_be_linked(mounted: Mounted) -> None:
    await mounted.symlink("/l", b"nowhere")
    await mounted.mknod("/n", stat.S_IFSOCK | 0o600)
    assert (await mounted.link("/l", "/l2")).mode == stat.S_IFLNK | 0o777
    assert (await mounted.link("/n", "/n2")).nlink == 2


async def test_errors(mounted: Mounted) -> None:
    await mounted.write_file("/f")
    await mounted.mkdir("/d")
    with fails("EPERM"):
        await mounted.link("/d", "/e")
    with fails("EEXIST"):
        await mounted.link("/f", "/d")
    with fails("EEXIST"):
        await mounted.link("/f", "/f")
    with fails("ENOTDIR"):
        await mounted.link("/f", "/f/x")
    with fails("ENAMETOOLONG"):
        await mounted.link("/f", "/" + "x" * 256)
    with fails("ESTALE"):
        await mounted.fs.link(ROOT_CALLER, 999, 1, b"x")


async def test_permissions(mounted: Mounted) -> None:
    await mounted.write_file("/f")
    await mounted.mkdir("/d", 0o755)
    await mounted.change("/d", uid=ALICE.uid)
    with fails("EACCES"):
        await mounted.link("/f", "/d/f", CAROL)
    await mounted.link("/f", "/d/f", ALICE)


async def test_what_has_no_name_gets_none(mounted: Mounted) -> None:
    made = await mounted.fs.mknod(ROOT_CALLER, 1, b"f", 0o644, 0)
    await mounted.unlink("/f")
    with fails("ENOENT"):
        await mounted.fs.link(ROOT_CALLER, made.inode, 1, b"g")
    file = await mounted.write_file("/h")
    directory = await mounted.fs.mkdir(ROOT_CALLER, 1, b"d", 0o755)
    await mounted.rmdir("/d")
    with fails("ENOENT"):
        await mounted.fs.link(ROOT_CALLER, file, directory.inode, b"g")


async def test_too_many() -> None:
    mount = await new_mount(max_links=2)
    await mount.write_file("/f")
    await mount.link("/f", "/g")
    with fails("EMLINK"):
        await mount.link("/f", "/h")
    mount.check()


async def test_readlink_of_something_else(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x")
    with fails("EINVAL"):
        await mounted.fs.readlink(inode)
    with fails("ESTALE"):
        await mounted.fs.readlink(999)
