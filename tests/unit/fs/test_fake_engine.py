"""The fake engine keeps the promises of the engine's door, which is what makes the other tests mean something."""

import pytest
import trio
import trio.testing

from zerofs.errors import ClosedError, FencedError, UnavailableError
from zerofs.fs.ports import Engine
from zerofs.testing.engine import FakeEngine, with_checkpoint
from zerofs.units import CHUNK_SIZE


class Live:
    """A live value."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def encode(self) -> bytes:
        return self.text


def an_engine() -> Engine:
    return FakeEngine()


async def test_it_is_an_engine() -> None:
    engine = an_engine()
    engine.commit([(b"meta1", b"a"), (b"chunk1", b"b")])
    assert await engine.get(b"meta1") == b"a"
    assert await engine.get(b"meta2") is None
    assert await engine.multi_get([b"chunk1", b"meta9", b"meta1"]) == [b"b", None, b"a"]
    assert await engine.contains(b"chunk1")
    assert not await engine.contains(b"chunk2")
    assert await engine.scan(b"a", b"z", 10) == [(b"chunk1", b""), (b"meta1", b"a")]
    assert await engine.scan(b"meta1", b"meta1", 10) == []
    assert await engine.scan(b"a", b"z", 1) == [(b"chunk1", b"")]
    await engine.flush()
    assert engine.dirty_bytes == 0
    assert engine.state == "ok"


async def test_ranges_are_deleted_before_the_rows_of_the_same_commit() -> None:
    engine = FakeEngine()
    engine.commit([(b"meta1", b"a"), (b"meta2", b"a"), (b"meta3", b"a")])
    engine.commit([(b"meta1", b"b"), (b"meta3", None)], [(b"meta1", b"meta3")])
    assert engine.rows() == {b"meta1": b"b"}


async def test_live_values_are_objects_until_the_cut() -> None:
    engine = FakeEngine()
    live = Live(b"1")
    engine.commit([(b"metal", live)])
    assert await engine.get(b"metal") is live
    live.text = b"2"
    engine.commit([(b"metal", live)])
    await engine.sync()
    assert await engine.get(b"metal") == b"2"
    live.text = b"3"
    engine.commit([(b"metal", live)])
    assert engine.crash().rows() == {b"metal": b"2"}


async def test_a_live_value_that_changed_on_the_sly_is_noticed() -> None:
    engine = FakeEngine()
    live = Live(b"1")
    engine.commit([(b"metal", live)])
    engine.check_live_values()
    live.text = b"2"
    with pytest.raises(AssertionError):
        engine.check_live_values()
    with pytest.raises(AssertionError):
        await engine.sync()


@pytest.mark.parametrize("row", [(b"other", b"x"), (b"chunk", b""), (b"chunk", bytes(CHUNK_SIZE + 1))])
def test_rows_that_no_engine_takes(row: tuple[bytes, bytes]) -> None:
    with pytest.raises(AssertionError):
        FakeEngine().commit([row])


async def test_a_sync_stores_its_cut_and_nothing_later() -> None:
    engine = FakeEngine()
    engine.commit([(b"meta1", b"a")])
    goes_on = trio.Event()

    async def pause(keys: object) -> None:
        await goes_on.wait()

    engine.pause = pause
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.sync)
        await trio.testing.wait_all_tasks_blocked()
        engine.commit([(b"meta1", b"b"), (b"meta2", b"b")])
        assert engine.durable_rows() == {}
        goes_on.set()
    assert engine.durable_rows() == {b"meta1": b"a"}
    assert engine.rows() == {b"meta1": b"b", b"meta2": b"b"}


async def test_a_failed_sync_loses_nothing() -> None:
    engine = FakeEngine()
    engine.commit([(b"meta1", b"a")])
    engine.fail_syncs(UnavailableError("down"))
    with pytest.raises(UnavailableError):
        await engine.sync()
    assert engine.state == "waiting"
    assert engine.dirty_bytes > 0
    assert engine.durable_rows() == {}
    engine.fail_syncs(None)
    await engine.sync()
    assert engine.state == "ok"
    assert engine.durable_rows() == {b"meta1": b"a"}


async def test_the_end_of_an_engine() -> None:
    for end, error in ((FakeEngine.fence, FencedError), (FakeEngine.close, ClosedError)):
        engine = FakeEngine(rows={b"meta1": b"a"})
        end(engine)
        with pytest.raises(error):
            engine.commit([(b"meta1", b"b")])
        for work in (engine.sync(), engine.flush(), engine.admit(1)):
            with pytest.raises(error):
                await work
        assert engine.rows() == {b"meta1": b"a"}


async def test_a_cut_that_is_cancelled_is_taken_again() -> None:
    engine = FakeEngine()
    engine.commit([(b"meta1", b"a")])

    async def forever(keys: object) -> None:
        await trio.sleep_forever()

    engine.pause = forever
    with trio.move_on_after(0):
        await engine.sync()
    engine.pause = with_checkpoint
    await engine.sync()
    assert engine.durable_rows() == {b"meta1": b"a"}
