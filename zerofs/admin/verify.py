"""Verifying that what the volume refers to is there (quick), and that every frame of it opens (full). Changes nothing.

Quick is a LIST, the registers of every version, and a comparison of names and sizes. Full reads every object once: the
blocks and the index of a metadata object, the directory and every frame of a chunk object, frames that only the WAL
has; and holds each pointer row against the directory of the object that it leads into.

Memory: one object at a time, up to 64 MiB, and the directories of DIRECTORIES_MAX objects.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from zerofs.admin.examination import LostChunks, Problem, Progress, Report, name_paths
from zerofs.admin.fsck import unreachable
from zerofs.admin.throttle import Throttle
from zerofs.admin.verified import Verified
from zerofs.errors import CorruptionError
from zerofs.fs.format.keys import decode_key
from zerofs.lsm.audit import list_ssts, load_views, read_blocks
from zerofs.lsm.directory import placed, read_directory
from zerofs.lsm.format.header import CHUNK_SST_MAGIC, HEADER_SIZE, decode_whole_header
from zerofs.lsm.format.manifest import Manifest, SstInfo
from zerofs.lsm.format.names import SstId, sst_name
from zerofs.lsm.format.pointer import IN_SST, decode_pointer
from zerofs.lsm.format.rows import POINTER, Row
from zerofs.lsm.format.sst import MAX_DIRECTORY_SIZE, MAX_OBJECT_SIZE, DirectoryEntry, decode_directory, place
from zerofs.lsm.format.trees import CHUNK_PREFIX
from zerofs.lsm.inspection import View
from zerofs.lsm.registers import RegisterView
from zerofs.lsm.sst import SstReader
from zerofs.lsm.storage import Storage
from zerofs.transform.frame import Sealer, frame_nonce
from zerofs.units import CHUNK_SIZE, MIB
from zerofs.world import Lane

DIRECTORIES_MAX = 64
BATCH_SIZE_BYTES = MIB


class _Needed(NamedTuple):
    """What the versions of a volume refer to."""

    views: list[Manifest]
    meta: dict[SstId, tuple[SstInfo, Manifest, bytes]]
    """Metadata objects: what a manifest says of each, that manifest, and the prefix of the tree."""
    chunks: set[SstId]
    sizes: dict[SstId, int]


async def verify_quick(view: View, report: Report, progress: Progress) -> None:
    """Whether everything that some version refers to is there, with its size. Raises UnavailableError."""
    needed = await _quick(view, report, progress)
    if not report.is_clean:
        await _name_lost(view, report, needed.sizes, {})


async def verify_full(view: View, report: Report, progress: Progress, throttle: Throttle, done: Verified) -> None:
    """Open every frame. Objects that `done` knows are passed over, and those that are good are added to it."""
    needed = await _quick(view, report, progress)
    work = _Full(view, report, progress, throttle, done, needed)
    for sst in sorted(needed.chunks & needed.sizes.keys()):
        await work.chunk_object(sst)
    for info, manifest, prefix in needed.meta.values():
        if needed.sizes.get(info.sst) == info.size_bytes:
            await work.meta_object(info, manifest, prefix)
    work.wal_frames()
    work.count()
    if not report.is_clean:
        await _name_lost(view, report, needed.sizes, work.bad_frames)


async def _quick(view: View, report: Report, progress: Progress) -> _Needed:
    storage = view.storage
    progress("listing objects", 0, 0)
    needed = _Needed([], {}, set(), await list_ssts(storage))
    views, findings = await load_views(storage, view.manifest)
    needed.views.extend(views)
    problems = [Problem(object_name=finding.object_name, text=finding.problem) for finding in findings]
    for number, manifest in enumerate(views):
        progress("comparing versions", number, len(views))
        for tree in manifest.trees:
            for info in [sst for run in tree.runs for sst in run.ssts]:
                if info.sst not in needed.meta:
                    needed.meta[info.sst] = info, manifest, tree.prefix
                    where = storage.origins.of(info.sst[0]).where
                    problems += _compare(info.name, needed.sizes.get(info.sst), info.size_bytes, where)
        try:
            problems += await _compare_chunks(storage, manifest, needed)
        except CorruptionError as error:
            problems.append(Problem(text=f"the registers of manifest {manifest.manifest_id} cannot be read: {error}"))
    report.add(problems)
    present = (needed.meta.keys() | needed.chunks) & needed.sizes.keys()
    report.counted |= {
        "versions": len(views),
        "objects": len(present),
        "bytes": sum(needed.sizes[sst] for sst in present),
    }
    return needed


def _compare(name: str, found: int | None, told: int, where: str) -> list[Problem]:
    if found == told:
        return []
    text = "missing" if found is None else f"{found} bytes, the manifest says {told}"
    return [Problem(object_name=name, text=text + where)]


async def _compare_chunks(storage: Storage, manifest: Manifest, needed: _Needed) -> list[Problem]:
    problems = []
    async for sst, register in RegisterView(storage, manifest).all():
        if sst in needed.chunks:
            continue
        needed.chunks.add(sst)
        size = needed.sizes.get(sst)
        if size is None:
            text = f"missing{storage.origins.of(sst[0]).where}, although pointer rows refer to it"
            problems.append(Problem(object_name=sst_name(sst), text=text))
        elif size <= HEADER_SIZE + register.frame_bytes:
            text = f"{size} bytes, its register says {register.frame_bytes} bytes of frames alone"
            problems.append(Problem(object_name=sst_name(sst), text=text))
    return problems


class _Full:
    """One full verification."""

    def __init__(
        self, view: View, report: Report, progress: Progress, throttle: Throttle, done: Verified, needed: _Needed
    ) -> None:
        self._view = view
        self._storage = view.storage
        self._report = report
        self._progress = progress
        self._throttle = throttle
        self._done = done
        self._needed = needed
        self._directories: OrderedDict[SstId, dict[int, DirectoryEntry] | None] = OrderedDict()
        self._bytes = 0
        self._frames = 0
        self._skipped = 0
        self.bad_frames: dict[SstId, set[int] | None] = {}
        """Offsets of frames that do not open; None: nothing of the object does."""

    async def chunk_object(self, sst: SstId) -> None:
        """The directory and every frame of a chunk SST."""
        name, size = sst_name(sst), self._needed.sizes[sst]
        if not await self._begin(name, size):
            return
        try:
            body = await self._storage.origins.of(sst[0]).get(name, MAX_OBJECT_SIZE)
            entries = self._open_directory(sst, body)
        except CorruptionError as error:
            self.bad_frames[sst] = None
            self._report.add([_object_problem(name, error)])
            return
        bad = await self._open_frames(sst, body, entries)
        if bad:
            self.bad_frames[sst] = bad
        else:
            self._done.add(name, size)

    async def meta_object(self, info: SstInfo, manifest: Manifest, prefix: bytes) -> None:
        """Index and blocks of a meta SST; of one of pointers, also where they lead."""
        if not await self._begin(info.name, info.size_bytes):
            return
        before = len(self._report.problems) + self._report.left_out
        try:
            async for rows in read_blocks(SstReader(self._storage, manifest.tokens), info, prefix):
                self._frames += 1
                if prefix == CHUNK_PREFIX:
                    await self._pointers(rows)
        except CorruptionError as error:
            self._report.add([_object_problem(info.name, error)])
        if before == len(self._report.problems) + self._report.left_out:
            self._done.add(info.name, info.size_bytes)

    def wal_frames(self) -> None:
        """The frames that only the WAL has. Its rows were verified when the version was opened."""
        for chunk in self._view.memtable.chunks():
            if chunk.frame is None or chunk.pointer is None:
                continue
            self._frames += 1
            text = _open_chunk(self._storage.sealers.chunk, chunk.frame, chunk.nonce, chunk.size)
            if text:
                where = f"frame at byte {chunk.pointer.offset}: {text}"
                self._report.add([Problem(object_name=chunk.pointer.object_name, text=where)])

    def count(self) -> None:
        """Put the figures into the report."""
        self._report.counted["frames"] = self._frames
        if self._skipped:
            self._report.counted["objects_verified_before"] = self._skipped

    async def _begin(self, name: str, size: int) -> bool:
        """Whether an object is still to be verified; waits for its turn."""
        total = self._report.counted["bytes"]
        self._bytes += size
        if self._done.has(name, size):
            self._skipped += 1
            return False
        await self._throttle.take(size)
        self._progress("verifying bytes", min(self._bytes, total), total)
        return True

    def _open_directory(self, sst: SstId, body: bytes) -> list[DirectoryEntry]:
        name, origin = sst_name(sst), self._storage.origins.of(sst[0])
        header = decode_whole_header(body, magic=CHUNK_SST_MAGIC, volume_id=origin.volume_id, name=name)
        offset = HEADER_SIZE + header.first_length
        where = place(name, offset, header.put_id)
        text = origin.directory.open(body[offset:], where, MAX_DIRECTORY_SIZE)
        return decode_directory(text, frames_length=header.first_length, what=name)

    async def _open_frames(self, sst: SstId, body: bytes, entries: Sequence[DirectoryEntry]) -> set[int]:
        """Offsets of the frames that do not open."""
        bad: set[int] = set()
        offset = HEADER_SIZE
        batch: list[tuple[int, DirectoryEntry]] = []
        size = 0
        for entry in entries:
            batch.append((offset, entry))
            offset += entry.length
            size += entry.length
            if size >= BATCH_SIZE_BYTES:
                bad |= await self._open_batch(sst, body, batch)
                batch, size = [], 0
        return bad | await self._open_batch(sst, body, batch)

    async def _open_batch(self, sst: SstId, body: bytes, batch: list[tuple[int, DirectoryEntry]]) -> set[int]:
        self._frames += len(batch)
        origin, name = self._storage.origins.of(sst[0]), sst_name(sst)
        found = await self._storage.world.offload(Lane.CPU, _open_all, origin.chunk, body, batch)
        self._report.add(Problem(object_name=name, text=f"frame at byte {offset}: {text}") for offset, text in found)
        return {offset for offset, _ in found}

    async def _pointers(self, rows: Sequence[Row]) -> None:
        """Hold pointer rows against the directories of the objects that they lead into."""
        for key, kind, value in rows:
            if kind != POINTER:
                continue
            pointer = decode_pointer(value)
            if pointer.holder != IN_SST:
                raise CorruptionError("a pointer row in a tree leads into a WAL object")
            directory = await self._directory((pointer.epoch, pointer.number))
            if directory is None:
                continue  # told already: missing, or it does not open
            entry = directory.get(pointer.offset)
            if entry is None or entry[1:] != (pointer.length, pointer.size, pointer.nonce):
                decoded = decode_key(key)
                text = (
                    f"chunk {decoded.number} is not the frame that lies in {pointer.object_name} at byte "
                    f"{pointer.offset}"
                )
                self._report.add([Problem(inode=decoded.inode, text=text)])

    async def _directory(self, sst: SstId) -> dict[int, DirectoryEntry] | None:
        """The frames of a chunk SST by offset; None when that is not to be had."""
        if sst in self._directories:
            self._directories.move_to_end(sst)
            return self._directories[sst]
        found: dict[int, DirectoryEntry] | None = None
        if sst in self._needed.sizes:
            try:
                found = dict(placed(await read_directory(self._storage, sst)))
            except CorruptionError as error:
                if sst not in self.bad_frames:
                    self.bad_frames[sst] = None
                    self._report.add([_object_problem(sst_name(sst), error)])
        self._directories[sst] = found
        if len(self._directories) > DIRECTORIES_MAX:
            self._directories.popitem(last=False)
        return found


def _open_all(sealer: Sealer, body: bytes, batch: list[tuple[int, DirectoryEntry]]) -> list[tuple[int, str]]:
    view = memoryview(body)
    found = []
    for offset, entry in batch:
        problem = _open_chunk(sealer, view[offset : offset + entry.length], entry.nonce, entry.size)
        if problem:
            found.append((offset, problem))
    return found


def _open_chunk(sealer: Sealer, frame: bytes | memoryview, nonce: bytes, size: int) -> str:
    """What is wrong with a frame; empty when it opens to what is expected."""
    try:
        if frame_nonce(frame) != nonce:
            return "it is another frame than its directory names"
        text = sealer.open(frame, b"", CHUNK_SIZE)
    except CorruptionError as error:
        return str(error)
    return "" if len(text) == size else f"it opens to {len(text)} bytes instead of {size}"


def _object_problem(name: str, error: CorruptionError) -> Problem:
    return Problem(object_name=name, text=str(error).removeprefix(f"{name}: ").removeprefix(f"{name} "))


async def _name_lost(view: View, report: Report, sizes: dict[SstId, int], bad: dict[SstId, set[int] | None]) -> None:
    """Add the files whose chunks are gone or damaged, if their rows can be read."""
    lost = LostChunks()
    try:
        async for page in view.chunks():
            for key, pointer in page:
                why = unreachable(pointer, sizes)
                sst = pointer.epoch, pointer.number
                if not why and pointer.holder == IN_SST and sst in bad:
                    offsets = bad[sst]
                    why = "is damaged" if offsets is None or pointer.offset in offsets else ""
                if why:
                    lost.add(key, pointer, why)
    except CorruptionError as error:
        report.notes.append(f"pointers could not be read, so not all damaged files are named: {error}")
    report.add(lost.problems())
    await name_paths(view, report)
