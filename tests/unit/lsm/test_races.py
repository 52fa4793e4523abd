"""Races between writers, and edits that are cut off: found by the protocol model, replayed on the engine (0013)."""

import contextlib
import os

import pytest
import trio

from tests.unit.lsm.kit import WRITER, Bed, Crash, chunk_key
from zerofs.errors import CorruptionError, FencedError, ZerofsError
from zerofs.lsm.format import names
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.recovery import open_writer
from zerofs.testing.world import SimWorld
from zerofs.units import CHUNK_SIZE


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


class Intruded:
    """A store on which something else happens, once, in the middle of a call: `before` and `after` by kind of call."""

    def __init__(self, store, when, happens):
        self._store, self._when, self._happens = store, when, happens
        self.url = store.url

    def __getattr__(self, kind):
        call = getattr(self._store, kind)

        async def intruded(name, *args, **kwargs):
            if self._when(kind, name):
                self._when = lambda kind, name: False
                await self._happens()
            return await call(name, *args, **kwargs)

        return intruded


async def open_while(bed, when, happens, world=None):
    """Open for writing while something else happens in the middle of it."""
    storage = bed.storage(Intruded(bed.store, when, happens))
    if world is not None:
        storage.world = world
    return await open_writer(storage, ManifestStore(storage), WRITER, None, accept_rollback=False)


async def some_wal(bed):
    with pytest.raises(Crash):
        async with bed.open() as engine:
            for number in range(3):
                engine.commit([(b"meta%d" % number, b"x" * 200)])
                await engine.sync()
            raise Crash


@pytest.mark.parametrize("dies", [False, True])
async def test_two_openers_leave_a_volume_that_opens(bed, autojump_clock, dies):
    """The second claims and opens between the first one's claim and its fence; and lives on, or dies."""
    second = contextlib.AsyncExitStack()

    async def overtake():
        engine = await second.enter_async_context(bed.open(host="second"))
        engine.commit([(b"meta1", b"precious")])
        await engine.sync()
        if dies:
            with contextlib.suppress(Crash):
                await second.__aexit__(Crash, Crash(), None)

    with pytest.raises(FencedError):
        await open_while(bed, lambda kind, name: kind == "put_if_absent" and name.startswith("wal/"), overtake)
    await second.aclose()
    async with bed.open(host="third") as engine:
        assert await engine.get(b"meta1") == b"precious"


async def test_an_opener_that_fences_a_place_that_was_collected_notices(bed, autojump_clock):
    """It chose its place in the WAL; then the holder appended there, and a second opener flushed and collected that."""
    with contextlib.suppress(FencedError, BaseExceptionGroup):
        async with bed.open(host="holder") as holder:
            await holder.maintenance.stop()
            await holder.flush()

            async def overtake():
                for number in range(2):
                    holder.commit([(b"meta%d" % number, b"x" * 200)])
                    await holder.sync()
                async with bed.open(host="second") as engine:
                    engine.commit([(b"meta9", b"precious")])
                    await engine.flush()
                    await engine.maintenance.collect()

            with pytest.raises(FencedError):
                await open_while(bed, lambda kind, name: kind == "put_if_absent" and name.startswith("wal/"), overtake)
    async with bed.open(host="third") as engine:
        assert await engine.multi_get([b"meta0", b"meta9"]) == [b"x" * 200, b"precious"]


@pytest.mark.parametrize("stage", ["while it looks for its place in the WAL", "while it replays"])
async def test_an_opener_that_was_overtaken_says_so(bed, autojump_clock, stage):
    """What it counts on was collected: that is no damage."""
    await some_wal(bed)
    world = SimWorld()

    def when(kind, name):
        replaying = "open_after_fence_before_replay" in world.points
        claimed = "open_after_claim_before_fence" in world.points
        return kind == "get" and name.startswith("wal/") and (replaying if "replays" in stage else claimed)

    async def overtake():
        async with bed.open(host="second") as engine:
            await engine.flush()
            await engine.maintenance.collect()

    with pytest.raises(FencedError):
        await open_while(bed, when, overtake, world)


async def test_an_accepted_roll_back_leaves_no_gap_to_the_old_writer(bed, autojump_clock):
    """The bucket is restored, one host mounts it, and another, which remembers higher ids, takes it with the flag."""
    async with bed.open(host="a"):
        pass
    backup = {info.name: await bed.store.get(info.name) for info in await bed.store.list("")}
    async with bed.open(host="a") as engine:
        for _ in range(20):
            engine.commit([(b"meta0", b"later")])
            await engine.flush()
    for info in await bed.store.list(""):
        await bed.store.delete(info.name)
    for name, body in backup.items():
        await bed.store.put(name, body)
    with contextlib.suppress(FencedError, BaseExceptionGroup):
        async with bed.open(host="b") as old:
            await old.maintenance.stop()
            for number in range(5):
                old.commit([(b"meta%d" % number, b"v%d" % number)])
                await old.flush()
            async with bed.open(host="a", accept_rollback=True):
                runs = len(old.manifest.tree(b"meta").runs)
                assert runs > 1
                for attempt in (
                    lambda: old.checkpoints.create("mine"),
                    lambda: old.maintenance._compactor.compact_whole(b"meta"),
                    old.maintenance.collect,
                ):
                    with pytest.raises(ZerofsError):
                        await attempt()
    async with bed.open(host="c") as engine:
        assert await engine.multi_get([b"meta%d" % n for n in range(5)]) == [b"v%d" % n for n in range(5)]


async def test_what_a_stored_manifest_lists_is_not_let_go_because_a_later_step_failed(bed, autojump_clock):
    with contextlib.suppress(ZerofsError, BaseExceptionGroup, Crash):
        async with bed.open() as engine:
            engine.commit([(b"meta1", b"precious")])
            floor = engine.maintenance._collector._manifests.floor
            real = floor.get

            async def broken():
                raise CorruptionError("the floor is damaged")

            floor.get = broken
            with pytest.raises(ZerofsError):
                await engine.flush()
            floor.get = real
            with contextlib.suppress(ZerofsError):
                await engine.maintenance.collect()
            raise Crash
    async with bed.open(host="other") as engine:
        assert await engine.get(b"meta1") == b"precious"


async def test_an_edit_that_is_cut_off_does_not_fence_its_own_writer(bed, autojump_clock):
    """A command that is cancelled while its manifest is on the way: stored, and nobody was told."""
    stuck = trio.Event()

    class Slow:
        url = "memory://"
        armed = False

        def __getattr__(self, kind):
            return getattr(bed.store, kind)

        async def put_if_absent(self, name, body, put_id):
            await bed.store.put_if_absent(name, body, put_id)
            if self.armed and name.startswith(names.MANIFEST_PREFIX):
                stuck.set()
                await trio.sleep_forever()

    store = Slow()
    async with bed.open(store=store) as engine:
        engine.commit([(b"meta1", b"x")])
        await engine.flush()
        await engine.maintenance.stop()
        store.armed = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.checkpoints.create, "one")
            await stuck.wait()
            nursery.cancel_scope.cancel()
        store.armed = False
        engine.commit([(b"meta1", b"y")])
        await engine.flush()
        assert [checkpoint.name for checkpoint in engine.checkpoints.all()] == ["one"]
    async with bed.open() as engine:
        assert await engine.get(b"meta1") == b"y"
    async with bed.open(checkpoint="one", host="reader") as reader:
        assert await reader.get(b"meta1") == b"x"


async def test_a_frame_that_dies_while_it_is_looked_up_is_not_shared(bed, autojump_clock):
    async with bed.open() as engine:
        await engine.maintenance.stop()
        engine.commit([(chunk_key(1, 0), os.urandom(CHUNK_SIZE))])
        await engine.flush()
        lookup, newer, done = engine._lookup, os.urandom(CHUNK_SIZE), []
        real = lookup.find

        async def find(key):
            found = await real(key)
            if not done:
                done.append(key)
                engine.commit([(chunk_key(1, 0), newer)])
                await engine.flush()
                for prefix in (b"chunk", b"space"):
                    await engine.maintenance._compactor.compact_whole(prefix)
                await engine.maintenance.collect()
            return found

        lookup.find = find
        (shared,) = await engine.shareable([chunk_key(1, 0)])
        lookup.find = real
        engine.commit([(chunk_key(2, 0), shared)])
        await engine.flush()
        assert await engine.get(chunk_key(2, 0)) == newer
