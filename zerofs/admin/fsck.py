"""Checking a volume: the store audit of the engine, then the invariants of the filesystem. Changes nothing.

What is read: every metadata object of every version, and every row of the one that is examined; no file's contents
(that is `verify`). Memory: see `fs.checker` and `lsm.audit`.
"""

from zerofs.admin.examination import LostChunks, Problem, Progress, Report, name_paths
from zerofs.errors import CorruptionError, UnsupportedFormatError
from zerofs.fs.checker import Checker
from zerofs.fs.format.keys import META_RANGE, SUPERBLOCK_KEY
from zerofs.fs.format.records import FORMAT_VERSION, decode_superblock
from zerofs.lsm.audit import Auditor, list_ssts, load_views
from zerofs.lsm.format.manifest import SstInfo
from zerofs.lsm.format.names import SstId
from zerofs.lsm.format.pointer import IN_SST, Pointer
from zerofs.lsm.inspection import View

PAGE_ROWS = 4096


async def fsck(view: View, report: Report, progress: Progress) -> None:
    """Check everything but contents. Raises UnsupportedFormatError, UnavailableError."""
    sizes = await list_ssts(view.storage)
    is_readable = await _audit(view, report, sizes, progress)
    if is_readable:
        try:
            await _check_version(view)
            await _check_rows(view, report, sizes, progress)
        except CorruptionError as error:
            report.add([Problem(text=f"rows cannot be read, so not all of them were checked: {error}")])
        await name_paths(view, report)
    else:
        report.notes.append("metadata cannot be read, so the filesystem was not checked")


async def _check_version(view: View) -> None:
    value = await view.get(SUPERBLOCK_KEY)
    if value is None:
        return
    superblock = decode_superblock(value)
    if superblock.version > FORMAT_VERSION or superblock.features:
        raise UnsupportedFormatError(
            f"the filesystem is of format version {superblock.version} with features {superblock.features:#x}; this "
            f"zerofs knows version {FORMAT_VERSION} without any: use a newer zerofs"
        )


async def _audit(view: View, report: Report, sizes: dict[SstId, int], progress: Progress) -> bool:
    """Audit every version; whether the rows of the examined one can be read."""
    views, findings = await load_views(view.storage, view.manifest)
    total = sum(manifest.sst_count for manifest in views)
    done = 0

    def seen(_: SstInfo) -> None:
        nonlocal done
        done += 1
        progress("auditing objects", done, total)

    auditor = Auditor(view.storage, sizes, seen)
    for manifest in views:
        findings += await auditor.view(manifest)
    report.add(Problem(object_name=finding.object_name, text=finding.problem) for finding in findings)
    report.counted |= {"versions": len(views), "metadata_objects": done}
    damaged = {info.sst for info in auditor.damaged}
    return not any(sst.sst in damaged for tree in view.manifest.trees for run in tree.runs for sst in run.ssts)


async def _check_rows(view: View, report: Report, sizes: dict[SstId, int], progress: Progress) -> None:
    checker = Checker()
    rows = chunks = 0
    start, stop = META_RANGE
    while page := await view.scan(start, stop, PAGE_ROWS):
        rows += len(page)
        for key, value in page:
            report.add(Problem(inode=it.inode, rule=it.rule, text=it.problem) for it in checker.row(key, value))
        progress("checking rows", rows, 0)
        start = page[-1][0] + b"\0"
    lost = LostChunks()
    async for chunk_page in view.chunks():
        chunks += len(chunk_page)
        for key, pointer in chunk_page:
            found = checker.row(key, b"", pointer.size)
            report.add(Problem(inode=it.inode, rule=it.rule, text=it.problem) for it in found)
            why = unreachable(pointer, sizes)
            if why:
                lost.add(key, pointer, why)
        progress("checking chunks", chunks, 0)
    if rows or chunks:  # else nobody ever mounted the volume
        found = checker.finish(orphans_allowed=True)
        report.add(Problem(inode=it.inode, rule=it.rule, text=it.problem) for it in found)
    report.add(lost.problems())
    census = checker.census
    report.counted |= {
        "inodes": len(census.numbers),
        "names": len(census.entry_targets),
        "chunks": chunks,
        "orphans": len(census.orphans),
    }


def unreachable(pointer: Pointer, sizes: dict[SstId, int]) -> str:
    """Why a frame cannot be where its pointer says; empty if it can."""
    if pointer.holder != IN_SST:
        return ""  # the WAL object was read when the version was opened
    size = sizes.get((pointer.epoch, pointer.number))
    if size is None:
        return "is missing"
    return "is cut short" if pointer.offset + pointer.length > size else ""
