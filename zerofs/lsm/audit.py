"""The store audit: does one version hold together with the objects that it names? Reads only (decisions 0009, 0010).

Checked: every SST of every tree is there, in order and within the key range and row count that the manifest gives;
every pointer row leads into a chunk SST that is there; every register equals a recount. What
the rows mean is the filesystem's to check.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from zerofs.errors import CorruptionError
from zerofs.lsm.format.header import HEADER_SIZE
from zerofs.lsm.format.manifest import Manifest, SstInfo, Tree
from zerofs.lsm.format.names import (
    FLOOR_NAME,
    MANIFEST_PREFIX,
    SST_PREFIX,
    WAL_PREFIX,
    SstId,
    manifest_name,
    parse_sst_name,
    parse_wal_name,
    sst_name,
)
from zerofs.lsm.format.register import referred_bytes
from zerofs.lsm.format.rows import Row
from zerofs.lsm.format.trees import CHUNK_PREFIX
from zerofs.lsm.format.wal import FENCE_OBJECT_MAX_SIZE
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.registers import RegisterView
from zerofs.lsm.sst import SstReader
from zerofs.lsm.storage import Storage


@dataclass(slots=True, frozen=True, kw_only=True)
class Finding:
    """Something that does not hold, and the object in which it was seen."""

    object_name: str
    problem: str


async def audit(storage: Storage, manifest: Manifest) -> list[Finding]:
    """All that is wrong with a version and its objects; empty when nothing is.

    Raises UnavailableError when the store does not answer.
    """
    sizes = {
        parse_sst_name(info.name): info.size_bytes
        for info in await storage.store.list(SST_PREFIX)
        if info.name.endswith(".sst")
    }
    findings: list[Finding] = []
    reader = SstReader(storage, manifest.tokens)
    referred: dict[SstId, int] = {}
    for tree in manifest.trees:
        for sst in _ssts(tree):
            if sizes.get(sst.sst) != sst.size_bytes:
                found = sizes.get(sst.sst)
                problem = "missing" if found is None else f"{found} bytes, the manifest says {sst.size_bytes}"
                findings.append(Finding(object_name=sst.name, problem=problem))
                continue
            try:
                async for rows in _blocks(reader, sst):
                    if tree.prefix == CHUNK_PREFIX:
                        for target, size in referred_bytes(rows).items():
                            referred[target] = referred.get(target, 0) + size
            except CorruptionError as error:
                findings.append(Finding(object_name=sst.name, problem=str(error)))
    missing = sorted(referred.keys() - sizes.keys())
    lost = [Finding(object_name=sst_name(sst), problem="missing, although pointer rows refer to it") for sst in missing]
    if findings:
        return findings + lost  # a recount of what cannot be read would only confuse
    return lost + await _check_registers(storage, manifest, referred, sizes)


async def unreferenced(storage: Storage) -> set[str]:
    """The objects that nothing refers to, found by reading every row of every view.

    What the collector would delete, by another way: no register is believed, nothing is in flight. For a volume that
    was flushed and is at rest; rows that only a WAL object has are not looked for.
    """
    manifests = ManifestStore(storage)
    newest = await manifests.latest()
    if newest is None:
        return set()
    needed = {FLOOR_NAME, manifest_name(newest.manifest_id), manifest_name(newest.manifest_id - 1)}
    needed |= {manifest_name(checkpoint.manifest_id) for checkpoint in newest.checkpoints}
    for view in [newest, *[await manifests.load(checkpoint.manifest_id) for checkpoint in newest.checkpoints]]:
        reader = SstReader(storage, view.tokens)
        for sst in [sst for tree in view.trees for sst in _ssts(tree)]:
            needed.add(sst.name)
            async for rows in _blocks(reader, sst):
                needed.update(map(sst_name, referred_bytes(rows)))
    for info in await storage.store.list(WAL_PREFIX):
        if parse_wal_name(info.name) > newest.wal_mark or info.size_bytes <= FENCE_OBJECT_MAX_SIZE:
            needed.add(info.name)
    listed = [
        info.name for prefix in (SST_PREFIX, WAL_PREFIX, MANIFEST_PREFIX) for info in await storage.store.list(prefix)
    ]
    return set(listed) - needed


async def _check_registers(
    storage: Storage, manifest: Manifest, referred: dict[SstId, int], sizes: dict[SstId, int]
) -> list[Finding]:
    findings = []
    left = dict(referred)
    async for sst, register in RegisterView(storage, manifest).all():
        counted = left.pop(sst, 0)
        if counted != register.live_bytes:
            problem = f"its register says {register.live_bytes} live bytes, pointer rows refer to {counted}"
            findings.append(Finding(object_name=sst_name(sst), problem=problem))
        if sst in sizes and sizes[sst] <= HEADER_SIZE + register.frame_bytes:
            problem = f"{sizes[sst]} bytes, its register says {register.frame_bytes} bytes of frames alone"
            findings.append(Finding(object_name=sst_name(sst), problem=problem))
    for sst, size in left.items():
        problem = f"it has no register, although pointer rows refer to {size} bytes of it"
        findings.append(Finding(object_name=sst_name(sst), problem=problem))
    return findings


def _ssts(tree: Tree) -> list[SstInfo]:
    return [sst for run in tree.runs for sst in run.ssts]


async def _blocks(reader: SstReader, sst: SstInfo) -> AsyncIterator[list[Row]]:
    """The rows of an SST, block by block. Raises CorruptionError when they are not what the manifest says."""
    index = await reader.index(sst)
    count, last = 0, b""
    for number in range(len(index.last_keys)):
        rows = list(await reader.block(sst, index, number))
        if rows[0][0] <= last and count:
            raise CorruptionError(f"block {number} begins before the end of the block before it")
        if not count and rows[0][0] != sst.first_key:
            raise CorruptionError("the first key is not the one that the manifest names")
        count, last = count + len(rows), rows[-1][0]
        yield rows
    if count != sst.row_count or last != sst.last_key:
        raise CorruptionError(f"{count} rows, the manifest says {sst.row_count}; or another last key")
