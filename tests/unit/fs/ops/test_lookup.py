"""lookup, forget."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from tests.unit.fs.harness import ALICE, ROOT_CALLER, Mounted, fails
from zerofs.errors import CorruptionError
from zerofs.fs.access import Caller
from zerofs.fs.format.keys import inode_key


async def test_names_lead_to_inodes(mounted: Mounted) -> None:
    inode = await mounted.mkdir("/d")
    file = await mounted.write_file("/d/f", b"x")
    assert (await mounted.fs.lookup(ROOT_CALLER, inode, b"f")).inode == file
    with fails("ENOENT"):
        await mounted.fs.lookup(ROOT_CALLER, inode, b"g")
    with fails("ENOENT"):
        await mounted.fs.lookup(ROOT_CALLER, 1, b"f")
    with fails("ENOTDIR"):
        await mounted.fs.lookup(ROOT_CALLER, file, b"f")
    with fails("ESTALE"):
        await mounted.fs.lookup(ROOT_CALLER, 999, b"f")
    with fails("ENAMETOOLONG"):
        await mounted.fs.lookup(ROOT_CALLER, inode, b"x" * 256)


async def test_an_absent_name_may_appear(mounted: Mounted) -> None:
    for _ in range(2):
        with fails("ENOENT"):
            await mounted.look("/f")
    await mounted.write_file("/f")
    await mounted.look("/f")
    await mounted.unlink("/f")
    with fails("ENOENT"):
        await mounted.look("/f")


async def test_dots(mounted: Mounted) -> None:
    inode = await mounted.mkdir("/d")
    inner = await mounted.mkdir("/d/e")
    lookup = mounted.fs.lookup
    assert (await lookup(ROOT_CALLER, inner, b".")).inode == inner
    assert (await lookup(ROOT_CALLER, inner, b"..")).inode == inode
    assert (await lookup(ROOT_CALLER, 1, b"..")).inode == 1
    await mounted.rename("/d/e", "/e")
    assert (await lookup(ROOT_CALLER, inner, b"..")).inode == 1


async def test_search_permission(mounted: Mounted) -> None:
    await mounted.mkdir("/d", 0o766)
    await mounted.write_file("/d/f")
    with fails("EACCES"):
        await mounted.look("/d/f", ALICE)
    await mounted.look("/d/f", Caller(uid=ALICE.uid, gid=ALICE.gid, checked=True))
    await mounted.change("/d", mode=0o711)
    await mounted.look("/d/f", ALICE)


async def test_lookups_keep_an_unlinked_inode_and_forget_frees_it(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x" * 100000)
    for _ in range(3):
        await mounted.fs.lookup(ROOT_CALLER, 1, b"f")
    await mounted.unlink("/f")
    mounted.fs.forget(inode, 2)
    assert (await mounted.fs.getattr(inode)).nlink == 0
    mounted.fs.forget(inode, 1)
    with fails("ESTALE"):
        await mounted.fs.getattr(inode)
    mounted.check()


async def test_forgetting_too_much_or_the_unknown_does_no_harm(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f")
    mounted.fs.forget(inode, 100)
    mounted.fs.forget(12345, 1)
    await mounted.look("/f")


@pytest.mark.parametrize("change", ["replace", "unlink"])
async def test_a_lookup_that_sleeps_sees_the_names_of_its_end(mounted: Mounted, change: str) -> None:
    directory = await mounted.mkdir("/d")
    old = await mounted.write_file("/d/f", b"old")
    new = await mounted.write_file("/d/g", b"new")
    await mounted.remount()
    await mounted.fs.getattr(directory)
    await mounted.fs.getattr(new)
    released = trio.Event()

    async def pause(keys: Sequence[bytes]) -> None:
        if inode_key(old) in keys:
            await released.wait()

    async def do_change() -> None:
        if change == "replace":
            await mounted.fs.rename(ROOT_CALLER, directory, b"g", directory, b"f", 0)
        else:
            await mounted.fs.unlink(ROOT_CALLER, directory, b"f")

    async def look() -> None:
        if change == "replace":
            assert (await mounted.fs.lookup(ROOT_CALLER, directory, b"f")).inode == new
        else:
            with fails("ENOENT"):
                await mounted.fs.lookup(ROOT_CALLER, directory, b"f")

    mounted.engine.pause = pause
    async with trio.open_nursery() as nursery:
        nursery.start_soon(do_change)
        await trio.testing.wait_all_tasks_blocked()  # it has the locks and fetches the inode that it will free
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()  # it waits for the same inode
        released.set()


async def test_an_entry_without_inode_is_an_error_not_an_absence(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f")
    await mounted.remount()
    mounted.checked = False
    mounted.engine.replace(inode_key(inode), None)
    with fails("EIO"):
        await mounted.look("/f")


async def test_a_read_error_is_reported_each_time_and_recovers(mounted: Mounted) -> None:
    await mounted.write_file("/f")
    await mounted.remount()
    mounted.engine.read_error = lambda key: CorruptionError("bad block")
    for _ in range(2):
        with fails("EIO"):
            await mounted.look("/f")
    mounted.engine.read_error = lambda key: None
    await mounted.look("/f")
