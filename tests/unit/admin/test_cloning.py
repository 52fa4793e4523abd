"""zerofs.admin.cloning: a clone is there as a whole or cannot be opened, and never without what it reads being held."""

import logging

import pytest

from tests.unit.admin import damage
from tests.unit.admin.damage import mounted, write
from tests.unit.admin.test_backup import clone as copy_of
from tests.unit.admin.test_backup import mounted_reader, names, read
from tests.unit.lsm.clones import Family, entry
from zerofs.admin import backup, cloning
from zerofs.admin.decode import Wanted, decode_object, open_volume_objects
from zerofs.admin.examination import examine
from zerofs.admin.fsck import fsck
from zerofs.admin.throttle import Throttle
from zerofs.admin.verified import Verified
from zerofs.admin.verify import verify_full, verify_quick
from zerofs.crypto.kdf import KdfCost
from zerofs.errors import (
    CheckpointError,
    CloneError,
    NoVolumeError,
    PreconditionFailedError,
    UnavailableError,
    ZerofsError,
)
from zerofs.keys import vault
from zerofs.keys.password import check_password
from zerofs.lsm.format.names import manifest_name, sst_name
from zerofs.lsm.manifests import ManifestStore
from zerofs.objectstore.faults import Fault, FaultyStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.probe import PROBE_PREFIX
from zerofs.transform.compression import DEFAULT_COMPRESSION
from zerofs.volume import make_sealers

KEY = "zerofs.key"
PASSWORD = check_password("correct horse")
CHEAP = KdfCost(memory_kib=8192, time_cost=1, parallelism=1)
URL = "memory://clone"


class Making:
    """A source with a checkpoint `one`, and the making of its clones in `dest`."""

    def __init__(self, family, source, made):
        self.family = family
        self.source = source
        self.made = made
        self.bed = family.bed(URL)
        self.bed.volume_id = made.keyring.volume_id
        self.bed.sealers = make_sealers(made.keyring, DEFAULT_COMPRESSION)

    @classmethod
    async def begin(cls, folder):
        family = Family(folder)
        source = family.bed("memory://source")
        await damage.make(source)
        async with source.open() as engine:
            await engine.checkpoints.create("one")
        return cls(family, source, await vault.make(source.world, PASSWORD, CHEAP))

    async def pin(self, name, of):
        async with self.source.open() as engine:
            point = await engine.checkpoints.copy(name, of)
            return {"name": point.name, "manifest_id": point.manifest_id}

    async def unpin(self, name):
        async with self.source.open() as engine:
            if name in [point.name for point in engine.checkpoints.all()]:
                await engine.checkpoints.delete(name)

    async def pins(self):
        return [point.name for point in (await damage.newest(self.source)).checkpoints]

    async def make(self, dest, *, pin=None):
        storage = self.bed.storage(dest)
        state = await cloning.read_state(self.source.storage(), "one")
        await cloning.prepare(dest, storage)
        hands = cloning.Hands(pin=pin or self.pin, unpin=self.unpin)
        return await cloning.make(state, entry(self.source), storage, self.made, hands)

    async def files(self, bed, store):
        report = await examine(bed.storage(store), self.checked, checkpoint=None, seen=None)
        assert list(map(str, report.problems)) == []
        async with mounted_reader(bed, store) as fs:
            handle = await fs.opendir(damage.ROOT, 1)
            entries = await fs.readdir(handle, 2, 1000)
            return {it.name: await read(fs, it.attributes) for it in entries if it.name != b"dir"}

    @staticmethod
    async def checked(view, report):
        await fsck(view, report, lambda *_: None)
        await verify_quick(view, report, lambda *_: None)
        await verify_full(view, report, lambda *_: None, Throttle(0), Verified())


@pytest.fixture
async def making(tmp_path):
    return await Making.begin(tmp_path)


async def test_a_clone_is_a_volume_with_keys_of_its_own(making):
    dest = MemoryStore()
    done = await making.make(dest)
    volume_id = making.made.keyring.volume_id.hex()
    assert done == {
        "volume_id": volume_id,
        "destination": dest.url,
        "source": "memory://source",
        "checkpoint": "one",
        "pin": f"clone-{volume_id[:8]}",
    }
    assert await names(dest) == [".zerofs_bucket_id", manifest_name(1), KEY]
    assert await making.pins() == ["one", done["pin"]]
    keyring = await vault.unseal(dest, making.source.world, PASSWORD)
    assert keyring.volume_id == making.made.keyring.volume_id != making.source.volume_id
    assert await making.files(making.bed, dest) == await making.files(making.source, making.source.store)
    async with mounted(making.bed, store=dest) as (_, fs):
        await write(fs, b"new", b"n" * 100_000)
    assert (await making.files(making.bed, dest))[b"new"] == b"n" * 100_000


async def test_a_checkpoint_that_is_not_there(making):
    async with making.source.open() as engine:
        await engine.checkpoints.delete("one")
        await engine.checkpoints.create("two")
    with pytest.raises(CheckpointError, match="there is no checkpoint 'one'; there are: two"):
        await making.make(MemoryStore())


@pytest.mark.parametrize("name", [KEY, "thesis.txt", "manifest/floor", "compacted/0000000001-000000000001.sst"])
async def test_a_place_with_anything_in_it_is_refused_and_left_alone(making, name):
    dest = MemoryStore()
    await dest.put(name, b"...")
    await dest.put(".zerofs_bucket_id", b"11111111-1111-4111-8111-111111111111")
    with pytest.raises(NoVolumeError, match=f"is not empty: {name} lies there; a clone needs a place of its own"):
        await making.make(dest)
    assert await names(dest) == sorted([name, ".zerofs_bucket_id"])
    assert await making.pins() == ["one"]


async def test_a_checkpoint_that_is_exchanged_meanwhile(making):
    async def exchanged(name, of):
        async with making.source.open() as engine:
            await engine.checkpoints.delete("one")
            await engine.checkpoints.create("one")
        return await making.pin(name, "one")

    dest = MemoryStore()
    with pytest.raises(CheckpointError, match="'one' was exchanged meanwhile"):
        await making.make(dest, pin=exchanged)
    assert await names(dest) == [".zerofs_bucket_id"]
    assert await making.pins() == ["one"]
    await making.make(dest)


async def test_an_error_takes_everything_back(making, autojump_clock):
    dest = MemoryStore()
    faulty = FaultyStore(dest, making.source.world.random)

    async def pin_and_fail(name, of):
        pinned = await making.pin(name, of)
        faulty.partitioned = True
        return pinned

    async def unpin(name):
        raise AssertionError("the pin may go only when nobody can open the clone")

    making.unpin, before = unpin, making.unpin
    with pytest.raises(UnavailableError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("zerofs.admin.cloning"), "disabled", True)
        await making.make(faulty, pin=pin_and_fail)
    making.unpin = before
    left = f"clone-{making.made.keyring.volume_id.hex()[:8]}"
    assert await making.pins() == ["one", left]
    with pytest.raises(
        NoVolumeError, match=f"delete that object, and the checkpoint {left} of the source .with --force. if there"
    ):
        await making.make(dest)
    await dest.delete(manifest_name(1))
    await making.unpin(left)
    await making.make(dest)


async def test_a_volume_that_somebody_makes_there_meanwhile_keeps_its_key(making):
    dest, theirs = MemoryStore(), await vault.make(making.source.world, PASSWORD, CHEAP)

    async def pin(name, of):
        await vault.store_made(dest, making.source.world, theirs)
        return await making.pin(name, of)

    with pytest.raises(PreconditionFailedError):
        await making.make(dest, pin=pin)
    assert await names(dest) == [".zerofs_bucket_id", KEY]
    assert await dest.get(KEY) == theirs.body
    assert await making.pins() == ["one"]


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LOST_REPLY])
async def test_cut_off_at_every_call(making, autojump_clock, fault, caplog):
    caplog.set_level(logging.ERROR)
    counting = FaultyStore(MemoryStore(), making.source.world.random)
    done = await making.make(counting)
    await making.unpin(done["pin"])
    expected = await making.files(making.source, making.source.store)
    assert counting.calls > 10
    for call in range(counting.calls):
        dest = MemoryStore()
        faulty = FaultyStore(dest, making.source.world.random)
        faulty.plan(fault, skip=call)
        try:
            await making.make(faulty)
        except ZerofsError:
            pass
        else:
            assert KEY in await names(dest), call
        is_open = KEY in await names(dest)
        if is_open:
            assert done["pin"] in await making.pins(), f"call {call}: it opens, and nothing holds what it reads"
            assert await making.files(making.bed, dest) == expected
        elif not faulty.crashed:
            left = [name for name in await names(dest) if not name.startswith(PROBE_PREFIX)]
            assert left in ([], [".zerofs_bucket_id"]), call
            assert await making.pins() == ["one"], call
        await making.unpin(done["pin"])
        if not is_open and manifest_name(1) not in await names(dest):
            await making.make(dest)
            await making.unpin(done["pin"])


async def test_a_clone_is_backed_up_once_it_is_detached(making, autojump_clock):
    store = MemoryStore()
    await making.make(store)
    bed = making.bed
    bed.store = store

    async def back_up(pin):
        source, dest = bed.storage(), MemoryStore()
        storage = backup.destination_storage(source, dest)
        await backup.prepare(source, storage)
        await backup.backup(source, storage, pin, rate_bytes_per_s=0, prune=False, progress=lambda *_: None)
        return dest

    async with bed.open() as engine:
        early = await engine.checkpoints.create("early")
    with pytest.raises(CloneError, match="still reads memory://source: run `zerofs clone detach` first"):
        await back_up(early.manifest_id)
    async with bed.open() as engine:
        await engine.checkpoints.delete("early")
        await engine.detach(lambda *_: None)
        late = await engine.checkpoints.create("late")
    for name in await names(making.source.store):
        await making.source.store.delete(name)
    copy = await back_up(late.manifest_id)
    assert await making.files(bed, copy) == await making.files(bed, store)
    assert (await ManifestStore(bed.storage(copy)).latest()).foreign == ()


async def test_debug_shows_the_sources_and_no_key(making):
    store = MemoryStore()
    await making.make(store)
    making.bed.store = store
    opened = await open_volume_objects(making.bed.storage())
    name = manifest_name(1)
    shown = await decode_object(opened, name, await store.get(name), Wanted())
    (source,) = shown["sources"]
    assert source == {
        "url": "memory://source",
        "volume_id": making.source.volume_id.hex(),
        "last_epoch": 3,
        "pin": f"clone-{making.bed.volume_id.hex()[:8]}",
        "key_ids": [1],
    }
    table = entry(making.source)
    for key in (*table.block_keys.values(), *table.chunk_keys.values()):
        assert key.hex() not in str(shown)
        for stored in await names(store):
            assert key not in await store.get(stored), f"{stored}: nothing readable leaves"
    ssts = [sst.name for sst in await damage.meta_ssts(making.bed)] + [
        sst_name(sst) for sst in await damage.chunk_ssts(making.bed)
    ]
    assert ssts
    for name in ssts:
        place = opened.store_of(name)
        found = await decode_object(opened, name, await place.get(name), Wanted(rows=True))
        assert found["kind"] in ("meta sst", "chunk sst")
        assert found["header"]["volume_id"] == making.source.volume_id.hex()


async def test_fsck_and_verify_name_the_source(making):
    store = MemoryStore()
    await making.make(store)
    making.bed.store = store
    (gone, *_) = await damage.chunk_ssts(making.bed)
    await making.source.store.delete(sst_name(gone))
    for work in (fsck, verify_quick):

        async def on_view(view, report, work=work):
            await work(view, report, lambda *_: None)

        report = await examine(making.bed.storage(), on_view, checkpoint=None, seen=None)
        text = f"{sst_name(gone)}: missing in the source of this clone, memory://source"
        assert any(text in str(problem) for problem in report.problems), work
        assert any(problem.path == "/dir/file0" for problem in report.problems), work


async def test_the_source_is_copied_without_anything_of_its_clones(making):
    await making.make(MemoryStore())
    copy = await copy_of(making.source.store)
    assert await making.files(making.source, copy) == await making.files(making.source, making.source.store)
