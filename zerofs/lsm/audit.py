"""The store audit: does one version hold together with the objects that it names? Reads only (decisions 0009, 0010).

Checked: every SST of every tree is there, in order and within the key range and row count that the manifest gives;
every pointer row leads into a chunk SST that is there; every register equals a recount. What
the rows mean is the filesystem's to check.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
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
    return await Auditor(storage, await list_ssts(storage)).view(manifest)


async def list_ssts(storage: Storage) -> dict[SstId, int]:
    """Every SST that the volume may refer to, of either family, with its size in bytes: also those of its sources."""
    sizes = {}
    for origin in storage.origins.all():
        for info in await origin.list(SST_PREFIX):
            with contextlib.suppress(CorruptionError):  # a name that is not ours: somebody else put it there
                sst = parse_sst_name(info.name)
                if storage.origins.of(sst[0]) is origin:
                    sizes[sst] = info.size_bytes
    return sizes


async def load_views(storage: Storage, newest: Manifest) -> tuple[list[Manifest], list[Finding]]:
    """The newest version and those that checkpoints pin; and what is wrong with the latters' manifests."""
    manifests = ManifestStore(storage)
    views, findings = [newest], []
    for checkpoint in newest.checkpoints:
        try:
            views.append(await manifests.load(checkpoint.manifest_id))
        except CorruptionError as error:
            name = manifest_name(checkpoint.manifest_id)
            problem = f"checkpoint {checkpoint.name} cannot be opened: {_bare(name, error)}"
            findings.append(Finding(object_name=name, problem=problem))
    return views, findings


class Auditor:
    """Audits versions of one volume one after the other. What several of them share is read once.

    `sizes`: the SSTs that are in the store. Memory: for each SST of the chunk trees, which chunk SSTs it refers to.
    """

    def __init__(
        self, storage: Storage, sizes: Mapping[SstId, int], seen: Callable[[SstInfo], None] | None = None
    ) -> None:
        self._storage = storage
        self._sizes = sizes
        self._seen = seen
        """Called after each SST that was read."""
        self._referred: dict[SstId, dict[SstId, int]] = {}
        self._told: set[Finding] = set()
        self._unreadable: set[SstId] = set()
        self.lost: set[SstId] = set()
        """Chunk SSTs that pointer rows refer to and that are not there."""
        self.damaged: list[SstInfo] = []
        """Meta SSTs that could not be read."""

    async def view(self, manifest: Manifest) -> list[Finding]:
        """What is wrong with a version that was not told for an earlier one. Raises UnavailableError."""
        findings: list[Finding] = []
        reader = SstReader(self._storage, manifest.tokens)
        referred: dict[SstId, int] = {}
        is_readable = True
        for tree in manifest.trees:
            for sst in _ssts(tree):
                findings += await self._sst(reader, sst, tree.prefix)
                is_readable = is_readable and sst.sst not in self._unreadable
                for target, size in self._referred.get(sst.sst, {}).items():
                    referred[target] = referred.get(target, 0) + size
        missing = sorted(referred.keys() - self._sizes.keys())
        self.lost.update(missing)
        findings += [
            Finding(object_name=sst_name(sst), problem=f"missing{self._where(sst)}, although pointer rows refer to it")
            for sst in missing
        ]
        if is_readable:  # else a recount of what cannot be read would only confuse
            try:
                findings += await self._check_registers(manifest, referred)
            except CorruptionError as error:
                findings.append(Finding(object_name=manifest_name(manifest.manifest_id), problem=f"registers: {error}"))
        fresh = [finding for finding in findings if finding not in self._told]
        self._told.update(fresh)
        return fresh

    async def _sst(self, reader: SstReader, sst: SstInfo, prefix: bytes) -> list[Finding]:
        """Read a meta SST, unless an earlier version had it too."""
        if sst.sst in self._referred or sst.sst in self._unreadable:
            return []
        found = self._sizes.get(sst.sst)
        problem = ""
        referred: dict[SstId, int] = {}
        if found != sst.size_bytes:
            problem = "missing" if found is None else f"{found} bytes, the manifest says {sst.size_bytes}"
            problem += self._where(sst.sst)
        else:
            try:
                async for rows in read_blocks(reader, sst, prefix):
                    if prefix == CHUNK_PREFIX:
                        for target, size in referred_bytes(rows).items():
                            referred[target] = referred.get(target, 0) + size
            except CorruptionError as error:
                problem = _bare(sst.name, error)
        if self._seen is not None:
            self._seen(sst)
        if not problem:
            self._referred[sst.sst] = referred
            return []
        self._unreadable.add(sst.sst)
        self.damaged.append(sst)
        return [Finding(object_name=sst.name, problem=problem)]

    def _where(self, sst: SstId) -> str:
        return self._storage.origins.of(sst[0]).where

    async def _check_registers(self, manifest: Manifest, referred: dict[SstId, int]) -> list[Finding]:
        findings = []
        left = dict(referred)
        sizes = self._sizes
        async for sst, register in RegisterView(self._storage, manifest).all():
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
            async for rows in read_blocks(reader, sst):
                needed.update(map(sst_name, referred_bytes(rows)))
    for info in await storage.store.list(WAL_PREFIX):
        if parse_wal_name(info.name) > newest.wal_mark or info.size_bytes <= FENCE_OBJECT_MAX_SIZE:
            needed.add(info.name)
    listed = [
        info.name for prefix in (SST_PREFIX, WAL_PREFIX, MANIFEST_PREFIX) for info in await storage.store.list(prefix)
    ]
    return set(listed) - needed


def _ssts(tree: Tree) -> list[SstInfo]:
    return [sst for run in tree.runs for sst in run.ssts]


def _bare(name: str, error: CorruptionError) -> str:
    """What an error says, without the name of the object that it begins with."""
    return str(error).removeprefix(f"{name}: ").removeprefix(f"{name} ")


async def read_blocks(reader: SstReader, sst: SstInfo, prefix: bytes = b"") -> AsyncIterator[list[Row]]:
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
    if count and not (sst.first_key.startswith(prefix) and last.startswith(prefix)):
        raise CorruptionError("it holds rows of another tree")
    if count != sst.row_count or last != sst.last_key:
        raise CorruptionError(f"{count} rows, the manifest says {sst.row_count}; or another last key")
