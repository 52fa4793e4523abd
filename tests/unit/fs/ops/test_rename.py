"""rename in all shapes."""

import errno
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from tests.unit.fs.harness import ALICE, BOB, ROOT_CALLER, Mounted, fails, new_mount
from zerofs.errors import FsError
from zerofs.fs.format.keys import inode_key
from zerofs.fs.ops.rename import EXCHANGE, NOREPLACE


async def tree(mounted: Mounted) -> None:
    for path in ("/a", "/a/b", "/a/b/c", "/d", "/full"):
        await mounted.mkdir(path)
    for path in ("/f", "/a/g", "/full/x"):
        await mounted.write_file(path, path.encode())


async def test_to_a_free_name(mounted: Mounted) -> None:
    await tree(mounted)
    before = await mounted.look("/f")
    root = await mounted.look("/")
    await mounted.rename("/f", "/h")
    after = await mounted.look("/h")
    assert (after.inode, after.mtime_ns, after.nlink) == (before.inode, before.mtime_ns, 1)
    assert after.ctime_ns > before.ctime_ns
    assert (await mounted.look("/")).mtime_ns > root.mtime_ns
    with fails("ENOENT"):
        await mounted.look("/f")
    await mounted.rename("/h", "/d/h")
    assert await mounted.read_file("/d/h") == b"/f"
    await mounted.remount()
    assert list(await mounted.list("/d")) == [b"h"]
    assert b"h" not in await mounted.list("/")


async def test_a_directory_to_another_parent(mounted: Mounted) -> None:
    await tree(mounted)
    inode = (await mounted.look("/a/b")).inode
    await mounted.rename("/a/b", "/d/moved")
    assert (await mounted.look("/a")).nlink == 2
    assert (await mounted.look("/d")).nlink == 3
    assert (await mounted.fs.lookup(ROOT_CALLER, inode, b"..")).inode == (await mounted.look("/d")).inode
    await mounted.look("/d/moved/c")


async def test_replacing_a_file(mounted: Mounted) -> None:
    await tree(mounted)
    old = (await mounted.look("/a/g")).inode
    await mounted.rename("/f", "/a/g")
    assert await mounted.read_file("/a/g") == b"/f"
    with fails("ESTALE"):
        await mounted.fs.getattr(old)


async def test_replacing_one_of_several_names(mounted: Mounted) -> None:
    await tree(mounted)
    await mounted.link("/a/g", "/g2")
    await mounted.rename("/f", "/a/g")
    found = await mounted.look("/g2")
    assert found.nlink == 1
    assert await mounted.read_file("/g2") == b"/a/g"


async def test_replacing_an_open_file(mounted: Mounted) -> None:
    await tree(mounted)
    handle = await mounted.open("/a/g")
    await mounted.rename("/f", "/a/g")
    assert await mounted.fs.read(handle, 0, 10) == b"/a/g"
    mounted.check()
    await mounted.fs.release(handle)


async def test_replacing_an_empty_directory(mounted: Mounted) -> None:
    await tree(mounted)
    await mounted.rename("/a/b", "/d")
    assert (await mounted.look("/d/c")).mode
    assert (await mounted.look("/")).nlink == 5
    assert (await mounted.look("/a")).nlink == 2


async def test_kinds_and_emptiness(mounted: Mounted) -> None:
    await tree(mounted)
    await mounted.symlink("/l", b"a")
    for old, new, error in (
        ("/d", "/f", "ENOTDIR"),
        ("/d", "/l", "ENOTDIR"),
        ("/f", "/d", "EISDIR"),
        ("/l", "/d", "EISDIR"),
        ("/d", "/full", "ENOTEMPTY"),
        ("/a/b/c", "/a", "ENOTEMPTY"),
        ("/a/b", "/a", "ENOTEMPTY"),
        ("/gone", "/x", "ENOENT"),
        ("/gone", "/f", "ENOENT"),
        ("/f/x", "/y", "ENOTDIR"),
        ("/f", "/l/x", "ENOTDIR"),
    ):
        with fails(error):
            await mounted.rename(old, new)
    await mounted.rename("/f", "/l")
    assert await mounted.read_file("/l") == b"/f"


async def test_below_itself(mounted: Mounted) -> None:
    await tree(mounted)
    for new in ("/a/x", "/a/b", "/a/b/x", "/a/b/c/x"):
        with fails("EINVAL", "ENOTEMPTY") if new == "/a/b" else fails("EINVAL"):
            await mounted.rename("/a", new)
    with fails("EINVAL"):
        await mounted.rename("/a", "/a/b", EXCHANGE)
    with fails("EINVAL"):
        await mounted.rename("/a/b", "/a", EXCHANGE)


async def test_two_names_of_one_inode_stay(mounted: Mounted) -> None:
    await tree(mounted)
    await mounted.link("/f", "/a/f2")
    before = await mounted.look("/f")
    for flags in (0, EXCHANGE):
        await mounted.rename("/f", "/a/f2", flags)
    await mounted.rename("/f", "/f")
    await mounted.rename("/a", "/a")
    assert await mounted.look("/f") == await mounted.look("/a/f2") == before
    with fails("EEXIST"):
        await mounted.rename("/f", "/a/f2", NOREPLACE)


async def test_noreplace(mounted: Mounted) -> None:
    await tree(mounted)
    for new in ("/a/g", "/d", "/f"):
        with fails("EEXIST"):
            await mounted.rename("/f", new, NOREPLACE)
    await mounted.rename("/f", "/new", NOREPLACE)
    assert await mounted.read_file("/new") == b"/f"


async def test_exchange(mounted: Mounted) -> None:
    await tree(mounted)
    file, directory = (await mounted.look("/f")).inode, (await mounted.look("/a/b")).inode
    await mounted.rename("/f", "/a/b", EXCHANGE)
    assert (await mounted.look("/f")).inode == directory
    assert (await mounted.look("/a/b")).inode == file
    assert (await mounted.fs.lookup(ROOT_CALLER, directory, b"..")).inode == 1
    assert ((await mounted.look("/")).nlink, (await mounted.look("/a")).nlink) == (6, 2)
    await mounted.look("/f/c")
    await mounted.rename("/d", "/full", EXCHANGE)
    assert list(await mounted.list("/d")) == [b"x"]
    await mounted.rename("/d", "/f/c", EXCHANGE)
    assert list(await mounted.list("/f/c")) == [b"x"]
    with fails("ENOENT"):
        await mounted.rename("/f", "/gone", EXCHANGE)


@pytest.mark.parametrize("flags", [3, 4, 5, 8, -1])
async def test_other_flags(mounted: Mounted, flags: int) -> None:
    await tree(mounted)
    with fails("EINVAL"):
        await mounted.rename("/f", "/x", flags)


async def test_names(mounted: Mounted) -> None:
    await tree(mounted)
    directory = (await mounted.look("/a")).inode
    rename = mounted.fs.rename
    for old, new, flags, error in (
        (b".", b"x", 0, "EBUSY"),
        (b"..", b"x", 0, "EBUSY"),
        (b"b", b".", 0, "EBUSY"),
        (b"b", b"..", NOREPLACE, "EEXIST"),
        (b"b", b"x" * 256, 0, "ENAMETOOLONG"),
        (b"x" * 256, b"b", 0, "ENAMETOOLONG"),
        (b"b", b"x/y", 0, "EINVAL"),
        (b"b", b"", 0, "ENOENT"),
    ):
        with fails(error):
            await rename(ROOT_CALLER, directory, old, directory, new, flags)


async def test_cookies_survive(mounted: Mounted) -> None:
    """Whoever reads a directory while names change sees each name that stays exactly once."""
    directory = await mounted.mkdir("/d")
    for name in "abcdef":
        await mounted.write_file(f"/d/{name}")
    handle = await mounted.fs.opendir(ROOT_CALLER, directory)
    page = await mounted.fs.readdir(handle, 0, 2)
    assert [entry.name for entry in page] == [b"a", b"b"]
    await mounted.rename("/d/a", "/d/z")  # keeps its place, which was read already
    await mounted.rename("/d/b", "/d/e")  # takes the place of e, which is to come
    await mounted.rename("/d/c", "/d/f", EXCHANGE)  # the names stay where they are
    await mounted.rename("/d/d", "/d/y")
    rest = await mounted.fs.readdir(handle, page[-1].cookie, 100)
    assert [entry.name for entry in rest] == [b"c", b"y", b"e", b"f"]
    await mounted.write_file("/d/new")
    rest = await mounted.fs.readdir(handle, rest[-1].cookie, 100)
    assert [entry.name for entry in rest] == [b"new"]
    await mounted.fs.releasedir(handle)


async def test_a_name_replaced_from_another_directory_keeps_its_place(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    for name in "abc":
        await mounted.write_file(f"/d/{name}")
    await mounted.write_file("/x")
    await mounted.rename("/x", "/d/b")
    assert list(await mounted.list("/d")) == [b"a", b"b", b"c"]


async def test_permissions(mounted: Mounted) -> None:
    for path in ("/alice", "/bob"):
        await mounted.mkdir(path)
    await mounted.change("/alice", uid=ALICE.uid)
    await mounted.change("/bob", uid=BOB.uid)
    await mounted.write_file("/alice/f", caller=ALICE)
    await mounted.write_file("/bob/f", caller=BOB)
    for old, new, flags in (("/alice/f", "/bob/g", 0), ("/bob/f", "/alice/g", 0), ("/alice/f", "/bob/f", EXCHANGE)):
        with fails("EACCES"):
            await mounted.rename(old, new, flags, caller=ALICE)
    await mounted.change("/alice", mode=0o666)
    with fails("EACCES"):
        await mounted.rename("/alice/f", "/alice/g", caller=ALICE)


async def test_sticky_on_both_sides(mounted: Mounted) -> None:
    await mounted.mkdir("/s", 0o1777)
    await mounted.change("/s", mode=0o1777)
    await mounted.mkdir("/t", 0o777)
    await mounted.change("/t", mode=0o777)
    await mounted.write_file("/s/alice", caller=ALICE)
    await mounted.write_file("/s/bob", caller=BOB)
    await mounted.write_file("/t/bob", caller=BOB)
    with fails("EPERM"):
        await mounted.rename("/s/alice", "/t/x", caller=BOB)
    with fails("EPERM"):
        await mounted.rename("/t/bob", "/s/alice", caller=BOB)
    with fails("EPERM"):
        await mounted.rename("/s/bob", "/s/alice", EXCHANGE, caller=BOB)
    await mounted.rename("/t/bob", "/s/bob", caller=BOB)
    await mounted.rename("/s/bob", "/t/bob", caller=BOB)


async def test_moving_a_directory_needs_write_permission_on_it(mounted: Mounted) -> None:
    await mounted.mkdir("/t", 0o777)
    await mounted.change("/t", mode=0o777)
    await mounted.change("/", mode=0o777)
    await mounted.mkdir("/d", 0o755)
    with fails("EACCES"):
        await mounted.rename("/d", "/t/d", caller=ALICE)
    await mounted.rename("/d", "/e", caller=ALICE)  # its ".." stays
    await mounted.change("/e", mode=0o777)
    await mounted.rename("/e", "/t/d", caller=ALICE)
    await mounted.mkdir("/x", 0o755)
    with fails("EACCES"):
        await mounted.rename("/t/d", "/x", EXCHANGE, caller=ALICE)


async def test_into_a_removed_directory(mounted: Mounted) -> None:
    await mounted.write_file("/f")
    gone = await mounted.fs.mkdir(ROOT_CALLER, 1, b"d", 0o755)
    await mounted.rmdir("/d")
    with fails("ENOENT"):
        await mounted.fs.rename(ROOT_CALLER, 1, b"f", gone.inode, b"f", 0)
    with fails("ENOENT"):
        await mounted.fs.rename(ROOT_CALLER, gone.inode, b"f", 1, b"g", 0)


async def test_two_moves_at_once_make_no_ring(mounted: Mounted) -> None:
    """Neither move sees the other's: without the lock of the tree each would hang its directory below the other's."""
    for path in ("/top", "/top/q", "/top/q/b", "/top/q/b/x", "/p", "/p/a", "/p/a/y"):
        await mounted.mkdir(path)
    number = {path: (await mounted.look(path)).inode for path in ("/top", "/top/q", "/top/q/b/x", "/p", "/p/a/y")}
    await mounted.remount()
    goes_on = trio.Event()
    results: list[str] = []

    async def pause(keys: Sequence[bytes]) -> None:
        if inode_key(number["/top"]) in keys:
            await goes_on.wait()

    async def move(parent: str, name: bytes, new_parent: str) -> None:
        try:
            await mounted.fs.rename(ROOT_CALLER, number[parent], name, number[new_parent], name, 0)
            results.append("moved")
        except FsError as error:
            results.append(errno.errorcode[error.errno])

    mounted.engine.pause = pause
    async with trio.open_nursery() as nursery:
        nursery.start_soon(move, "/p", b"a", "/top/q/b/x")
        await trio.testing.wait_all_tasks_blocked()  # on its way up, beyond b
        nursery.start_soon(move, "/top/q", b"b", "/p/a/y")
        await trio.testing.wait_all_tasks_blocked()
        assert results == []
        goes_on.set()
    assert results == ["moved", "EINVAL"]


async def test_too_many_links() -> None:
    mount = await new_mount(max_links=3)
    for path in ("/d", "/d/a", "/d/a/x"):
        await mount.mkdir(path)
    await mount.rename("/d/a/x", "/d/a/y")
    with fails("EMLINK"):
        await mount.rename("/d/a/y", "/d/b")
    await mount.write_file("/d/f")
    with fails("EMLINK"):
        await mount.rename("/d/f", "/d/a/y", EXCHANGE)
    await mount.rename("/d/a/y", "/d/a/z")
    mount.check()
