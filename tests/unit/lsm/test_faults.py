"""The engine on a store that fails: nothing acknowledged is lost, nothing unknown is acknowledged, nothing gives up."""

import contextlib
import random

import pytest
import trio

from tests.unit.lsm.kit import WRITER, Bed, Crash, chunk_key
from zerofs.errors import CorruptionError, FencedError, UnavailableError
from zerofs.lsm.format import names
from zerofs.lsm.manifests import ManifestLost, ManifestStore
from zerofs.lsm.recovery import open_writer
from zerofs.objectstore.decorator import Kind
from zerofs.objectstore.faults import Fault, FaultRates, FaultyStore
from zerofs.units import CHUNK_SIZE

KEYS = [b"meta%02d" % i for i in range(20)]


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.FAIL_BEFORE, Fault.CONFLICT, Fault.BUSY])
@pytest.mark.parametrize("part", ["wal/", "compacted/", "manifest/"])
async def test_an_ambiguous_put_is_resolved(bed, fault, part, autojump_clock):
    faulty = FaultyStore(bed.store, random.Random(1))
    async with bed.open(store=faulty) as engine:
        engine.commit([(b"meta1", b"one"), (chunk_key(1, 0), b"x" * 100)])
        faulty.plan(fault, Kind.PUT_IF_ABSENT, part)
        await engine.flush()
        assert engine.state == "ok"
    async with bed.open() as engine:
        assert await engine.get(b"meta1") == b"one"
        assert await engine.get(chunk_key(1, 0)) == b"x" * 100


async def test_an_outage_is_a_pause(bed, autojump_clock):
    faulty = FaultyStore(bed.store, random.Random(1))
    async with bed.open(store=faulty) as engine:
        engine.commit([(b"meta1", b"one")])
        await engine.sync()
        faulty.partitioned = True
        engine.commit([(b"meta2", b"two"), (chunk_key(1, 0), b"x" * 100)])
        for _ in range(2):
            with pytest.raises(UnavailableError, match="stays in memory"):
                await engine.sync()
        await trio.sleep(60)
        assert engine.state == "read-only"
        assert await engine.get(b"meta1") == b"one"
        assert await engine.get(chunk_key(1, 0)) == b"x" * 100
        engine.commit([(b"meta3", b"three")])
        faulty.partitioned = False
        await trio.sleep(60)
        assert engine.state == "ok"
        await engine.sync()
    async with bed.open() as engine:
        assert await engine.multi_get([b"meta1", b"meta2", b"meta3"]) == [b"one", b"two", b"three"]


async def test_an_outage_holds_writers_at_the_budget_and_lets_them_go_on(bed, autojump_clock):
    faulty = FaultyStore(bed.store, random.Random(1))
    rng = random.Random(2)
    written = {}
    async with bed.open(store=faulty) as engine:
        faulty.partitioned = True

        async def write_much() -> None:
            for i in range(200):
                await engine.admit(CHUNK_SIZE)
                written[chunk_key(1, i)] = rng.randbytes(CHUNK_SIZE)
                engine.commit([(chunk_key(1, i), written[chunk_key(1, i)])])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_much)
            await trio.sleep(300)
            assert 20 < len(written) < 200
            assert engine.dirty_bytes < 2 * bed.options.dirty_limit_bytes
            for key in list(written)[:3]:
                assert await engine.get(key) == written[key]
            faulty.partitioned = False
        assert len(written) == 200
    async with bed.open() as engine:
        assert await engine.multi_get(list(written)) == list(written.values())


async def test_sixteen_syncs_share_puts(bed, autojump_clock):
    faulty = FaultyStore(bed.store, random.Random(1), FaultRates(latency_s=(0.02, 0.02)))
    async with bed.open(store=faulty) as engine:
        before = bed.metrics.get("wal_objects")

        async def one(number: int) -> None:
            for i in range(10):
                engine.commit([(b"meta%d-%d" % (number, i), b"v")])
                await engine.sync()

        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(one, number)
        assert bed.metrics.get("wal_objects") - before <= 12


async def test_two_thousand_random_faults(bed, autojump_clock):
    """A life on a store that fails one call in five, reopened now and then: equal to the model all the same."""
    rates = FaultRates(fail_before=0.07, lost_reply=0.07, conflict=0.03, busy=0.03, latency_s=(0, 0.05))
    rng = random.Random(5)
    model: dict[bytes, bytes] = {}
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            faulty = FaultyStore(bed.store, rng, nursery=nursery)
            async with bed.open(store=faulty) as engine:
                faulty.rates = rates
                for _ in range(60):
                    key, value = chunk_key(rng.randrange(3), rng.randrange(20)), rng.randbytes(rng.randrange(1, 20_000))
                    engine.commit([(key, value), (b"meta%d" % rng.randrange(9), value[:30])])
                    model[key] = value
                    if rng.random() < 0.2:
                        with contextlib.suppress(UnavailableError):
                            await engine.sync()
                faulty.rates = FaultRates()
            async with bed.open(read_only=True) as reader:
                assert await reader.multi_get(list(model)) == list(model.values())
        nursery.cancel_scope.cancel()


# --- the five guards (decision 0003) --------------------------------------------------------------------------------


async def test_guard_a_stalled_writer_cannot_append_over_a_fence(bed, autojump_clock):
    """Guard 1 and 5: the fence stays, and only a put-id tells our own object from it."""
    with pytest.raises(FencedError):
        async with bed.open() as old:
            async with bed.open(host="there") as new:
                new.commit([(b"meta1", b"new")])
                await new.flush()
            old.commit([(b"meta1", b"old")])
            await old.sync()
    async with bed.open(host="there") as engine:
        assert await engine.get(b"meta1") == b"new"


async def test_guard_a_lost_reply_is_not_mistaken_for_a_win(bed, autojump_clock):
    """Guard 5: the old writer's put fails on the fence and the answer is lost: reading back shows another's put-id."""
    faulty = FaultyStore(bed.store, random.Random(1))
    with pytest.raises(FencedError):
        async with bed.open(store=faulty) as old:
            async with bed.open(host="there"):
                pass
            faulty.plan(Fault.LOST_REPLY, Kind.PUT_IF_ABSENT, "wal/")
            old.commit([(b"meta1", b"old")])
            await old.sync()


async def test_guard_the_fence_lies_above_the_mark_of_the_claimed_manifest(bed, autojump_clock):
    """Guard 2: the slot is looked for above the mark of the manifest that was claimed, whatever came before."""
    async with bed.open() as engine:
        for i in range(5):
            engine.commit([(b"meta1", b"%d" % i)])
            await engine.sync()
        await engine.flush()
    storage = bed.storage()
    recovered = await open_writer(storage, ManifestStore(storage), WRITER, None, accept_rollback=False)
    assert recovered.wal.last_id > recovered.manifest.wal_mark


async def test_guard_a_newer_claim_during_the_open_is_noticed(bed, autojump_clock):
    """Guard 3: a writer that claims between our claim and our fence wins; we must not go on."""
    storage = bed.storage()

    class Interloper(type(bed.world)):
        def reached(self, point: str) -> None:
            super().reached(point)
            if point == "open_after_claim_before_fence" and not seen:
                seen.append(point)

    seen: list[str] = []
    storage.world = Interloper()
    manifests = ManifestStore(storage)
    real_create = storage.create

    async def create(name, body, put_id):
        if name.startswith(names.WAL_PREFIX) and len(seen) == 1:
            seen.append("claimed again")
            other = bed.storage()
            await open_writer(other, ManifestStore(other), WRITER, None, accept_rollback=False)
        await real_create(name, body, put_id)

    storage.create = create
    with pytest.raises(FencedError):
        await open_writer(storage, manifests, WRITER, None, accept_rollback=False)
    assert len(seen) == 2


async def test_guard_a_manifest_id_below_the_floor_proves_nothing(bed, autojump_clock):
    """Guard 4: an id that was used and deleted can be created again; the floor says that it does not count."""
    storage = bed.storage()
    manifests = ManifestStore(storage)
    newest = await manifests.latest()
    assert await manifests.floor.raise_to(9, 1) == 9
    assert await manifests.floor.raise_to(4, 1) == 9
    with pytest.raises(ManifestLost, match="floor"):
        from dataclasses import replace

        await manifests.create(replace(newest, manifest_id=newest.manifest_id + 1))


async def test_guard_a_claim_that_was_overtaken_and_collected_is_no_claim(bed, autojump_clock):
    """Guard 3 beside collection: the newer manifests are gone by the time the stalled opener looks; the floor tells."""
    storage = bed.storage()
    manifests = ManifestStore(storage)
    real_create = storage.create

    async def create(name, body, put_id):
        await real_create(name, body, put_id)
        if name.startswith("manifest/"):
            # Another writer opens, flushes a few times, collects and goes, all while this one sleeps after its claim.
            async with bed.open(host="there") as engine:
                for i in range(5):
                    engine.commit([(b"meta%d" % i, b"new")])
                    await engine.flush()
                await engine.maintenance.collect()
            claimed = int(name[9:29])
            assert not await storage.exists(names.manifest_name(claimed + 1))

    storage.create = create
    with pytest.raises(FencedError):
        await open_writer(storage, manifests, WRITER, None, accept_rollback=False)
    async with bed.open(host="there") as engine:
        assert await engine.get(b"meta4") == b"new"


async def test_a_reader_whose_wal_is_collected_under_it_reads_the_newer_version(bed, autojump_clock):
    with pytest.raises(Crash):
        async with bed.open() as engine:
            for i in range(3):
                engine.commit([(b"meta%d" % i, b"v" * 300)])
                await engine.sync()
            raise Crash
    store = FaultyStore(bed.store, random.Random(1))
    real_list, listed = store.list, []

    async def listing(prefix, start_after=""):
        found = await real_list(prefix, start_after)
        if prefix == "wal/" and not listed:
            listed.extend(found)
            async with bed.open(host="there") as writer:
                await writer.maintenance.tighten()
        return found

    store.list = listing
    async with bed.open(store=store, host="reader", read_only=True) as reader:
        assert len(listed) >= 3
        assert await reader.multi_get([b"meta0", b"meta2"]) == [b"v" * 300] * 2


async def test_a_gap_in_the_wal_is_corruption_not_its_end(bed, autojump_clock):
    with pytest.raises(Crash):
        async with bed.open() as engine:
            for i in range(4):
                engine.commit([(b"meta%d" % i, b"v")])
                await engine.sync()
            raise Crash
    gone = names.wal_name(3)
    await bed.store.delete(gone)
    for kwargs in ({}, {"read_only": True}):
        with pytest.raises(CorruptionError, match=gone.replace(".", r"\.")):
            async with bed.open(host="fresh", **kwargs):
                pass
