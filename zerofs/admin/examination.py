"""What fsck and verify share: a version that holds still while it is examined, and a report of what was found.

A volume may be written to meanwhile. A version that a checkpoint pins stays whole; of any other version, objects may be
collected under the examination. So whatever seems to be wrong counts only if the version is still the newest.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from zerofs.errors import CorruptionError, RollbackError, ZerofsError
from zerofs.fs.format.keys import decode_key
from zerofs.fs.paths import find_paths
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.pointer import Pointer
from zerofs.lsm.inspection import View, open_view
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.storage import Storage
from zerofs.lsm.witness import Seen
from zerofs.units import CHUNK_SIZE

log = logging.getLogger(__name__)

TRIES = 3
"""How often an examination begins anew because a writer moved on under it."""

PROBLEMS_MAX = 10_000
"""Problems that a report names, and inodes whose paths are looked for. The rest is counted."""

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it was, and how much there is; 0 when nobody knows."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Problem:
    """Something that does not hold. One of object, inode and neither; `rule` is the checker's, 0 for objects."""

    text: str
    object_name: str = ""
    inode: int = 0
    path: str = ""
    rule: int = 0

    def __str__(self) -> str:
        where = self.object_name or self.path or (f"inode {self.inode}" if self.inode else "the filesystem")
        return f"{where}: {f'[{self.rule}] ' if self.rule else ''}{self.text}"

    def to_json(self) -> dict[str, Any]:
        """The fields that say something."""
        fields = {"object": self.object_name, "inode": self.inode, "path": self.path, "rule": self.rule}
        return {name: value for name, value in fields.items() if value} | {"problem": self.text}


@dataclass(slots=True, kw_only=True)
class Report:
    """What an examination found and counted."""

    volume_id: str
    store: str
    manifest_id: int
    checkpoint: str = ""
    problems: list[Problem] = field(default_factory=list)
    left_out: int = 0
    """Problems above the limit."""
    counted: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def add(self, problems: Iterable[Problem]) -> None:
        """Note problems, or count them."""
        for problem in problems:
            if len(self.problems) < PROBLEMS_MAX:
                self.problems.append(problem)
            else:
                self.left_out += 1

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "volume_id": self.volume_id,
            "store": self.store,
            "manifest_id": self.manifest_id,
            "checkpoint": self.checkpoint,
            "clean": self.is_clean,
            "problem_count": len(self.problems) + self.left_out,
            "problems": [problem.to_json() for problem in self.problems],
            "counted": self.counted,
            "notes": self.notes,
        }


Work = Callable[[View, Report], Awaitable[None]]
"""Examine a version, and add to the report."""


async def examine(
    storage: Storage, work: Work, *, checkpoint: str | None, seen: Seen | None, accept_rollback: bool = False
) -> Report:
    """The report of `work` on the newest version, or on the one that a checkpoint pins.

    A volume that cannot be opened because of what is stored is a report with that problem. Raises RollbackError,
    UnavailableError; ZerofsError when a writer moves on again and again.
    """
    for _ in range(TRIES):
        report = Report(
            volume_id=storage.volume_id.hex(), store=storage.store.url, manifest_id=0, checkpoint=checkpoint or ""
        )
        before = None
        try:
            view = await open_view(storage, checkpoint, seen, accept_rollback=accept_rollback)
            before = view.manifest
            report.manifest_id = before.manifest_id
            await work(view, report)
        except RollbackError:
            raise
        except CorruptionError as error:
            report.add([Problem(text=f"the volume cannot be opened or read: {error}")])
        if report.is_clean or not await _moved_on(storage, before, is_pinned=checkpoint is not None):
            return report
        log.info("a writer moved on; what seemed to be wrong is looked at again")
    raise ZerofsError(
        "the volume is being written to, and what is examined is collected meanwhile: examine it on the host that has "
        "it mounted, or name a checkpoint with --checkpoint"
    )


async def _moved_on(storage: Storage, before: Manifest | None, *, is_pinned: bool) -> bool:
    """Whether something that the version refers to may have been collected since it was opened."""
    try:
        newest = await ManifestStore(storage).latest()
    except CorruptionError:
        return False
    if before is None or newest is None:
        return False
    if is_pinned:
        return not {point.checkpoint_id for point in before.checkpoints} <= {
            point.checkpoint_id for point in newest.checkpoints
        }
    return newest.manifest_id != before.manifest_id


class LostChunks:
    """Chunks that cannot be read, by file: how many, and where the first one lies. Memory: for each such file."""

    def __init__(self) -> None:
        self._files: dict[int, tuple[int, int, str]] = {}

    def __len__(self) -> int:
        return len(self._files)

    def add(self, key: bytes, pointer: Pointer, why: str) -> None:
        """One chunk, and what is wrong with the object that holds it."""
        decoded = decode_key(key)
        count, first, reason = self._files.get(decoded.inode, (0, decoded.number, f"{pointer.object_name} {why}"))
        if count or len(self._files) < PROBLEMS_MAX:
            self._files[decoded.inode] = count + 1, first, reason

    def problems(self) -> list[Problem]:
        """One for each file."""
        found = []
        for inode, (count, first, why) in self._files.items():
            chunks = "1 chunk" if count == 1 else f"{count} chunks"
            text = f"{chunks} cannot be read, from byte {first * CHUNK_SIZE} on: {why}"
            found.append(Problem(inode=inode, text=text))
        return found


async def name_paths(view: View, report: Report) -> None:
    """Give the problems of inodes the paths that lead there, if the names can be read."""
    inodes = {problem.inode for problem in report.problems if problem.inode}
    if not inodes:
        return
    try:
        paths = await find_paths(view, inodes)
    except CorruptionError as error:
        report.notes.append(f"names could not be read, so inodes have no paths here: {error}")
        return
    report.problems = [
        Problem(
            text=problem.text,
            inode=problem.inode,
            rule=problem.rule,
            object_name=problem.object_name,
            path=paths.get(problem.inode, b"").decode("utf-8", "backslashreplace"),
        )
        for problem in report.problems
    ]
