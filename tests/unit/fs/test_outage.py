"""A store that is away: what waits, what is refused and what goes on (P7). The engine's side: tests/unit/lsm."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.unit.fs.harness import ROOT_CALLER, C, Mounted, fails
from tests.unit.fs.test_failures import CHANGES, prepared, reads_work
from zerofs.errors import AccessDeniedError, FencedError, ObjectStoreError, UnavailableError
from zerofs.fs.attributes import AttributeChanges


@asynccontextmanager
async def held(*calls: object) -> AsyncIterator[list[object]]:
    """The calls run beside the block, which begins when all of them wait. The list of what has returned so far."""
    done: list[object] = []

    async def run(call: object) -> None:
        done.append(await call())

    with trio.fail_after(10_000):
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(run, call)
            await trio.testing.wait_all_tasks_blocked()
            yield done


def fill(mount: Mounted) -> None:
    """The budget is full and nothing can be stored."""
    mount.engine.fail_syncs(UnavailableError("down"))
    mount.engine.dirty_bytes = 1000
    mount.engine.dirty_limit_bytes = 0


@pytest.mark.parametrize("name", CHANGES)
async def test_a_long_outage_refuses_changes_at_once_until_it_ends(name: str) -> None:
    mount = await prepared()
    before = mount.engine.rows()
    mount.engine.outage("read-only")
    for _ in range(2):
        with fails("EROFS"):
            await CHANGES[name](mount)
    with fails("EROFS"):
        await mount.fs.access(ROOT_CALLER, 2, os.W_OK)
    await reads_work(mount)
    assert mount.engine.rows() == before, "not even access times change"
    mount.engine.outage("ok")
    await mount.fs.access(ROOT_CALLER, 2, os.W_OK)
    await CHANGES[name](mount)
    assert mount.engine.rows() != before or name == "open to write"


@pytest.mark.parametrize("name", CHANGES)
async def test_a_short_outage_refuses_nothing(name: str) -> None:
    mount = await prepared()
    mount.engine.outage("waiting")
    await CHANGES[name](mount)


async def test_a_file_that_exists_may_be_opened_for_reading_with_o_creat() -> None:
    mount = await prepared()
    mount.engine.outage("read-only")
    handle, _ = await mount.fs.create(ROOT_CALLER, 1, b"f", 0o644, os.O_RDONLY | os.O_CREAT)
    assert await mount.fs.read(handle, 0, 1) == b"x"
    with fails("EROFS"):
        await mount.fs.create(ROOT_CALLER, 1, b"f", 0o644, os.O_RDWR | os.O_CREAT)


async def test_what_the_kernel_has_accepted_is_taken_however_long_it_lasts() -> None:
    """Its dirty pages, and the times that go with them; closing a file is no error either."""
    mount = await prepared()
    handle = await mount.open("/f")
    mount.engine.outage("read-only")
    assert await mount.fs.write(handle, 0, b"y" * C) == C
    await mount.fs.setattr(ROOT_CALLER, 2, AttributeChanges(mtime_ns=5, ctime_ns=6), handle)
    await mount.fs.flush(handle)
    await mount.fs.release(handle)
    mount.engine.outage("ok")
    await mount.fs.sync()
    assert (await mount.look("/f")).mtime_ns == 5
    assert (await mount.read_file("/f"))[:C] == b"y" * C


@pytest.mark.parametrize("more", [{"mode": 0o600}, {"size_bytes": 0}, {"uid": 5}, {"atime_ns": 7}])
async def test_a_kernel_that_keeps_times_sends_them_with_every_change(more: dict[str, int]) -> None:
    """A chmod brings a ctime too: that does not make it one that a program was told to have succeeded."""
    mount = await prepared()
    mount.engine.outage("read-only")
    with fails("EROFS"):
        await mount.fs.setattr(ROOT_CALLER, 2, AttributeChanges(mtime_ns=5, ctime_ns=6, **more))
    with fails("EROFS"):
        await mount.fs.setattr(ROOT_CALLER, 2, AttributeChanges(ctime_ns=6, **more))


async def test_what_waits_for_room_is_refused_or_goes_on_waiting_when_the_outage_becomes_long() -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    mount.engine.outage("waiting")
    fill(mount)

    async def mkdir() -> str:
        with fails("EROFS"):
            await mount.fs.mkdir(ROOT_CALLER, 1, b"new", 0o755)
        return "refused"

    async with held(lambda: mount.fs.write(handle, 0, b"y" * C), mkdir) as done:
        assert done == []
        mount.engine.outage("read-only")
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["refused"]
        mount.engine.dirty_limit_bytes = 10**9
        mount.engine.fail_syncs(None)
        await mount.fs.sync()
    assert done == ["refused", C]
    assert mount.engine.state == "ok"
    assert (await mount.read_file("/f"))[:C] == b"y" * C


@pytest.mark.parametrize("error", [UnavailableError("down"), AccessDeniedError("403")])
async def test_a_write_that_needs_a_chunk_from_a_store_that_is_away_is_held(
    error: ObjectStoreError, autojump_clock: trio.testing.MockClock
) -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    mount.engine.read_error = lambda key: error
    async with held(lambda: mount.fs.write(handle, 5, b"y" * 10)) as done:
        await trio.sleep(1000)
        assert done == []
        mount.engine.read_error = lambda key: None
    assert done == [10]
    assert not mount.fs.data_lost
    await mount.fs.fsync(handle)
    assert (await mount.read_file("/f"))[:20] == b"x" * 5 + b"y" * 10 + b"x" * 5


async def test_a_write_that_is_held_ends_when_another_writer_takes_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mount = await prepared()
    handle = await mount.open("/f")
    mount.engine.read_error = lambda key: UnavailableError("down")

    async def write() -> None:
        with fails("EROFS"):
            await mount.fs.write(handle, 5, b"y" * 10)

    async with held(write) as done:
        mount.engine.fence()
    assert done == [None]
    assert not mount.fs.data_lost, "fenced says enough"
    with pytest.raises(FencedError):
        await mount.engine.sync()
