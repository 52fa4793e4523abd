"""mknod, mkdir, symlink, create."""

import os
import stat

import pytest

from tests.unit.fs.harness import ALICE, BOB, CAROL, ROOT_CALLER, Mounted, fails, new_mount
from zerofs.fs.access import Caller

MAKERS = ["mkdir", "mknod", "symlink", "create"]


async def make(mounted: Mounted, how: str, path: str, caller: Caller = ROOT_CALLER) -> None:
    if how == "mkdir":
        await mounted.mkdir(path, caller=caller)
    elif how == "mknod":
        await mounted.mknod(path, stat.S_IFIFO | 0o644, caller=caller)
    elif how == "symlink":
        await mounted.symlink(path, b"target", caller=caller)
    else:
        await mounted.write_file(path, caller=caller)


async def test_a_directory(mounted: Mounted) -> None:
    await mounted.mkdir("/d", 0o1750)
    found = await mounted.look("/d")
    assert (found.mode, found.nlink, found.size_bytes, found.blocks) == (stat.S_IFDIR | 0o1750, 2, 4096, 8)
    await mounted.mkdir("/d/e")
    assert (await mounted.look("/d")).nlink == 3
    assert (await mounted.look("/")).nlink == 3


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
async def test_special_files(mounted: Mounted, kind: int) -> None:
    rdev = os.makedev(260, 70000)
    await mounted.mknod("/x", kind | 0o640, rdev)
    found = await mounted.look("/x")
    assert (found.mode, found.nlink, found.size_bytes, found.blocks) == (kind | 0o640, 1, 0, 0)
    assert found.rdev == (rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0)
    await mounted.remount()
    assert await mounted.look("/x") == found


async def test_mknod_without_a_type_makes_a_file(mounted: Mounted) -> None:
    await mounted.mknod("/x", 0o600)
    assert (await mounted.look("/x")).mode == stat.S_IFREG | 0o600


async def test_mknod_refuses_types_with_calls_of_their_own(mounted: Mounted) -> None:
    for kind in (stat.S_IFDIR, stat.S_IFLNK, 0o170000):
        with fails("EINVAL"):
            await mounted.mknod("/x", kind | 0o600)


async def test_only_root_makes_devices(mounted: Mounted) -> None:
    await mounted.change("/", mode=0o777)
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        with fails("EPERM"):
            await mounted.mknod("/x", kind | 0o600, 5, caller=ALICE)
    await mounted.mknod("/fifo", stat.S_IFIFO | 0o600, caller=ALICE)


async def test_symlink(mounted: Mounted) -> None:
    target = os.urandom(4095).replace(b"\0", b"x")
    inode = await mounted.symlink("/l", target)
    found = await mounted.look("/l")
    assert (found.mode, found.size_bytes, found.blocks) == (stat.S_IFLNK | 0o777, 4095, 0)
    await mounted.remount()
    assert await mounted.fs.readlink(inode) == target


async def test_symlink_targets_that_are_none(mounted: Mounted) -> None:
    for target, error in ((b"", "ENOENT"), (b"x" * 4096, "ENAMETOOLONG"), (b"a\0b", "EINVAL")):
        with fails(error):
            await mounted.symlink("/l", target)
    assert await mounted.list("/") == {}


async def test_the_umask_applies_but_not_to_symlinks(mounted: Mounted) -> None:
    masked = Caller(uid=0, gid=0, umask=0o027)
    await mounted.mkdir("/d", 0o7777, caller=masked)
    await mounted.mknod("/n", 0o666, caller=masked)
    await mounted.write_file("/f", mode=0o666, caller=masked)
    await mounted.symlink("/l", b"x", caller=masked)
    modes = {name: stat.S_IMODE((await mounted.look(f"/{name}")).mode) for name in "dnfl"}
    assert modes == {"d": 0o7750, "n": 0o640, "f": 0o640, "l": 0o777}


async def test_create_counts_a_lookup_and_opens(mounted: Mounted) -> None:
    handle, made = await mounted.fs.create(ALICE_IN_ROOT, 1, b"f", 0o600, os.O_RDWR)
    assert (made.uid, made.gid, made.size_bytes) == (0, 0, 0)
    await mounted.fs.unlink(ROOT_CALLER, 1, b"f")
    assert (await mounted.fs.getattr(made.inode)).nlink == 0
    await mounted.fs.release(handle)
    assert (await mounted.fs.getattr(made.inode)).nlink == 0
    mounted.fs.forget(made.inode, 1)
    with fails("ESTALE"):
        await mounted.fs.getattr(made.inode)


ALICE_IN_ROOT = Caller(uid=0, gid=0, groups=ALICE.groups)


async def test_create_of_what_exists(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"abc", 0o600, caller=ROOT_CALLER)
    handle, found = await mounted.fs.create(ROOT_CALLER, 1, b"f", 0o644, os.O_RDWR)
    assert (found.inode, found.size_bytes, stat.S_IMODE(found.mode)) == (inode, 3, 0o600)
    await mounted.fs.release(handle)
    handle, found = await mounted.fs.create(ROOT_CALLER, 1, b"f", 0o644, os.O_RDWR | os.O_TRUNC)
    assert found.size_bytes == 0
    await mounted.fs.release(handle)
    mounted.fs.forget(inode, 2)
    with fails("EEXIST"):
        await mounted.fs.create(ROOT_CALLER, 1, b"f", 0o644, os.O_RDWR | os.O_EXCL)
    with fails("EACCES"):
        await mounted.fs.create(ALICE, 1, b"f", 0o644, os.O_RDWR)
    await mounted.mkdir("/d")
    with fails("EISDIR"):
        await mounted.fs.create(ROOT_CALLER, 1, b"d", 0o644, os.O_RDWR)
    await mounted.symlink("/l", b"f")
    with fails("ELOOP"):
        await mounted.fs.create(ROOT_CALLER, 1, b"l", 0o644, os.O_RDWR)


@pytest.mark.parametrize("how", MAKERS)
async def test_existing_names(mounted: Mounted, how: str) -> None:
    await make(mounted, how, "/x")
    for again in ("mkdir", "mknod", "symlink"):
        with fails("EEXIST"):
            await make(mounted, again, "/x")
    for name in (b".", b".."):
        with fails("EEXIST"):
            await mounted.fs.mkdir(ROOT_CALLER, 1, name, 0o755)


@pytest.mark.parametrize("how", MAKERS)
async def test_names(mounted: Mounted, how: str) -> None:
    directory = await mounted.mkdir("/d")
    longest = bytes(set(range(256)) - {0, ord("/")}) + b"x"
    assert len(longest) == 255
    makers = {
        "mkdir": lambda name: mounted.fs.mkdir(ROOT_CALLER, directory, name, 0o755),
        "mknod": lambda name: mounted.fs.mknod(ROOT_CALLER, directory, name, 0o644, 0),
        "symlink": lambda name: mounted.fs.symlink(ROOT_CALLER, directory, name, b"t"),
        "create": lambda name: mounted.fs.create(ROOT_CALLER, directory, name, 0o644, os.O_RDWR),
    }
    await makers[how](longest)
    assert list(await mounted.list("/d")) == [longest]
    for name, error in ((longest + b"x", "ENAMETOOLONG"), (b"", "ENOENT"), (b"a/b", "EINVAL"), (b"a\0", "EINVAL")):
        with fails(error):
            await makers[how](name)
    assert list(await mounted.list("/d")) == [longest]


@pytest.mark.parametrize("how", MAKERS)
async def test_permissions(mounted: Mounted, how: str) -> None:
    await mounted.mkdir("/d", 0o755)
    await mounted.change("/d", uid=ALICE.uid, gid=3000)
    await make(mounted, how, "/d/mine", ALICE)
    found = await mounted.look("/d/mine")
    assert (found.uid, found.gid) == (ALICE.uid, ALICE.gid)
    with fails("EACCES"):
        await make(mounted, how, "/d/x", BOB)
    await mounted.change("/d", mode=0o770)
    await make(mounted, how, "/d/x", BOB)  # by a group of his
    with fails("EACCES"):
        await make(mounted, how, "/d/y", CAROL)
    await make(mounted, how, "/d/y", Caller(uid=CAROL.uid, gid=CAROL.gid, checked=True))
    await mounted.change("/d", mode=0o666)
    with fails("EACCES"):  # no search permission, so not even EEXIST
        await make(mounted, how, "/d/mine", ALICE)


@pytest.mark.parametrize("how", MAKERS)
async def test_setgid_directories(mounted: Mounted, how: str) -> None:
    await mounted.mkdir("/d", 0o777)
    await mounted.change("/d", gid=42, mode=0o2777)
    await make(mounted, how, "/d/x", ALICE)
    found = await mounted.look("/d/x")
    assert found.gid == 42
    assert bool(found.mode & stat.S_ISGID) == (how == "mkdir")


@pytest.mark.parametrize("how", MAKERS)
async def test_below_what_is_no_directory(mounted: Mounted, how: str) -> None:
    await mounted.write_file("/f")
    with fails("ENOTDIR"):
        await make(mounted, how, "/f/x")


async def test_in_a_removed_directory(mounted: Mounted) -> None:
    made = await mounted.fs.mkdir(ROOT_CALLER, 1, b"d", 0o755)
    await mounted.rmdir("/d")
    for work in (
        mounted.fs.mkdir(ROOT_CALLER, made.inode, b"x", 0o755),
        mounted.fs.create(ROOT_CALLER, made.inode, b"x", 0o644, os.O_RDWR),
        mounted.fs.lookup(ROOT_CALLER, made.inode, b"x"),
    ):
        with fails("ENOENT"):
            await work
    mounted.fs.forget(made.inode, 1)
    with fails("ESTALE"):
        await mounted.fs.mkdir(ROOT_CALLER, made.inode, b"x", 0o755)


async def test_times_of_the_new_and_its_directory(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    before = mounted.world.time_ns
    await mounted.write_file("/d/f")
    found, directory = await mounted.look("/d/f"), await mounted.look("/d")
    assert before < found.atime_ns == found.mtime_ns == found.ctime_ns == found.btime_ns
    assert directory.mtime_ns == directory.ctime_ns == found.ctime_ns
    assert directory.atime_ns <= before


async def test_too_many_links() -> None:
    mount = await new_mount(max_links=4)
    await mount.mkdir("/a")
    await mount.mkdir("/b")
    with fails("EMLINK"):
        await mount.mkdir("/c")
    await mount.write_file("/f")
    await mount.rmdir("/a")
    await mount.mkdir("/c")
    mount.check()


async def test_inode_numbers_are_never_used_twice(mounted: Mounted) -> None:
    first = await mounted.write_file("/a")
    await mounted.unlink("/a")
    await mounted.remount()
    second = await mounted.write_file("/a")
    assert second > first
