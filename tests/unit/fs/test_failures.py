"""Stores that fail, writers that are shut out, mounts that must not write: what every call says then."""

import logging
import os
import stat
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.unit.fs.harness import ROOT_CALLER, C, Mounted, fails, new_mount
from zerofs.errors import CorruptionError, UnavailableError, UnsavedDataError
from zerofs.fs.attributes import AttributeChanges
from zerofs.fs.format.keys import chunk_key

Call = Callable[[Mounted], Awaitable[object]]

CHANGES: dict[str, Call] = {
    "mknod": lambda m: m.fs.mknod(ROOT_CALLER, 1, b"new", 0o644, 0),
    "mkdir": lambda m: m.fs.mkdir(ROOT_CALLER, 1, b"new", 0o755),
    "symlink": lambda m: m.fs.symlink(ROOT_CALLER, 1, b"new", b"x"),
    "create": lambda m: m.fs.create(ROOT_CALLER, 1, b"new", 0o644, os.O_RDWR),
    "link": lambda m: m.fs.link(ROOT_CALLER, 2, 1, b"new"),
    "unlink": lambda m: m.fs.unlink(ROOT_CALLER, 1, b"f"),
    "rmdir": lambda m: m.fs.rmdir(ROOT_CALLER, 1, b"d"),
    "rename": lambda m: m.fs.rename(ROOT_CALLER, 1, b"f", 1, b"g", 0),
    "setattr": lambda m: m.fs.setattr(ROOT_CALLER, 2, AttributeChanges(mode=0o600)),
    "truncate": lambda m: m.fs.setattr(ROOT_CALLER, 2, AttributeChanges(size_bytes=0)),
    "open to write": lambda m: m.fs.open(ROOT_CALLER, 2, os.O_WRONLY),
    "open to truncate": lambda m: m.fs.open(ROOT_CALLER, 2, os.O_RDONLY | os.O_TRUNC),
    "setxattr": lambda m: m.fs.setxattr(ROOT_CALLER, 2, b"user.b", b"1"),
    "removexattr": lambda m: m.fs.removexattr(ROOT_CALLER, 2, b"user.a"),
}


async def prepared(**options: object) -> Mounted:
    """/f (inode 2, three chunks, an xattr) and /d, durable."""
    mount = await new_mount(**options)
    await mount.write_file("/f", b"x" * (3 * C))
    await mount.mkdir("/d")
    await mount.fs.setxattr(ROOT_CALLER, 2, b"user.a", b"1")
    await mount.remount()
    return mount


async def reads_work(mount: Mounted) -> None:
    assert await mount.read_file("/f") == b"x" * (3 * C)
    assert sorted(await mount.list("/")) == [b"d", b"f"]
    assert await mount.fs.getxattr(ROOT_CALLER, 2, b"user.a") == b"1"
    assert await mount.fs.listxattr(ROOT_CALLER, 2) == [b"user.a"]
    await mount.fs.access(ROOT_CALLER, 2, os.R_OK)
    await mount.fs.statfs()


@pytest.mark.parametrize("name", CHANGES)
async def test_a_read_only_mount_refuses_every_change(name: str) -> None:
    mount = await prepared()
    await mount.remount(read_only=True)
    before = mount.engine.rows()
    with fails("EROFS"):
        await CHANGES[name](mount)
    await reads_work(mount)
    await mount.fs.sync()
    await mount.fs.flush_all()
    await mount.fs.close()
    assert mount.engine.rows() == before


@pytest.mark.parametrize("name", CHANGES)
async def test_a_fenced_mount_refuses_every_change_and_goes_on_reading(name: str) -> None:
    mount = await prepared()
    before = mount.engine.rows()
    mount.engine.fence()
    for _ in range(2):
        with fails("EROFS"):
            await CHANGES[name](mount)
    await reads_work(mount)
    assert mount.engine.rows() == before


@pytest.mark.parametrize("end", ["fenced", "failed", "closed"])
async def test_a_fenced_mount_never_acknowledges_again(end: str) -> None:
    mount = await prepared()
    writer, reader = await mount.open("/f", os.O_RDWR), await mount.open("/f", os.O_RDONLY)
    directory = await mount.fs.opendir(ROOT_CALLER, 1)
    await mount.fs.write(writer, 0, b"y")
    if end == "fenced":
        mount.engine.fence()
    elif end == "failed":
        mount.engine.fail(UnsavedDataError("a bug"))
    else:
        mount.engine.close()
    for _ in range(3):
        for work in (
            mount.fs.fsync(writer),
            mount.fs.fsync(reader),
            mount.fs.fsyncdir(directory),
            mount.fs.flush(writer),
            mount.fs.sync(),
            mount.fs.flush_all(),
        ):
            with fails("EIO"):
                await work
    await mount.fs.flush(reader)
    with fails("EROFS" if end == "fenced" else "EIO"):
        await mount.mkdir("/new")
    with fails("EIO"):
        await mount.fs.close()


async def test_a_write_to_a_fenced_mount() -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    mount.engine.fence()
    for _ in range(2):
        with fails("EROFS"):
            await mount.fs.write(handle, 0, b"y")
        with fails("EIO"):
            await mount.fs.flush(handle)
    assert await mount.fs.read(handle, 0, 1) == b"x"


async def test_being_fenced_between_the_first_look_and_the_commit(caplog: pytest.LogCaptureFixture) -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    before = await mount.look("/f")

    async def fence_meanwhile(keys: object) -> None:
        mount.engine.fence()

    mount.engine.pause = fence_meanwhile
    with fails("EROFS"):
        await mount.fs.write(handle, 5, b"y")
    assert await mount.look("/f") == before
    assert "half-way" not in caplog.text
    assert await mount.fs.read(handle, 0, 10) == b"x" * 10


@pytest.mark.parametrize("error", [CorruptionError("tag"), UnavailableError("down")])
async def test_a_chunk_that_cannot_be_read_is_an_error_never_zeros(error: Exception) -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    mount.engine.read_error = lambda key: error if key == chunk_key(2, 1) else None
    assert await mount.fs.read(handle, 0, C) == b"x" * C
    for offset, size in ((C, 1), (0, 3 * C), (2 * C - 1, 2)):
        with fails("EIO"):
            await mount.fs.read(handle, offset, size)
    mount.engine.read_error = lambda key: None
    assert await mount.fs.read(handle, C, C) == b"x" * C


@pytest.mark.parametrize("remaining", [0, 1, 2])
async def test_a_chunk_that_is_missing_from_a_dense_file_is_an_error(remaining: int) -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    mount.engine.replace(chunk_key(2, remaining), None)
    with fails("EIO"):
        await mount.fs.read(handle, remaining * C + 5, 10)
    with fails("EIO"):
        await mount.fs.read(handle, 0, 3 * C)
    with fails("EIO"):
        await mount.fs.write(handle, remaining * C + 5, b"y")
    if remaining < 2:
        with fails("EIO"):
            await mount.change("/f", size_bytes=remaining * C + 5)


async def test_a_write_that_needs_an_unreadable_chunk_is_refused_and_changes_nothing() -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    other = await mount.open("/f")
    before = mount.engine.rows()
    mount.engine.read_error = lambda key: CorruptionError("tag")
    with fails("EIO"):
        await mount.fs.write(handle, C - 5, b"y" * 10)
    mount.engine.read_error = lambda key: None
    assert mount.engine.rows() == before
    assert mount.fs.data_lost
    for number in (handle, other):
        with fails("EIO"):
            await mount.fs.flush(number)
        with fails("EIO"):
            await mount.fs.fsync(number)
    with fails("EIO"):
        await mount.fs.sync()
    assert mount.engine.dirty_bytes == 0  # what there was to store is stored all the same
    mount.fs.clear_data_lost()
    await mount.fs.sync()
    with fails("EIO"):
        await mount.fs.fsync(handle)
    fresh = await mount.open("/f")
    await mount.fs.fsync(fresh)
    await mount.fs.flush(fresh)


async def test_a_write_over_a_chunk_that_turns_out_to_be_unreadable_is_lost_and_told() -> None:
    """It was taken without reading what is there; what else there was to store is stored."""
    mount = await prepared()
    await mount.write_file("/other", b"o" * 10)
    handle, reader, other = await mount.open("/f"), await mount.open("/f", os.O_RDONLY), await mount.open("/other")
    await mount.fs.write(handle, 5, b"y" * 10)
    await mount.fs.write(other, 0, b"new")
    mount.engine.base_error = lambda key: CorruptionError("tag")
    for work in (mount.fs.fsync(other), mount.fs.fsync(handle), mount.fs.flush(handle), mount.fs.sync()):
        with fails("EIO"):
            await work
    assert mount.fs.data_lost
    assert mount.engine.dirty_bytes == 0
    assert await mount.fs.read(reader, 0, 20) == b"x" * 20
    mount.fs.clear_data_lost()
    for work in (mount.fs.fsync(other), mount.fs.fsync(reader), mount.fs.flush(reader)):
        await work
    with fails("EIO"):
        await mount.fs.fsync(handle)


async def test_a_refused_write_is_remembered_until_close() -> None:
    """With a writeback cache the program's write has long succeeded: only fsync and close can tell it."""
    mount = await new_mount(max_size_bytes=5000)
    await mount.write_file("/f", b"x" * 4000)
    handle = await mount.open("/f")
    reader = await mount.open("/f", os.O_RDONLY)
    with fails("ENOSPC"):
        await mount.fs.write(handle, 4000, b"y" * 4000)
    for _ in range(2):
        for work in (mount.fs.fsync(handle), mount.fs.flush(handle)):
            with fails("ENOSPC"):
                await work
    await mount.fs.fsync(reader)
    await mount.fs.flush(reader)
    await mount.fs.sync()
    assert not mount.fs.data_lost
    await mount.fs.release(handle)
    handle = await mount.open("/f")
    await mount.fs.fsync(handle)


async def test_errors_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    mount = await prepared()
    handle = await mount.open("/f")
    mount.engine.read_error = lambda key: CorruptionError("compacted/1-2.sst: block 3 does not authenticate")
    for _ in range(5):
        with fails("EIO"):
            await mount.fs.read(handle, 0, 10)
    assert len([record for record in caplog.records if "block 3" in record.message]) == 1


async def test_a_commit_that_fails_stops_everything_that_writes(caplog: pytest.LogCaptureFixture) -> None:
    mount = await prepared()

    def broken(rows: object, ranges: object = ()) -> None:
        raise RuntimeError("a bug")

    original = mount.engine.commit
    mount.engine.commit = broken
    with pytest.raises(RuntimeError):
        await mount.mkdir("/x")
    mount.engine.commit = original
    with fails("EIO"):
        await mount.mkdir("/y")
    with fails("EIO"):
        await mount.fs.sync()
    assert "half-way" in caplog.text


async def test_a_full_budget_holds_writers_and_lets_readers_pass(autojump_clock: object) -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    mount.engine.dirty_limit_bytes = 0
    await mount.fs.write(handle, 0, b"y" * C)
    done = []

    async def write() -> None:
        await mount.fs.write(handle, C, b"y" * C)
        done.append("write")

    async def make() -> None:
        await mount.mkdir("/new")
        done.append("mkdir")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(make)
        await trio.sleep(100)
        assert done == []
        assert await mount.fs.read(handle, 0, 1) == b"y"
        await mount.look("/d")
        mount.engine.dirty_limit_bytes = 10**9
        await mount.engine.sync()
    assert sorted(done) == ["mkdir", "write"]


async def test_a_cancelled_operation_leaves_no_lock_and_no_change() -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    before = mount.engine.rows()

    async def forever(keys: object) -> None:
        await trio.sleep_forever()

    mount.engine.pause = forever
    with trio.move_on_after(0.01):
        await mount.fs.write(handle, 5, b"y")
    assert len(mount.fs._ctx.locks) == 0
    assert mount.engine.rows() == before
    assert not mount.fs.data_lost


async def test_flush_all_reaches_the_engine() -> None:
    mount = await prepared()
    flushed = []
    original = mount.engine.flush

    async def flush() -> None:
        flushed.append(True)
        await original()

    mount.engine.flush = flush
    await mount.fs.flush_all()
    assert flushed == [True]


async def test_modes_of_what_is_not_a_file_do_not_stop_a_read_only_open() -> None:
    mount = await new_mount()
    await mount.mknod("/p", stat.S_IFIFO | 0o600)
    await mount.remount(read_only=True)
    handle = await mount.open("/p", os.O_RDWR)
    await mount.fs.flush(handle)
    await mount.fs.release(handle)
