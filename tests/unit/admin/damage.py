"""A small filesystem on an engine in memory, closed, and ways to damage what is stored."""

import os
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.unit.lsm.kit import VOLUME_ID, Bed
from zerofs.admin.examination import Report, examine
from zerofs.fs.access import Caller
from zerofs.fs.filesystem import Filesystem
from zerofs.fs.options import FilesystemOptions
from zerofs.lsm.format.header import HEADER_SIZE
from zerofs.lsm.format.names import parse_sst_name
from zerofs.lsm.format.trees import CHUNK_PREFIX
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.registers import RegisterView
from zerofs.units import CHUNK_SIZE

ROOT = Caller(uid=0, gid=0)


@asynccontextmanager
async def mounted(bed: Bed, **kwargs):
    """The engine and the filesystem of a bed."""
    async with bed.open(**kwargs) as engine:
        fs = await Filesystem.mount(engine, FilesystemOptions(), bed.world)
        yield engine, fs
        await fs.close()


async def write(fs, name: bytes, data: bytes, directory: int = 1) -> int:
    """A file with contents; its inode."""
    handle, made = await fs.create(ROOT, directory, name, 0o644, os.O_RDWR | os.O_TRUNC)
    for start in range(0, len(data), 128 * 1024):
        await fs.write(handle, start, data[start : start + 128 * 1024])
    await fs.release(handle)
    fs.forget(made.inode, 1)
    return made.inode


async def make(bed: Bed, files: int = 3) -> dict[bytes, bytes]:
    """Create the volume: /dir/file0 … and many small files, so that there are several SSTs. Returns the large ones."""
    await bed.create()
    held = {}
    async with mounted(bed) as (_, fs):
        directory = await fs.mkdir(ROOT, 1, b"dir", 0o755)
        for number in range(files):
            name = b"file%d" % number
            held[name] = bed.world.entropy(4 * CHUNK_SIZE + number)
            await write(fs, name, held[name], directory.inode)
        for number in range(60):
            await write(fs, b"small%02d" % number, b"x" * 500)
    return held


async def newest(bed: Bed):
    """The newest manifest."""
    found = await ManifestStore(bed.storage()).latest()
    assert found is not None
    return found


async def meta_ssts(bed: Bed, prefix: bytes = b"meta"):
    """The SSTs of a tree."""
    return [sst for run in (await newest(bed)).tree(prefix).runs for sst in run.ssts]


async def chunk_ssts(bed: Bed):
    """The chunk SSTs with a register."""
    storage = bed.storage()
    manifest = await ManifestStore(storage).latest()
    assert manifest is not None
    return [sst async for sst, _ in RegisterView(storage, manifest).all()]


async def flip(store, name: str, at: int) -> None:
    """Change one bit of an object."""
    body = bytearray(await store.get(name))
    body[at] ^= 1
    await store.put(name, bytes(body))


async def examined(bed: Bed, work, *, checkpoint: str | None = None, store=None) -> Report:
    """The report of an examination."""
    return await examine(bed.storage(store), work, checkpoint=checkpoint, seen=None)


__all__ = ["CHUNK_PREFIX", "VOLUME_ID", "parse_sst_name"]


async def flip_block(bed):
    """Damage the first block of a meta SST; how a finding about it begins."""
    (sst, *_) = await meta_ssts(bed)
    await flip(bed.store, sst.name, HEADER_SIZE + 40)
    return f"{sst.name}: at byte {HEADER_SIZE}: "


async def flip_index(bed):
    """Damage the index of a meta SST; how a finding about it begins."""
    (sst, *_) = await meta_ssts(bed)
    await flip(bed.store, sst.name, sst.size_bytes - 1)
    return f"{sst.name}: at byte {sst.size_bytes - sst.index_length}: "


async def empty_tree(bed, prefix):
    """Make a version in which a tree has lost all its runs."""
    manifest = await newest(bed)
    manifests = ManifestStore(bed.storage())
    await manifests.latest()
    wrong = manifest.with_trees(replace(manifest.tree(prefix), runs=()))
    await manifests.create(replace(wrong, manifest_id=manifest.manifest_id + 1, put_id=b""))
