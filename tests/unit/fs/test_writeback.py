"""The background service, on a clock that jumps."""

import logging
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from tests.unit.fs.harness import Mounted, fails, new_mount
from zerofs.errors import UnavailableError, UnsavedDataError


@pytest.fixture
async def serving() -> AsyncIterator[Mounted]:
    """A mount whose service runs."""
    mount = await new_mount()
    await mount.engine.sync()
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        yield mount
        nursery.cancel_scope.cancel()


async def test_what_is_written_becomes_durable_within_the_interval(serving: Mounted, autojump_clock: MockClock) -> None:
    await serving.write_file("/f", b"x")
    await trio.sleep(5.1)
    assert serving.engine.dirty_bytes == 0
    await serving.remount(crash=True)
    assert await serving.read_file("/f") == b"x"


async def test_nothing_happens_while_nothing_changes(serving: Mounted, autojump_clock: MockClock) -> None:
    before = serving.engine.syncs
    calls = []
    original = serving.engine.sync
    serving.engine.sync = lambda: (calls.append(1), original())[1]
    await trio.sleep(3600)
    assert (serving.engine.syncs, calls) == (before, [])


async def test_an_outage_is_a_pause(
    serving: Mounted, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    serving.engine.fail_syncs(UnavailableError("down"))
    await serving.write_file("/f", b"x")
    handle = await serving.open("/f")
    await trio.sleep(60)
    assert serving.engine.state == "waiting"
    with fails("EIO"):
        await serving.fs.fsync(handle)
    await serving.fs.write(handle, 0, b"y")
    assert await serving.fs.read(handle, 0, 10) == b"y"
    await serving.fs.flush(handle)
    serving.engine.fail_syncs(None)
    await trio.sleep(6)
    assert serving.engine.dirty_bytes == 0
    await serving.fs.fsync(handle)
    messages = [record.message for record in caplog.records if record.name.endswith("writeback")]
    assert len(messages) == 2
    assert "down" in messages[0]


async def test_a_fenced_service_ends(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    mount = await new_mount()
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        mount.engine.fence()
    assert "another writer" in caplog.text


async def test_a_service_of_a_failed_engine_ends(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    mount = await new_mount()
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        mount.engine.fail(UnsavedDataError("a bug"))
    assert "a bug" in caplog.text


async def test_a_service_of_a_closed_engine_ends(autojump_clock: MockClock) -> None:
    mount = await new_mount()
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        mount.engine.close()
