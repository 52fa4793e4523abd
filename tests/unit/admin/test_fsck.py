"""zerofs.admin.fsck: every kind of damage to what is stored is found and named, and nothing is written."""

from dataclasses import replace

import pytest

from tests.unit.admin import damage
from tests.unit.admin.damage import mounted, write
from tests.unit.lsm.kit import Bed, Crash, chunk_key
from zerofs.admin.fsck import fsck
from zerofs.errors import UnsupportedFormatError, ZerofsError
from zerofs.fs.format import keys
from zerofs.fs.format.records import Superblock, decode_inode, encode_superblock
from zerofs.lsm.format.names import manifest_name, sst_name, wal_name
from zerofs.lsm.manifests import ManifestStore


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await damage.make(bed)
    return bed


async def check(bed, **kwargs):
    return await damage.examined(bed, lambda view, report: fsck(view, report, lambda *_: None), **kwargs)


async def check_unchanged(bed, **kwargs):
    """The report, after making sure that the check wrote nothing."""
    before = {info.name: info.version for info in await bed.store.list("")}
    report = await check(bed, **kwargs)
    assert {info.name: info.version for info in await bed.store.list("")} == before
    return report


def lines(report):
    return [str(problem) for problem in report.problems]


async def test_a_healthy_volume_is_clean(bed):
    report = await check_unchanged(bed)
    assert lines(report) == []
    assert report.counted["inodes"] == 65
    assert report.counted["names"] == 64
    assert report.counted["chunks"] == 4 + 5 + 5
    assert report.to_json()["clean"] is True


async def test_a_volume_that_nobody_mounted_is_clean(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    assert lines(await check(bed)) == []


async def test_what_only_the_wal_has_is_checked_too(bed):
    with pytest.raises((Crash, BaseExceptionGroup)):
        async with mounted(bed) as (_, fs):
            await write(fs, b"late", b"x" * 40_000)
            await fs.flush_all()
            handle, _ = await fs.create(damage.ROOT, 1, b"open", 0o644, 2)
            await fs.write(handle, 0, b"x" * 40_000)
            await fs.unlink(damage.ROOT, 1, b"open")
            await fs.sync()
            raise Crash
    report = await check_unchanged(bed)
    assert lines(report) == []
    assert report.counted["orphans"] == 1, "an orphan of a crash is reclaimed by the next mount"
    assert report.counted["chunks"] == 4 + 5 + 5 + 2 + 2


async def lose_meta(bed):
    (sst, *_) = await damage.meta_ssts(bed)
    await bed.store.delete(sst.name)
    return f"{sst.name}: missing"


async def cut_meta(bed):
    (sst, *_) = await damage.meta_ssts(bed)
    await bed.store.put(sst.name, (await bed.store.get(sst.name))[:-1])
    return f"{sst.name}: {sst.size_bytes - 1} bytes, the manifest says {sst.size_bytes}"


async def swap_ssts(bed):
    first, second = (await damage.meta_ssts(bed))[:2]
    body = await bed.store.get(first.name)
    await bed.store.put(second.name, body)
    return f"{second.name}: "


async def lose_pointers(bed):
    (sst, *_) = await damage.meta_ssts(bed, b"chunk")
    await bed.store.delete(sst.name)
    return f"{sst.name}: missing"


async def lose_registers(bed):
    (sst, *_) = await damage.meta_ssts(bed, b"space")
    await bed.store.delete(sst.name)
    return f"{sst.name}: missing"


async def lose_chunks(bed):
    sst = (await damage.chunk_ssts(bed))[0]
    await bed.store.delete(sst_name(sst))
    return f"{sst_name(sst)}: missing, although pointer rows refer to it"


async def cut_chunks(bed):
    sst = (await damage.chunk_ssts(bed))[0]
    await bed.store.put(sst_name(sst), (await bed.store.get(sst_name(sst)))[:2000])
    return f"{sst_name(sst)}: 2000 bytes, its register says"


async def lose_manifest_before(bed):
    manifest = await damage.newest(bed)
    await bed.store.delete(manifest_name(manifest.manifest_id - 1))
    return f"the filesystem: the volume cannot be opened or read: {manifest_name(manifest.manifest_id - 1)}: missing"


async def flip_manifest(bed):
    name = manifest_name((await damage.newest(bed)).manifest_id)
    await damage.flip(bed.store, name, 100)
    return f"the filesystem: the volume cannot be opened or read: {name}: "


async def lose_wal(bed):
    with pytest.raises((Crash, BaseExceptionGroup)):
        async with mounted(bed) as (_, fs):
            for name in (b"a", b"b"):
                await write(fs, name, b"x")
                await fs.sync()
            raise Crash
    lost = wal_name((await damage.newest(bed)).wal_mark + 2)
    await bed.store.delete(lost)
    return f"the filesystem: the volume cannot be opened or read: {lost}: missing"


async def lose_pin(bed):
    async with bed.open() as engine:
        pin = await engine.checkpoints.create("pin")
        await engine.checkpoints.create("another")
    await bed.store.delete(manifest_name(pin.manifest_id))
    return f"{manifest_name(pin.manifest_id)}: checkpoint pin cannot be opened: "


async def wrong_register(bed):
    """A version whose chunk tree lost a run that its registers count."""
    await damage.empty_tree(bed, b"chunk")
    return f"{sst_name((await damage.chunk_ssts(bed))[0])}: its register says"


async def no_register(bed):
    name = sst_name((await damage.chunk_ssts(bed))[0])
    await damage.empty_tree(bed, b"space")
    return f"{name}: it has no register, although"


async def foreign_tree(bed):
    """A version that gives a run of one tree to another."""
    manifest = await damage.newest(bed)
    runs = manifest.tree(b"chunk").runs
    manifests = ManifestStore(bed.storage())
    await manifests.latest()
    wrong = manifest.with_trees(replace(manifest.tree(b"meta"), runs=runs), replace(manifest.tree(b"chunk"), runs=()))
    await manifests.create(replace(wrong, manifest_id=manifest.manifest_id + 1, put_id=b""))
    return f"{runs[0].ssts[0].name}: it holds rows of another tree"


OBJECT_DAMAGES = [
    lose_meta, cut_meta, damage.flip_block, damage.flip_index, swap_ssts, lose_pointers, lose_registers,
    lose_chunks, cut_chunks, lose_manifest_before, flip_manifest, lose_wal, lose_pin, wrong_register,
    no_register, foreign_tree,
]  # fmt: skip


@pytest.mark.parametrize("do", OBJECT_DAMAGES)
async def test_a_damaged_store_is_named(bed, do):
    expected = await do(bed)
    report = await check_unchanged(bed)
    assert not report.is_clean
    assert any(line.startswith(expected) for line in lines(report)), (expected, lines(report))


async def test_a_lost_chunk_object_names_the_files(bed):
    for sst in await damage.chunk_ssts(bed):
        await bed.store.delete(sst_name(sst))
    found = lines(await check(bed))
    for number in range(3):
        chunks = 4 if number == 0 else 5
        assert any(
            line.startswith(f"/dir/file{number}: {chunks} chunks cannot be read, from byte 0 on: ") for line in found
        ), found


async def test_a_chunk_object_that_was_cut_short_names_the_files(bed):
    for sst in await damage.chunk_ssts(bed):
        await bed.store.put(sst_name(sst), (await bed.store.get(sst_name(sst)))[:40_000])
    found = [line for line in lines(await check(bed)) if line.startswith("/dir/file")]
    assert found
    assert all("cannot be read, from byte " in line and line.endswith(".sst is cut short") for line in found)


async def edit(bed, change):
    """Commit rows that no filesystem would."""
    async with bed.open() as engine:
        await change(engine)


async def drop_chunk(engine):
    engine.commit([(chunk_key(3, 1), None)])


async def stray_inode(engine):
    key = keys.inode_key(3)
    node = decode_inode(3, key, await engine.get(key))
    node.number, node.nlink = 999, 1
    engine.commit([(keys.inode_key(999), node.encode())])


async def wrong_row(engine):
    engine.commit([(keys.inode_key(3), b"?")])


ROW_DAMAGES = {
    "a chunk is gone": (drop_chunk, "/dir/file0: [8] inode 3 has no holes, but chunk 1 is missing"),
    "an inode is nowhere": (stray_inode, "inode 999: [3] inode 999 cannot be reached and is no orphan"),
    "a row is garbage": (wrong_row, "/dir/file0: [16] "),
}


@pytest.mark.parametrize("what", ROW_DAMAGES)
async def test_damaged_rows_are_named_by_path(bed, what):
    change, expected = ROW_DAMAGES[what]
    await edit(bed, change)
    found = lines(await check_unchanged(bed))
    assert any(line.startswith(expected) for line in found), found


async def test_a_newer_filesystem_is_not_judged(bed):
    async with bed.open() as engine:
        engine.commit([(keys.SUPERBLOCK_KEY, encode_superblock(Superblock(0, 2)))])
    with pytest.raises(UnsupportedFormatError, match="use a newer zerofs"):
        await check(bed)


async def test_a_checkpoint_is_checked_while_a_writer_goes_on(bed):
    async with mounted(bed) as (engine, fs):
        await engine.checkpoints.create("then")
        for number in range(20):
            await write(fs, b"more%d" % number, b"y" * 50_000)
        await engine.maintenance.tighten()
        report = await check(bed, checkpoint="then")
        assert lines(report) == []
        assert report.counted["inodes"] == 65
    assert (await check(bed)).counted["inodes"] == 85


class Overtaken:
    """A store whose volume a writer changes and tightens at the first look at an SST."""

    def __init__(self, bed, times):
        self._bed = bed
        self._times = times

    def __getattr__(self, name):
        return getattr(self._bed.store, name)

    async def list(self, prefix, start_after=""):
        if prefix == "compacted/" and self._times:
            self._times -= 1
            async with mounted(self._bed) as (engine, fs):
                for number in range(3):
                    await write(fs, b"other%d" % number, b"z" * 50_000)
                await engine.maintenance.tighten()
        return await self._bed.store.list(prefix, start_after)


async def test_what_a_writer_collects_meanwhile_is_no_damage(bed):
    assert lines(await check(bed, store=Overtaken(bed, 1))) == []
    with pytest.raises(ZerofsError, match="is being written to"):
        await check(bed, store=Overtaken(bed, 100))


async def test_a_report_has_a_limit(bed, monkeypatch):
    monkeypatch.setattr("zerofs.admin.examination.PROBLEMS_MAX", 2)
    for sst in await damage.meta_ssts(bed):
        await bed.store.delete(sst.name)
    report = await check(bed)
    assert len(report.problems) == 2
    assert report.to_json()["problem_count"] == 2 + report.left_out > 2
