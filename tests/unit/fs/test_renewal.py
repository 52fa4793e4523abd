"""A mount that follows a writer: one filesystem on the rows of another, brought up to date whole."""

import os

import pytest
import trio

from tests.unit.fs.harness import ROOT_CALLER, C, fails, new_mount
from zerofs.errors import UnavailableError
from zerofs.fs.filesystem import ROOT_INODE, Filesystem
from zerofs.fs.options import FilesystemOptions
from zerofs.testing.engine import FakeEngine


class Following:
    """A writer's mount, and a read-only one on what the writer synced last."""

    def __init__(self, writer):
        self.writer = writer

    @classmethod
    async def make(cls):
        self = cls(await new_mount())
        await self.writer.fs.sync()
        self.engine = FakeEngine(rows=self.writer.engine.durable_rows())
        self.fs = await Filesystem.mount(self.engine, FilesystemOptions(read_only=True), self.writer.world)
        return self

    async def renew(self):
        """What the follower's engine does: prepare on the rows to come, then both in one instant."""
        await self.writer.fs.sync()
        rows = self.writer.engine.durable_rows()

        async def read(keys):
            await trio.lowlevel.checkpoint()
            return [rows.get(key) for key in keys]

        shown = await self.fs.prepare_renewal(read)
        self.show(rows)
        shown()

    def show(self, rows):
        newer = FakeEngine(rows=rows)
        for name in ("_durable", "_rows", "_sorted"):
            setattr(self.engine, name, getattr(newer, name))

    async def look(self, path):
        found = await self.fs.getattr(ROOT_INODE)
        for name in path.encode().split(b"/"):
            found = await self.fs.lookup(ROOT_CALLER, found.inode, name)
        return found

    async def open(self, path):
        return await self.fs.open(ROOT_CALLER, (await self.look(path)).inode, os.O_RDONLY)

    async def read_file(self, path):
        handle = await self.open(path)
        return await self.fs.read(handle, 0, 10 * C)


@pytest.fixture
async def both():
    return await Following.make()


async def test_names_attributes_and_data_become_those_of_the_newer_state(both):
    await both.writer.write_file("a", b"old")
    await both.renew()
    assert await both.read_file("a") == b"old"
    with fails("ENOENT"):
        await both.look("b")
    await both.writer.write_file("b", b"x" * (2 * C))
    await both.writer.unlink("a")
    await both.writer.mkdir("d")
    await both.writer.rename("b", "d/b")
    used = (await both.fs.statfs()).files_free
    assert await both.read_file("a") == b"old", "not before it is shown"
    await both.renew()
    with fails("ENOENT"):
        await both.look("a")
    assert await both.read_file("d/b") == b"x" * (2 * C)
    assert (await both.fs.statfs()).files_free < used


async def test_a_handle_goes_on_with_the_newer_data(both):
    await both.writer.write_file("a", b"1" * 2 * C)
    await both.renew()
    handle = await both.open("a")
    assert await both.fs.read(handle, 0, 3 * C) == b"1" * 2 * C
    await both.writer.unlink("a")
    inode = await both.writer.write_file("a", b"new file")
    await both.writer.write_file("b", b"2" * 3 * C)
    await both.renew()
    with fails("ESTALE"):
        await both.fs.read(handle, 0, C)
    with fails("ESTALE"):
        await both.fs.seek_data(handle, 0)
    await both.fs.flush(handle)
    await both.fs.release(handle)
    with fails("EBADF"):
        await both.fs.read(handle, 0, C)
    assert (await both.look("a")).inode == inode
    handle = await both.open("b")
    writing = await both.writer.open("b")
    await both.writer.fs.write(writing, C, b"3" * C)
    await both.writer.fs.write(writing, 3 * C, b"4" * 10)
    await both.renew()
    assert await both.fs.read(handle, 0, 10 * C) == b"2" * C + b"3" * C + b"2" * C + b"4" * 10
    assert (await both.look("b")).size_bytes == 3 * C + 10
    await both.writer.fs.release(writing)


async def test_a_directory_that_is_open_is_listed_anew(both):
    await both.writer.mkdir("d")
    await both.writer.write_file("d/one")
    await both.renew()
    handle = await both.fs.opendir(ROOT_CALLER, (await both.look("d")).inode)
    assert [entry.name for entry in await both.fs.readdir(handle, 2, 100)] == [b"one"]
    await both.writer.write_file("d/two")
    await both.renew()
    assert [entry.name for entry in await both.fs.readdir(handle, 2, 100)] == [b"one", b"two"]
    await both.writer.unlink("d/one")
    await both.writer.unlink("d/two")
    await both.writer.rmdir("d")
    await both.renew()
    with fails("ESTALE"):
        await both.fs.readdir(handle, 2, 100)
    await both.fs.releasedir(handle)


async def test_another_file_under_the_same_number_is_not_taken_for_the_old_one(both):
    """A restore takes the volume back, and the numbers given since are given again."""
    before = both.writer.engine.durable_rows()
    await both.writer.write_file("a", b"first")
    await both.renew()
    handle = await both.open("a")
    inode = (await both.look("a")).inode
    both.writer.engine = FakeEngine(rows=before)
    await both.writer.mount()
    assert await both.writer.write_file("other", b"second") == inode
    await both.renew()
    with fails("ESTALE"):
        await both.fs.read(handle, 0, 10)
    assert await both.read_file("other") == b"second"


async def test_a_read_under_way_sees_one_state(both):
    await both.writer.write_file("a", b"1" * 2 * C)
    await both.renew()
    handle = await both.open("a")
    seen = []
    reached, go_on = trio.Event(), trio.Event()

    async def pause(keys):
        reached.set()
        await go_on.wait()

    async def read():
        seen.append(await both.fs.read(handle, 0, 5 * C))

    both.engine.pause = pause
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await reached.wait()
        await both.writer.change("a", size_bytes=C)
        await both.renew()
        go_on.set()
    assert seen == [b"1" * C]


@pytest.mark.parametrize("goes", [True, False])
async def test_a_read_of_a_sparse_file_that_goes_meanwhile_is_no_zeros(both, goes):
    await both.writer.write_file("a")
    handle = await both.writer.open("a")
    await both.writer.fs.write(handle, 5 * C, b"1" * C)
    await both.writer.fs.release(handle)
    await both.renew()
    handle = await both.open("a")
    reached, go_on = trio.Event(), trio.Event()

    async def pause(keys):
        reached.set()
        await go_on.wait()

    async def read():
        if goes:
            with fails("ESTALE"):
                await both.fs.read(handle, 5 * C, C)
        else:
            assert await both.fs.read(handle, 5 * C, C) == b"1" * C

    both.engine.pause = pause
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await reached.wait()
        if goes:
            await both.writer.unlink("a")
        await both.renew()
        go_on.set()


async def test_a_lookup_under_way_is_of_one_state(both):
    """The name was read from the old state, its inode is gone in the new one: no error that nothing explains."""
    await both.writer.write_file("a", b"1")
    await both.renew()
    count = 0

    async def pause(keys):
        nonlocal count
        count += 1
        if count == 1:
            await both.writer.unlink("a")
            await both.writer.write_file("a", b"22")
            await both.renew()

    both.engine.pause = pause
    assert (await both.look("a")).size_bytes == 2


async def test_an_absence_that_has_ended_meanwhile_is_not_reported(both):
    count = 0

    async def pause(keys):
        nonlocal count
        count += 1
        if count == 1:
            await both.writer.write_file("a", b"1")
            await both.renew()

    both.engine.pause = pause
    assert (await both.look("a")).size_bytes == 1


async def test_who_keeps_data_is_told_which_files_were_open(both):
    one, _two = await both.writer.write_file("one", b"1"), await both.writer.write_file("two", b"2")
    await both.renew()
    handle = await both.open("one")
    told = []

    async def wait():
        told.append(await both.fs.next_renewal())

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await both.renew()
    assert told == [[one], [one]]
    await both.fs.release(handle)


async def test_what_cannot_be_prepared_changes_nothing(both):
    await both.writer.write_file("a", b"old")
    await both.renew()
    handle = await both.open("a")

    async def read(keys):
        raise UnavailableError("no answer")

    with pytest.raises(UnavailableError):
        await both.fs.prepare_renewal(read)
    assert await both.fs.read(handle, 0, 10) == b"old"


async def test_nothing_can_be_changed(both):
    await both.writer.write_file("a", b"old")
    await both.renew()
    with fails("EROFS"):
        await both.fs.unlink(ROOT_CALLER, ROOT_INODE, b"a")
    with fails("EROFS"):
        await both.fs.open(ROOT_CALLER, (await both.look("a")).inode, os.O_WRONLY)


async def test_attributes_under_way_are_of_the_state_that_is_shown(both):
    inode = await both.writer.write_file("a", b"1")
    await both.renew()
    count = 0

    async def pause(keys):
        nonlocal count
        count += 1
        if count == 1:
            await both.writer.change("a", size_bytes=7)
            await both.renew()

    both.engine.pause = pause
    assert (await both.fs.getattr(inode)).size_bytes == 7
