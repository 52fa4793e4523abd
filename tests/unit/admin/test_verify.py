"""zerofs.admin.verify: what is missing is found by a LIST, what is damaged by opening it; files are named."""

from dataclasses import replace

import pytest
import trio

from tests.unit.admin import damage
from tests.unit.admin.damage import mounted, write
from tests.unit.lsm.kit import Bed, Crash, chunk_key
from zerofs.admin.throttle import Throttle
from zerofs.admin.verified import Verified
from zerofs.admin.verify import verify_full, verify_quick
from zerofs.errors import UnavailableError
from zerofs.lsm.format.header import HEADER_SIZE
from zerofs.lsm.format.names import manifest_name, sst_name
from zerofs.lsm.format.pointer import decode_pointer, encode_pointer
from zerofs.lsm.format.rows import POINTER
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sst import SstReader, put_meta_sst
from zerofs.objectstore.faults import Fault, FaultyStore


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await damage.make(bed)
    return bed


def nothing(*_):
    return None


async def quick(bed, **kwargs):
    return await damage.examined(bed, lambda view, report: verify_quick(view, report, nothing), **kwargs)


async def full(bed, done=None, rate=0.0, **kwargs):
    done = done or Verified()

    async def work(view, report):
        await verify_full(view, report, nothing, Throttle(rate), done)

    before = {info.name: info.version for info in await bed.store.list("")}
    report = await damage.examined(bed, work, **kwargs)
    assert {info.name: info.version for info in await bed.store.list("")} == before
    return report


def lines(report):
    return [str(problem) for problem in report.problems]


async def test_a_healthy_volume(bed):
    assert lines(await quick(bed)) == []
    report = await full(bed)
    assert lines(report) == []
    assert report.counted["frames"] > 14
    stored = sum(info.size_bytes for info in await bed.store.list("compacted/"))
    assert report.counted["bytes"] <= stored


async def test_frames_of_the_wal_are_opened(bed):
    with pytest.raises((Crash, BaseExceptionGroup)):
        async with mounted(bed) as (_, fs):
            await write(fs, b"late", bed.world.entropy(40_000))
            await fs.sync()
            raise Crash
    before = (await full(bed)).counted["frames"]
    (last,) = [info.name for info in await bed.store.list("wal/") if info.size_bytes > 40_000][-1:]
    size = (await bed.store.head(last)).size_bytes
    await damage.flip(bed.store, last, size - 10)
    report = await full(bed)
    assert report.counted["frames"] == before
    assert lines(report)[0].startswith(f"{last}: frame at byte ")


async def lose_chunks(bed):
    sst = (await damage.chunk_ssts(bed))[0]
    await bed.store.delete(sst_name(sst))
    return f"{sst_name(sst)}: missing, although"


async def cut_chunks(bed):
    sst = (await damage.chunk_ssts(bed))[0]
    await bed.store.put(sst_name(sst), (await bed.store.get(sst_name(sst)))[:2000])
    return f"{sst_name(sst)}: 2000 bytes, its register says"


async def lose_meta(bed):
    (sst, *_) = await damage.meta_ssts(bed)
    await bed.store.delete(sst.name)
    return f"{sst.name}: missing"


async def cut_meta(bed):
    (sst, *_) = await damage.meta_ssts(bed)
    await bed.store.put(sst.name, b"short")
    return f"{sst.name}: 5 bytes, the manifest says"


async def lose_object_of_a_checkpoint(bed):
    async with mounted(bed) as (engine, fs):
        await engine.checkpoints.create("then")
        for number in range(3):
            await fs.unlink(damage.ROOT, 2, b"file%d" % number)
        await fs.flush_all()
        await engine.maintenance.tighten()
    then = (await damage.newest(bed)).checkpoints[0].manifest_id
    manifest = await ManifestStore(bed.storage()).load(then)
    (sst, *_) = [sst for run in manifest.tree(b"chunk").runs for sst in run.ssts]
    await bed.store.delete(sst.name)
    return f"{sst.name}: missing"


async def lose_manifest_of_a_checkpoint(bed):
    async with bed.open() as engine:
        pin = await engine.checkpoints.create("pin")
        await engine.checkpoints.create("another")
    await bed.store.delete(manifest_name(pin.manifest_id))
    return f"{manifest_name(pin.manifest_id)}: checkpoint pin cannot be opened"


async def damage_registers(bed):
    (sst, *_) = await damage.meta_ssts(bed, b"space")
    await damage.flip(bed.store, sst.name, HEADER_SIZE + 30)
    return "the filesystem: the registers of manifest "


QUICK = [
    lose_chunks, cut_chunks, lose_meta, cut_meta, lose_object_of_a_checkpoint, lose_manifest_of_a_checkpoint,
    damage_registers,
]  # fmt: skip


async def flip_frame(bed):
    sst = (await damage.chunk_ssts(bed))[0]
    await damage.flip(bed.store, sst_name(sst), HEADER_SIZE + 100)
    return f"{sst_name(sst)}: frame at byte {HEADER_SIZE}: "


async def flip_nonce(bed):
    sst = (await damage.chunk_ssts(bed))[0]
    await damage.flip(bed.store, sst_name(sst), HEADER_SIZE + 6)
    return f"{sst_name(sst)}: frame at byte {HEADER_SIZE}: it is another frame than its directory names"


async def flip_directory(bed):
    sst = (await damage.chunk_ssts(bed))[0]
    await damage.flip(bed.store, sst_name(sst), (await bed.store.head(sst_name(sst))).size_bytes - 1)
    return f"{sst_name(sst)}: "


async def flip_header(bed):
    sst = (await damage.chunk_ssts(bed))[0]
    await damage.flip(bed.store, sst_name(sst), 33)
    return f"{sst_name(sst)}: belongs to another volume"


async def another_chunk_object(bed):
    first, second = (await damage.chunk_ssts(bed))[:2]
    await bed.store.put(sst_name(second), await bed.store.get(sst_name(first)))
    return f"{sst_name(second)}: "


async def crooked_pointer(bed):
    """A version in which a pointer row names another frame of the same object."""
    storage, manifest = bed.storage(), await damage.newest(bed)
    tree = manifest.tree(b"chunk")
    (run, *_) = tree.runs
    (info,) = run.ssts
    reader = SstReader(storage, manifest.tokens)
    index = await reader.index(info)
    rows = [row for number in range(len(index.last_keys)) for row in await reader.block(info, index, number)]
    pointers = [decode_pointer(value) for _, kind, value in rows if kind == POINTER]
    rows[0] = (rows[0][0], POINTER, encode_pointer(pointers[0]._replace(nonce=pointers[1].nonce)))
    sst = (manifest.epoch, 999)
    other = await put_meta_sst(storage, sst, manifest.token, rows, KeyRanges(), 1024)
    manifests = ManifestStore(storage)
    await manifests.latest()
    wrong = manifest.with_trees(replace(tree, runs=(replace(run, ssts=(other,)), *tree.runs[1:])))
    await manifests.create(replace(wrong, manifest_id=manifest.manifest_id + 1, put_id=b""))
    return "/dir/file0: chunk 0 is not the frame that lies in"


FULL = [
    flip_frame, flip_nonce, flip_directory, flip_header, another_chunk_object, damage.flip_block, damage.flip_index,
    crooked_pointer,
]  # fmt: skip


@pytest.mark.parametrize("do", QUICK)
async def test_what_is_missing_is_found_by_both(bed, do):
    expected = await do(bed)
    for report in (await quick(bed), await full(bed)):
        assert any(line.startswith(expected) for line in lines(report)), (expected, lines(report))


@pytest.mark.parametrize("do", FULL)
async def test_what_is_damaged_is_found_by_opening_it(bed, do):
    expected = await do(bed)
    report = await full(bed)
    assert any(line.startswith(expected) for line in lines(report)), (expected, lines(report))


async def test_damaged_files_are_named(bed):
    for sst in await damage.chunk_ssts(bed):
        await damage.flip(bed.store, sst_name(sst), HEADER_SIZE + 100)
    assert lines(await quick(bed)) == []
    named = [line for line in lines(await full(bed)) if line.startswith("/dir/file")]
    assert named
    assert all("cannot be read, from byte 0 on: compacted/" in line and line.endswith("is damaged") for line in named)


async def test_an_overwritten_file_is_still_whole(bed):
    """A frame that no row refers to is told of with its object, and with no file."""
    async with bed.open() as engine:
        engine.commit([(chunk_key(3, 0), None)])
    sst = (await damage.chunk_ssts(bed))[0]
    await damage.flip(bed.store, sst_name(sst), HEADER_SIZE + 100)
    found = lines(await full(bed))
    assert len([line for line in found if line.startswith(sst_name(sst))]) == 1
    assert not any(line.startswith("/dir/file0: 1 chunk cannot") for line in found)


async def test_one_that_was_interrupted_goes_on(bed, tmp_path, autojump_clock):
    path = tmp_path / "state" / "verify" / "x"
    whole = (await full(bed)).counted["objects"]
    done = Verified(path)
    faulty = FaultyStore(bed.store, bed.world.random)
    first = sst_name(min(await damage.chunk_ssts(bed)))
    faulty.plan(Fault.CRASH_AFTER, name_part="compacted/", skip=len(await bed.store.list("compacted/")))
    with pytest.raises(UnavailableError):
        await full(bed, done, store=faulty)
    done.close()
    again = Verified(path)
    known = again.resume()
    assert 0 < known < whole
    assert again.has(first, (await bed.store.head(first)).size_bytes)
    assert not again.has(first, 1)
    report = await full(bed, again)
    assert lines(report) == []
    assert report.counted["objects_verified_before"] == known
    again.finish()
    assert not path.exists()
    assert Verified(path).resume() == 0


async def test_what_is_damaged_is_not_remembered_as_done(bed, tmp_path):
    sst = (await damage.chunk_ssts(bed))[0]
    await damage.flip(bed.store, sst_name(sst), HEADER_SIZE + 100)
    done = Verified(tmp_path / "x")
    first = lines(await full(bed, done))
    done.close()
    again = Verified(tmp_path / "x")
    assert again.resume() > 0
    assert set(lines(await full(bed, again))) == set(first)


def test_a_damaged_memory_is_no_memory(tmp_path):
    path = tmp_path / "x"
    done = Verified(path)
    done.add("a", 1)
    done.add("b", 2)
    done.close()
    path.write_text(path.read_text()[:-1])
    again = Verified(path)
    assert again.resume() == 1
    assert again.has("a", 1)
    assert not again.has("b", 2)
    path.write_bytes(b"\xff\xff\n")
    assert Verified(path).resume() == 0


async def test_the_rate_is_kept(bed, autojump_clock):
    before = trio.current_time()
    report = await full(bed, rate=50_000.0)
    last = max(info.size_bytes for info in await bed.store.list("compacted/"))
    assert trio.current_time() - before >= (report.counted["bytes"] - last) / 50_000.0
