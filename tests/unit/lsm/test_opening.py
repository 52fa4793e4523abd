"""What an opening meets: races with writers, things that others put into the store, and stores that do not answer."""

import random
from dataclasses import replace

import pytest
import trio

from tests.unit.lsm.kit import VOLUME_ID, WRITER, Bed, Crash
from zerofs.errors import (
    AccessDeniedError,
    CorruptionError,
    FencedError,
    MissingObjectError,
    UnavailableError,
    UnsupportedFormatError,
    ZerofsError,
)
from zerofs.lsm import manifests as manifests_room
from zerofs.lsm import replay
from zerofs.lsm.floor import MAX_FLOOR_SIZE
from zerofs.lsm.format import manifest as manifest_format
from zerofs.lsm.format import wal as wal_format
from zerofs.lsm.format.header import WAL_MAGIC, Header, encode_header
from zerofs.lsm.format.manifest import Checkpoint, Run, SstInfo
from zerofs.lsm.format.names import FLOOR_NAME, wal_name
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.recovery import open_writer
from zerofs.objectstore.decorator import Kind, StoreDecorator
from zerofs.objectstore.faults import Fault, FaultyStore

MODES = pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


async def acknowledge(bed: Bed, *keys: bytes, host: str = "here") -> None:
    """One WAL object for each key, and the end of the process."""
    with pytest.raises(Crash):
        async with bed.open(host=host) as engine:
            for key in keys:
                engine.commit([(key, b"x")])
                await engine.sync()
            raise Crash


async def names(bed: Bed, prefix: str = "") -> list[str]:
    return [info.name for info in await bed.store.list(prefix)]


class Interrupted(StoreDecorator):
    """Does something else before the first call of a kind that concerns a name."""

    def __init__(self, inner, kind, name_part, action):
        super().__init__(inner)
        self._kind, self._name_part, self._action = kind, name_part, action

    async def _around(self, request, call):
        action = self._action
        if action is not None and request.kind is self._kind and self._name_part in request.name:
            self._action = None
            await action()
        return await call()


# --- races


async def test_a_reader_that_meets_an_opening_writer_starts_over(bed):
    """It has read the manifest, the writer claims and fences, it lists the WAL: the fence's epoch is news to it."""
    await acknowledge(bed, b"meta1")
    done, started = trio.Event(), trio.Event()

    async def write() -> None:
        async with bed.open(host="other"):
            started.set()
            await done.wait()

    async with trio.open_nursery() as nursery:

        async def writer_opens() -> None:
            nursery.start_soon(write)
            await started.wait()

        store = Interrupted(bed.store, Kind.LIST, "wal/", writer_opens)
        async with bed.open(store=store, host="third", read_only=True) as reader:
            assert await reader.get(b"meta1") == b"x"
        done.set()


async def test_what_this_host_saw_and_a_live_writer_collects_is_no_roll_back(bed):
    await acknowledge(bed, b"meta1")

    async def collect() -> None:
        async with bed.open(host="other") as writer:
            await writer.flush()
            await writer.maintenance.collect()

    store = Interrupted(bed.store, Kind.GET, wal_name(2), collect)
    async with bed.open(store=store, read_only=True) as reader:
        assert await reader.get(b"meta1") == b"x"


async def test_a_manifest_that_is_collected_after_it_was_listed_is_not_missed(bed):
    async def move_on() -> None:
        async with bed.open() as writer:
            for i in range(4):
                writer.commit([(b"meta1", b"%d" % i)])
                await writer.flush()
            await writer.maintenance.collect()

    newest = (await names(bed, "manifest/"))[-1]
    store = Interrupted(bed.store, Kind.GET, newest, move_on)
    async with bed.open(store=store, host="other", read_only=True) as reader:
        assert await reader.get(b"meta1") == b"3"


# --- things that others put there


@MODES
async def test_junk_of_a_later_epoch_is_refused_and_nothing_is_written_above_it(bed, read_only):
    await acknowledge(bed, b"meta1")
    tip = int((await names(bed, "wal/"))[-1][4:24])
    junk = Header(magic=WAL_MAGIC, epoch=99, put_id=bytes(16), volume_id=VOLUME_ID, first_length=0)
    await bed.store.put(wal_name(tip + 1), encode_header(junk))
    before = await bed.store.list("")
    with pytest.raises(CorruptionError, match="epoch 99, which the manifest does not know"):
        async with bed.open(read_only=read_only):
            pass
    assert await bed.store.list("") == before
    await bed.store.delete(wal_name(tip + 1))
    async with bed.open() as engine:
        assert await engine.get(b"meta1") == b"x"


async def test_no_fence_is_put_above_junk_that_appears_after_the_claim(bed):
    """Once the claim is made, only a newer manifest shows that a later epoch in the WAL is a newer writer's."""
    await acknowledge(bed, b"meta1")
    tip = int((await names(bed, "wal/"))[-1][4:24])
    junk = Header(magic=WAL_MAGIC, epoch=99, put_id=bytes(16), volume_id=VOLUME_ID, first_length=0)

    async def plant() -> None:
        await bed.store.put(wal_name(tip + 1), encode_header(junk))

    store = Interrupted(bed.store, Kind.PUT_IF_ABSENT, "manifest/", plant)
    with pytest.raises(CorruptionError, match="epoch 99, which the manifest does not know"):
        async with bed.open(store=store):
            pass
    assert (await names(bed, "wal/"))[-1] == wal_name(tip + 1)


async def test_a_newer_writers_fence_at_the_tip_is_a_newer_writer(bed):
    """As above, but it is one: whoever claims after us and fences before us."""
    await acknowledge(bed, b"meta1")

    async def take_over() -> None:
        other = bed.storage()
        await open_writer(other, ManifestStore(other), WRITER, None, accept_rollback=False)

    # The first request below wal/ after the claim.
    class AfterTheClaim(Interrupted):
        async def _around(self, request, call):
            if request.kind is Kind.PUT_IF_ABSENT and request.name.startswith("manifest/"):
                self._name_part = "wal/"
            return await super()._around(request, call)

    store = AfterTheClaim(bed.store, Kind.LIST, "not yet", take_over)
    with pytest.raises(FencedError):
        async with bed.open(store=store):
            pass


@MODES
@pytest.mark.parametrize("wal_id", [10**9, 10**19])
async def test_a_wal_id_out_of_nowhere_costs_nothing(bed, read_only, wal_id):
    await acknowledge(bed, b"meta1")
    await bed.store.put(wal_name(wal_id), b"")
    with pytest.raises(MissingObjectError, match=wal_name(3).replace(".", r"\.")):
        async with bed.open(read_only=read_only):
            pass


@MODES
@pytest.mark.parametrize(
    "stray",
    ["manifest/zzz", "manifest/00000000000000000099.manifest.bak", "wal/zzz", "compacted/junk", "wal/1/2"],
)
async def test_names_of_another_form_are_left_alone(bed, read_only, stray, caplog):
    await acknowledge(bed, b"meta1")
    await bed.store.put(stray, b"somebody's")
    async with bed.open(read_only=read_only, accept_rollback=not read_only) as engine:
        assert await engine.get(b"meta1") == b"x"
        if not read_only:
            await engine.maintenance.collect()
    assert await bed.store.get(stray) == b"somebody's"
    if not stray.startswith("compacted/"):
        assert caplog.text.count(f"{stray}: not a name that zerofs gives") == 1


async def test_an_accepted_roll_back_is_not_led_beyond_the_last_epoch(bed):
    await acknowledge(bed, b"meta1")
    await bed.store.put("compacted/9999999999-000000000001.sst", b"")
    with pytest.raises(CorruptionError, match=r"9999999999-000000000001\.sst: of an epoch"):
        async with bed.open(accept_rollback=True):
            pass
    await bed.store.delete("compacted/9999999999-000000000001.sst")
    async with bed.open() as engine:
        assert await engine.get(b"meta1") == b"x"


@MODES
@pytest.mark.parametrize("kind", ["manifest", "wal", "floor"])
async def test_an_object_too_large_for_its_kind_is_not_read(bed, monkeypatch, read_only, kind):
    async with bed.open() as engine:
        for i in range(5):
            engine.commit([(b"meta1", b"%d" % i)])
            await engine.flush()
        await engine.maintenance.collect()
    await acknowledge(bed, b"meta1")
    # The real limits are hundreds of MiB: lower ones stand for them.
    monkeypatch.setattr(manifests_room, "MAX_MANIFEST_OBJECT_SIZE", 50_000)
    monkeypatch.setattr(replay, "MAX_OBJECT_SIZE", 50_000)
    manifests = [name for name in await names(bed, "manifest/") if name != FLOOR_NAME]
    name = {"manifest": manifests[-1], "wal": (await names(bed, "wal/"))[-1], "floor": FLOOR_NAME}[kind]
    limit = MAX_FLOOR_SIZE if kind == "floor" else 50_000
    await bed.store.put(name, bytes(60_000))
    if kind == "floor":
        await bed.store.delete(manifests[-2])  # only then a reader asks for it
    with pytest.raises(CorruptionError, match=f"60000 bytes; such an object has at most {limit}"):
        async with bed.open(host="other", read_only=read_only):
            pass


@pytest.mark.parametrize("version", [0, 2, 65535])
@pytest.mark.parametrize("prefix", ["manifest/", "wal/"])
async def test_a_newer_format_is_told_from_damage(bed, prefix, version):
    await acknowledge(bed, b"meta1")
    name = (await names(bed, prefix))[-1]
    body = bytearray(await bed.store.get(name))
    body[4:6] = version.to_bytes(2, "little")
    await bed.store.put(name, bytes(body))
    with pytest.raises(UnsupportedFormatError if version else CorruptionError, match=f"format version {version}"):
        async with bed.open(host="other", read_only=True):
            pass


# --- stores that do not answer


class Denied(StoreDecorator):
    """Refuses one kind of call below one prefix."""

    def __init__(self, inner, kind, name_part):
        super().__init__(inner)
        self._kind, self._name_part = kind, name_part

    async def _around(self, request, call):
        if request.kind is self._kind and self._name_part in request.name:
            raise AccessDeniedError(f"{request.kind} of {request.name}: refused")
        return await call()


@pytest.mark.parametrize(
    ("kind", "name_part"),
    [(Kind.PUT_IF_ABSENT, "manifest/"), (Kind.PUT_IF_ABSENT, "wal/"), (Kind.GET, FLOOR_NAME)],
)
async def test_a_store_that_refuses_ends_the_opening_at_once(bed, autojump_clock, kind, name_part):
    began = trio.current_time()
    with pytest.raises(AccessDeniedError, match="refused"):
        async with bed.open(store=Denied(bed.store, kind, name_part)):
            pass
    assert trio.current_time() - began < 1


@pytest.mark.parametrize("part", ["manifest/", "wal/", FLOOR_NAME])
async def test_a_store_that_does_not_answer_ends_the_opening_at_the_deadline(bed, autojump_clock, part):
    faulty = FaultyStore(bed.store, random.Random(1))
    kind = Kind.GET if part == FLOOR_NAME else Kind.PUT_IF_ABSENT
    for _ in range(2000):
        faulty.plan(Fault.FAIL_BEFORE, kind, part)
    began = trio.current_time()
    with pytest.raises(UnavailableError):
        async with bed.open(store=faulty):
            pass
    assert 30 < trio.current_time() - began < 90


async def test_an_opening_survives_a_short_outage(bed, autojump_clock):
    faulty = FaultyStore(bed.store, random.Random(1))
    for _ in range(10):
        faulty.plan(Fault.FAIL_BEFORE, Kind.PUT_IF_ABSENT, "wal/")
    async with bed.open(store=faulty) as engine:
        engine.commit([(b"meta1", b"x")])
        await engine.sync()


async def test_a_refusal_while_mounted_is_a_pause(bed, autojump_clock):
    async with trio.open_nursery() as nursery, bed.open() as engine:
        refusing = Denied(bed.store, Kind.PUT_IF_ABSENT, "wal/")
        real, engine._storage.store = engine._storage.store, refusing

        async def heal() -> None:
            await trio.sleep(3)
            engine._storage.store = real

        nursery.start_soon(heal)
        engine.commit([(b"meta1", b"x")])
        await engine.sync()


# --- nothing is published that could not be read back


async def newest_manifest(bed: Bed):
    storage = bed.storage()
    manifests = ManifestStore(storage)
    return manifests, await manifests.latest()


def many_runs(count: int) -> tuple[Run, ...]:
    def sst(number: int) -> SstInfo:
        return SstInfo(sst=(1, number), size_bytes=1, index_length=1, row_count=1, first_key=b"a", last_key=b"b")

    return tuple(Run(ssts=(sst(number),)) for number in range(count))


async def test_a_manifest_that_could_not_be_read_back_is_not_stored(bed, monkeypatch):
    manifests, newest = await newest_manifest(bed)
    before = await names(bed)
    successor = replace(newest, manifest_id=newest.manifest_id + 1)
    odd = Checkpoint(name="x" * 256, checkpoint_id=bytes(16), manifest_id=1, created_at_ns=0)
    monkeypatch.setattr(manifest_format, "MAX_RUNS", 100)
    for bad in (
        replace(successor, trees=tuple(replace(tree, runs=many_runs(101)) for tree in newest.trees)),
        replace(successor, checkpoints=(odd,)),
        replace(successor, tokens={2: bytes(16)}),
    ):
        with pytest.raises(ZerofsError, match="was not stored, because it could not be read back"):
            await manifests.create(bad)
    monkeypatch.setattr(manifests_room, "MAX_MANIFEST_SIZE", 10)
    with pytest.raises(ZerofsError, match="exceed the limit of 10"):
        await manifests.create(successor)
    assert await names(bed) == before


async def test_far_more_runs_than_ever_come_are_read_back(bed):
    manifests, newest = await newest_manifest(bed)
    trees = tuple(replace(tree, runs=many_runs(5000)) for tree in newest.trees)
    await manifests.create(replace(newest, manifest_id=newest.manifest_id + 1, trees=trees))
    assert (await ManifestStore(bed.storage()).latest()).trees == trees


def test_a_record_that_could_not_be_read_back_is_not_encoded(monkeypatch):
    monkeypatch.setattr(wal_format, "MAX_RECORD_SIZE", 1000)
    rows = [(b"meta1", 0, b"x" * 1000)]
    with pytest.raises(ZerofsError, match="memtable_size_mb"):
        wal_format.encode_record(
            kind=wal_format.ROWS, previous_put_id=bytes(16), seqnos=(1, 1), range_deletes=KeyRanges(), rows=rows
        )


async def test_a_listing_that_lags_costs_a_writer_its_first_claim_only(bed):
    """Whoever is about to claim does not ask for the next id by name: the claim itself finds it taken."""
    async with bed.open() as engine:
        engine.commit([(b"meta1", b"one")])
    lagging = FaultyStore(bed.store, random.Random(1))
    real_list = lagging.list
    newest = max(info.name for info in await bed.store.list("manifest/") if "floor" not in info.name)

    async def list_all_but_the_newest(prefix, start_after=""):
        return [info for info in await real_list(prefix, start_after) if info.name != newest]

    lagging.list = list_all_but_the_newest
    manifests = ManifestStore(bed.storage(lagging))
    assert (await manifests.latest(to_claim=True)).manifest_id == int(newest[-29:-9]) - 1
    async with bed.open(store=lagging, manifests=manifests) as engine:
        assert await engine.get(b"meta1") == b"one"
        assert engine.manifest.manifest_id > int(newest[-29:-9])
