"""opendir, readdir, releasedir."""

import random
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from tests.unit.fs.harness import ALICE, ROOT_CALLER, Mounted, fails
from zerofs.fs.format.keys import dirscan_key, inode_key
from zerofs.fs.format.records import FIRST_COOKIE
from zerofs.testing.engine import with_checkpoint


async def test_entries_come_in_the_order_of_making_with_their_attributes(mounted: Mounted) -> None:
    names = [f"{index}" for index in random.Random(1).sample(range(1000), 60)]
    for name in names:
        await mounted.write_file(f"/{name}", name.encode())
    for limit in (1, 7, 60, 61):
        assert list(await mounted.list("/", limit)) == [name.encode() for name in names]
    handle = await mounted.fs.opendir(ROOT_CALLER, 1)
    entries = await mounted.fs.readdir(handle, 0, 100)
    assert [entry.cookie for entry in entries] == list(range(3, 63))
    for entry in entries:
        assert entry.attributes == await mounted.look(f"/{entry.name.decode()}")
        mounted.fs.forget(entry.attributes.inode, 1)
    await mounted.fs.releasedir(handle)


@pytest.mark.parametrize("remount", [False, True])
async def test_each_entry_counts_a_lookup(mounted: Mounted, remount: bool) -> None:
    await mounted.write_file("/f", b"x")
    if remount:
        await mounted.remount()
    handle = await mounted.fs.opendir(ROOT_CALLER, 1)
    (entry,) = await mounted.fs.readdir(handle, 0, 10)
    await mounted.unlink("/f")
    assert (await mounted.fs.getattr(entry.attributes.inode)).nlink == 0
    mounted.fs.forget(entry.attributes.inode, 1)
    with fails("ESTALE"):
        await mounted.fs.getattr(entry.attributes.inode)
    await mounted.fs.releasedir(handle)


async def test_cold_directories_fetch_inodes_together(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    for index in range(50):
        await mounted.write_file(f"/d/{index}")
    await mounted.remount()
    await mounted.look("/d")
    mounted.engine.calls.clear()
    assert len(await mounted.list("/d")) == 50
    assert mounted.engine.calls.count("multi_get") == 1
    assert "get" not in mounted.engine.calls


async def test_errors(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f")
    with fails("ENOTDIR"):
        await mounted.fs.opendir(ROOT_CALLER, inode)
    with fails("ESTALE"):
        await mounted.fs.opendir(ROOT_CALLER, 999)
    handle = await mounted.fs.open(ROOT_CALLER, inode, 0)
    with fails("ENOTDIR"):
        await mounted.fs.readdir(handle, 0, 10)
    await mounted.fs.release(handle)
    handle = await mounted.fs.opendir(ROOT_CALLER, 1)
    for cookie, limit in ((-1, 10), (0, 0), (0, -1), (2**64, 10)):
        with fails("EINVAL"):
            await mounted.fs.readdir(handle, cookie, limit)
    assert await mounted.fs.readdir(handle, 2**64 - 1, 10) == []
    await mounted.fs.fsyncdir(handle)
    await mounted.fs.releasedir(handle)


async def test_read_permission(mounted: Mounted) -> None:
    inode = await mounted.mkdir("/d", 0o711)
    with fails("EACCES"):
        await mounted.fs.opendir(ALICE, inode)
    await mounted.change("/d", mode=0o744)
    await mounted.fs.releasedir(await mounted.fs.opendir(ALICE, inode))


async def test_a_directory_that_changes_while_it_is_read(mounted: Mounted) -> None:
    """What stays is seen exactly once; what comes and goes at most once per name and making."""
    rng = random.Random(3)
    inode = await mounted.mkdir("/d")
    stays = {f"s{index}" for index in range(40)}
    for name in sorted(stays):
        await mounted.write_file(f"/d/{name}")
    handle = await mounted.fs.opendir(ROOT_CALLER, inode)
    seen: list[bytes] = []
    cookie = 0
    made = 0
    while True:
        page = await mounted.fs.readdir(handle, cookie, 3)
        for entry in page:
            seen.append(entry.name)
            mounted.fs.forget(entry.attributes.inode, 1)
        if not page or made > 100:
            break
        cookie = page[-1].cookie
        for _ in range(2):
            made += 1
            await mounted.write_file(f"/d/t{made}")
            if rng.random() < 0.7:
                await mounted.unlink(f"/d/t{made}")
    assert len(seen) == len(set(seen))
    assert {name.decode() for name in seen} >= stays
    await mounted.fs.releasedir(handle)


async def test_names_that_vanish_while_their_inodes_are_fetched(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    for index in range(20):
        await mounted.write_file(f"/d/{index}")
    await mounted.remount()
    directory = (await mounted.look("/d")).inode
    mounted.engine.pause = with_checkpoint
    names: list[bytes] = []

    async def read() -> None:
        handle = await mounted.fs.opendir(ROOT_CALLER, directory)
        for entry in await mounted.fs.readdir(handle, 0, 100):
            names.append(entry.name)
            assert entry.attributes.nlink == 1
            mounted.fs.forget(entry.attributes.inode, 1)
        await mounted.fs.releasedir(handle)

    async def remove() -> None:
        for index in range(20):
            await mounted.fs.unlink(ROOT_CALLER, directory, b"%d" % index)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(remove)
    assert await mounted.list("/d") == {}


async def test_an_open_file_that_loses_its_name_while_inodes_are_fetched(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    await mounted.write_file("/d/f")
    slow = await mounted.write_file("/d/g")
    await mounted.remount()
    directory = (await mounted.look("/d")).inode
    handle = await mounted.open("/d/f")
    goes_on = trio.Event()
    names: list[bytes] = []

    async def pause(keys: Sequence[bytes]) -> None:
        if inode_key(slow) in keys:
            await goes_on.wait()

    async def read() -> None:
        number = await mounted.fs.opendir(ROOT_CALLER, directory)
        names.extend(entry.name for entry in await mounted.fs.readdir(number, 0, 100))
        await mounted.fs.releasedir(number)

    mounted.engine.pause = pause
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await mounted.fs.unlink(ROOT_CALLER, directory, b"f")
        goes_on.set()
    assert names == [b"g"]
    await mounted.fs.release(handle)


async def test_reading_sets_the_access_time(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    await mounted.write_file("/d/f")
    before = (await mounted.look("/d")).atime_ns
    await mounted.list("/d")
    assert (await mounted.look("/d")).atime_ns > before


async def read_names(mounted: Mounted, handle: int, cookie: int, limit: int) -> tuple[list[str], int]:
    """The names of one call, and the cookie to go on with."""
    page = await mounted.fs.readdir(handle, cookie, limit)
    for entry in page:
        mounted.fs.forget(entry.attributes.inode, 1)
    return [entry.name.decode() for entry in page], page[-1].cookie if page else cookie


async def test_names_that_were_read_are_not_read_again(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    for index in range(600):
        await mounted.write_file(f"/d/{index}")
    await mounted.remount()
    inode = (await mounted.look("/d")).inode
    names: list[str] = []
    cookie = 0
    handle = await mounted.fs.opendir(ROOT_CALLER, inode)
    mounted.engine.calls.clear()
    while True:
        page, cookie = await read_names(mounted, handle, cookie, 25)
        if not page:
            break
        names += page
    assert names == [str(index) for index in range(600)]
    assert mounted.engine.calls.count("scan") == 4, "25 names, twice 256, the rest"
    again, _ = await read_names(mounted, handle, 0, 25)
    assert again == names[:25]
    await mounted.fs.releasedir(handle)


async def test_what_changes_behind_the_names_that_were_told_is_seen(mounted: Mounted) -> None:
    inode = await mounted.mkdir("/d")
    await mounted.mkdir("/other")
    for name in "abcdef":
        await mounted.write_file(f"/d/{name}")
    handle = await mounted.fs.opendir(ROOT_CALLER, inode)
    names, cookie = await read_names(mounted, handle, 0, 1)
    assert names == ["a"]
    await mounted.unlink("/d/b")
    await mounted.rename("/d/c", "/other/c")
    await mounted.rename("/d/d", "/d/renamed")
    await mounted.write_file("/d/new")
    rest, _ = await read_names(mounted, handle, cookie, 100)
    assert sorted(rest) == ["e", "f", "new", "renamed"]
    await mounted.fs.releasedir(handle)


async def test_names_that_change_while_they_are_read_are_not_kept(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    for name in "abc":
        await mounted.write_file(f"/d/{name}")
    await mounted.remount()
    inode = (await mounted.look("/d")).inode
    handle = await mounted.fs.opendir(ROOT_CALLER, inode)
    goes_on = trio.Event()

    async def pause(keys: Sequence[bytes]) -> None:
        if dirscan_key(inode, FIRST_COOKIE) in keys:
            await goes_on.wait()

    mounted.engine.pause = pause
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_names, mounted, handle, 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        await mounted.rename("/d/b", "/d/renamed")
        goes_on.set()
    names, _ = await read_names(mounted, handle, 0, 100)
    assert sorted(names) == ["a", "c", "renamed"]
    await mounted.fs.releasedir(handle)


async def test_a_second_walk_reads_no_names(mounted: Mounted) -> None:
    for directory in "ab":
        await mounted.mkdir(f"/{directory}")
        for index in range(300):
            await mounted.write_file(f"/{directory}/{index}")
    await mounted.mkdir("/empty")
    await mounted.remount()
    first = [await mounted.list(f"/{directory}") for directory in ("a", "b", "empty")]
    mounted.engine.calls.clear()
    assert [await mounted.list(f"/{directory}") for directory in ("a", "b", "empty")] == first
    assert mounted.engine.calls.count("scan") == 0


async def test_names_that_were_made_just_now_are_not_read(mounted: Mounted) -> None:
    inode = await mounted.mkdir("/d")
    handle = await mounted.fs.opendir(ROOT_CALLER, inode)
    for index in range(30):
        await mounted.write_file(f"/d/{index}")
    mounted.engine.calls.clear()
    first, cookie = await read_names(mounted, handle, 0, 10)
    await mounted.unlink("/d/3")
    await mounted.unlink("/d/20")
    await mounted.write_file("/d/new")
    rest, _ = await read_names(mounted, handle, cookie, 100)
    assert first == [str(index) for index in range(10)]
    assert rest == [*[str(index) for index in range(10, 30) if index != 20], "new"]
    assert "3" not in (await mounted.list("/d"))
    assert mounted.engine.calls.count("scan") == 0
    await mounted.fs.releasedir(handle)


async def test_nothing_is_kept_of_directories_that_are_gone(mounted: Mounted) -> None:
    for name in "abc":
        await mounted.mkdir(f"/{name}")
    before = len(mounted.fs._ctx.dentries._listings)
    await mounted.rmdir("/a")
    await mounted.rename("/b", "/c")
    assert len(mounted.fs._ctx.dentries._listings) <= before - 2
