"""zerofs.admin.backup: a copy is the volume at one moment, however often its making was cut off."""

from contextlib import asynccontextmanager

import pytest
import trio

from tests.unit.admin import damage
from tests.unit.admin.damage import mounted, write
from tests.unit.lsm.kit import VOLUME_ID, Bed
from zerofs.admin.backup import backup, destination_storage, prepare
from zerofs.admin.fsck import fsck
from zerofs.crypto.kdf import KdfCost
from zerofs.errors import CorruptionError, NoVolumeError, RollbackError, ZerofsError
from zerofs.fs.filesystem import Filesystem
from zerofs.fs.options import FilesystemOptions
from zerofs.keys import vault
from zerofs.keys.password import check_password
from zerofs.lsm.audit import unreferenced
from zerofs.lsm.format.names import manifest_name, sst_name
from zerofs.lsm.manifests import ManifestStore
from zerofs.objectstore.faults import Fault, FaultyStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.probe import read_bucket_id
from zerofs.testing.world import SimWorld

KEY = "zerofs.key"


async def sidecar(volume_id=VOLUME_ID):
    """A key object that says that it is of a volume. Nothing here opens it."""
    store = MemoryStore()
    cost = KdfCost(memory_kib=8192, time_cost=1, parallelism=1)
    await vault.create(store, SimWorld(), check_password("correct horse"), cost)
    body = bytearray(await store.get(KEY))
    body[28:44] = volume_id
    return bytes(body)


class Source(Bed):
    """A volume with a key and some files."""

    async def make(self):
        self.held = await damage.make(self)
        await self.store.put(KEY, await sidecar())
        await self.store.put(".zerofs_bucket_id", b"11111111-1111-4111-8111-111111111111")
        return self

    async def pin(self, name):
        async with self.open() as engine:
            return (await engine.checkpoints.create(name)).manifest_id

    async def copy(self, dest, manifest_id, *, prune=False, rate=0.0):
        source = self.storage()
        storage = destination_storage(source, dest)
        await prepare(source, storage)
        return await backup(source, storage, manifest_id, rate_bytes_per_s=rate, prune=prune, progress=lambda *_: None)

    async def files(self, store):
        """What a volume holds, opened for reading by a machine that never saw it, after a check of all of it."""
        report = await damage.examined(self, lambda view, report: fsck(view, report, lambda *_: None), store=store)
        assert list(map(str, report.problems)) == []
        found = {}
        async with mounted_reader(self, store) as fs:
            handle = await fs.opendir(damage.ROOT, 1)
            entries = await fs.readdir(handle, 2, 1000)
            for entry in entries:
                if entry.name != b"dir":
                    found[entry.name] = await read(fs, entry.attributes)
            directory = next(entry.attributes.inode for entry in entries if entry.name == b"dir")
            for entry in await fs.readdir(await fs.opendir(damage.ROOT, directory), 2, 1000):
                found[b"dir/" + entry.name] = await read(fs, entry.attributes)
        return found


@asynccontextmanager
async def mounted_reader(bed, store):
    async with bed.open(store=store, host=f"new {bed.world.entropy(8).hex()}", read_only=True) as engine:
        yield await Filesystem.mount(engine, FilesystemOptions(read_only=True), bed.world)


async def read(fs, attributes):
    handle = await fs.open(damage.ROOT, attributes.inode, 0)
    data = await fs.read(handle, 0, attributes.size_bytes + 1)
    await fs.release(handle)
    return data


@pytest.fixture
async def source(tmp_path):
    return await Source(tmp_path).make()


async def names(store):
    return [info.name for info in await store.list("")]


async def test_a_copy_is_the_volume_and_can_be_written_to(source):
    dest = MemoryStore()
    result = await source.copy(dest, await source.pin("backup-1"))
    assert result.copied_objects == result.objects > 3
    assert await source.files(dest) == await source.files(source.store)
    assert await dest.get(KEY) == await source.store.get(KEY)
    assert await read_bucket_id(dest) != await read_bucket_id(source.store)
    copied = await ManifestStore(source.storage(dest)).latest()
    assert copied.checkpoints == ()
    assert not any(name.startswith("wal/") for name in await names(dest))
    assert await unreferenced(source.storage(dest)) == set()
    async with mounted(source, store=dest, host="other") as (engine, fs):
        await write(fs, b"new", b"n" * 100_000)
        await engine.checkpoints.create("of the copy")
        await engine.maintenance.tighten()
    assert (await source.files(dest))[b"new"] == b"n" * 100_000


async def test_a_second_run_copies_what_is_new(source):
    dest = MemoryStore()
    first = await source.copy(dest, await source.pin("backup-1"))
    async with mounted(source) as (_, fs):
        await write(fs, b"new", source.world.entropy(100_000))
    second = await source.copy(dest, await source.pin("backup-2"))
    assert 0 < second.copied_objects < first.copied_objects
    assert second.copied_bytes < second.size_bytes / 2
    assert await source.files(dest) == await source.files(source.store)
    third = await source.copy(dest, await source.pin("backup-3"))
    assert third.copied_objects == 0


async def test_the_same_state_twice(source):
    dest = MemoryStore()
    pin = await source.pin("backup-1")
    await source.copy(dest, pin)
    before = {info.name: info.version for info in await dest.list("")}
    assert (await source.copy(dest, pin)).copied_objects == 0
    assert {info.name: info.version for info in await dest.list("")} == before


async def test_pruning_deletes_what_the_state_does_not_need(source):
    dest = MemoryStore()
    await source.copy(dest, await source.pin("backup-1"))
    async with mounted(source) as (engine, fs):
        for number in range(5):
            await write(fs, b"new%d" % number, source.world.entropy(100_000))
        await engine.maintenance.tighten()
    pin = await source.pin("backup-2")
    kept = MemoryStore()
    for name in await names(dest):
        await kept.put(name, await dest.get(name))
    assert (await source.copy(kept, pin)).pruned_objects == 0
    result = await source.copy(dest, pin, prune=True)
    assert result.pruned_objects > 0
    assert len(await names(dest)) < len(await names(kept))
    assert await unreferenced(source.storage(dest)) == set()
    assert await source.files(dest) == await source.files(kept) == await source.files(source.store)
    assert await ManifestStore(source.storage(dest)).floor.get() == pin, "no id that was deleted is created again"
    assert (await source.copy(dest, await source.pin("backup-3"), prune=True)).copied_objects == 0


async def test_a_changed_key_is_copied(source):
    dest = MemoryStore()
    await source.copy(dest, await source.pin("backup-1"))
    changed = bytearray(await source.store.get(KEY))
    changed[12:28] = b"another put-id.."
    await source.store.put(KEY, bytes(changed))
    await source.copy(dest, await source.pin("backup-2"))
    assert await dest.get(KEY) == changed


async def test_a_writer_goes_on_meanwhile(source, autojump_clock):
    dest = MemoryStore()
    expected = await source.files(source.store)
    async with mounted(source) as (engine, fs):
        pin = (await engine.checkpoints.create("backup-1")).manifest_id

        async def keep_writing():
            for number in range(1000):
                await write(fs, b"late%d" % (number % 10), source.world.entropy(40_000))
                await fs.flush_all()
                await engine.maintenance.tighten()
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_writing)
            await trio.sleep(0.5)
            result = await source.copy(dest, pin, rate=100_000.0)
            nursery.cancel_scope.cancel()
    assert result.copied_bytes > 100_000
    assert await source.files(dest) == expected


async def test_the_rate_is_kept(source, autojump_clock):
    pin = await source.pin("backup-1")
    before = trio.current_time()
    result = await source.copy(MemoryStore(), pin, rate=50_000.0)
    last = max(info.size_bytes for info in await source.store.list("compacted/"))
    assert trio.current_time() - before >= (result.copied_bytes - 2 * last) / 50_000.0


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LOST_REPLY])
async def test_cut_off_at_every_call_and_run_again(source, autojump_clock, fault):
    """Incrementally: the destination has an earlier state, which it keeps until it has the later one."""
    ground = MemoryStore()
    await source.copy(ground, await source.pin("backup-1"))
    earlier = await source.files(ground)
    async with mounted(source) as (engine, fs):
        await write(fs, b"new", source.world.entropy(100_000))
        await engine.maintenance.tighten()
    pin = await source.pin("backup-2")
    later = await source.files(source.store)
    counting = FaultyStore(await clone(ground), source.world.random)
    await source.copy(counting, pin, prune=True)
    assert counting.calls > 10
    for call in range(counting.calls):
        dest = await clone(ground)
        faulty = FaultyStore(dest, source.world.random)
        faulty.plan(fault, skip=call)
        try:
            await source.copy(faulty, pin, prune=True)
        except ZerofsError:
            assert fault is not Fault.LOST_REPLY or call < counting.calls
        assert await source.files(dest) in (earlier, later), call
        await source.copy(dest, pin, prune=True)
        assert await source.files(dest) == later, call
        assert await unreferenced(source.storage(dest)) == set(), call


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
async def test_a_first_backup_that_was_cut_off_goes_on(source, autojump_clock, fault):
    pin = await source.pin("backup-1")
    expected = await source.files(source.store)
    counting = FaultyStore(MemoryStore(), source.world.random)
    whole = await source.copy(counting, pin)
    for call in range(counting.calls):
        dest = MemoryStore()
        faulty = FaultyStore(dest, source.world.random)
        faulty.plan(fault, skip=call)
        with pytest.raises(ZerofsError):
            await source.copy(faulty, pin)
        there = [name for name in await names(dest) if name.startswith("compacted/")]
        if KEY in await names(dest):
            assert await source.files(dest) == expected
        again = await source.copy(dest, pin)
        assert again.copied_objects == whole.objects - len(there), call
        assert await source.files(dest) == expected


async def clone(store):
    copy = MemoryStore()
    for name in await names(store):
        await copy.put(name, await store.get(name))
    return copy


async def foreign_key(source, dest):
    await dest.put(KEY, await sidecar(bytes(16)))
    return NoVolumeError, "holds another volume, 00000000000000000000000000000000"


async def foreign_file(source, dest):
    await dest.put("thesis.txt", b"...")
    return NoVolumeError, "is not empty and no backup of this volume"


async def foreign_sst(source, dest):
    name = sst_name((await damage.chunk_ssts(source))[0])
    body = bytearray(await source.store.get(name))
    body[32:48] = bytes(16)
    await dest.put(name, bytes(body))
    return NoVolumeError, "is not empty and no backup of this volume"


async def foreign_manifest(source, dest):
    body = bytearray(await source.store.get(manifest_name((await damage.newest(source)).manifest_id)))
    body[32:48] = bytes(16)
    await dest.put(manifest_name(1), bytes(body))
    return NoVolumeError, "is not empty and no backup of this volume"


async def written_to(source, dest):
    await source.copy(dest, await source.pin("before"))
    async with mounted(source, store=dest, host="other") as (_, fs):
        await write(fs, b"new", b"")
    return RollbackError, "a later state than|is not a state that the volume came by"


async def written_to_and_overtaken(source, dest):
    await written_to(source, dest)
    for number in range(8):
        await source.pin(f"pin{number}")
    return RollbackError, "is not a state that the volume came by"


@pytest.mark.parametrize(
    "make", [foreign_key, foreign_file, foreign_sst, foreign_manifest, written_to, written_to_and_overtaken]
)
async def test_what_is_no_backup_of_this_volume_is_refused_and_left_alone(source, make):
    dest = MemoryStore()
    error, text = await make(source, dest)
    before = {info.name: info.version for info in await dest.list("")}
    pin = await source.pin("backup-1")
    with pytest.raises(error, match=text):
        await source.copy(dest, pin)
    assert {info.name: info.version for info in await dest.list("")} == before


async def test_an_older_checkpoint_does_not_replace_a_newer_backup(source):
    dest = MemoryStore()
    older, newer = await source.pin("older"), await source.pin("newer")
    await source.copy(dest, newer)
    with pytest.raises(RollbackError, match="a later state than"):
        await source.copy(dest, older)


async def test_a_leftover_of_another_history_is_replaced(source):
    dest = MemoryStore()
    pin = await source.pin("backup-1")
    name = sst_name((await damage.chunk_ssts(source))[0])
    body = bytearray(await source.store.get(name))
    body[20] ^= 1  # another put-id
    await dest.put(name, bytes(body))
    await source.copy(dest, pin)
    assert await dest.get(name) == await source.store.get(name)
    assert await source.files(dest) == await source.files(source.store)


async def test_a_damaged_source_is_named(source):
    pin = await source.pin("backup-1")
    name = sst_name((await damage.chunk_ssts(source))[0])
    whole = await source.store.get(name)
    await source.store.put(name, whole[:-1])
    with pytest.raises(CorruptionError, match="run `zerofs fsck`"):
        await source.copy(MemoryStore(), pin)
    await source.store.delete(name)
    with pytest.raises(CorruptionError, match=f"{name}: missing"):
        await source.copy(MemoryStore(), pin)


async def test_a_copied_bucket_id_is_replaced(source):
    dest = await clone(source.store)
    for name in await names(dest):
        if name.startswith(("manifest/", "wal/")):
            await dest.delete(name)
    await source.copy(dest, await source.pin("backup-1"))
    assert await read_bucket_id(dest) != await read_bucket_id(source.store)
