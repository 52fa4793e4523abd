"""The model of collecting: bounds and invariants (decisions 0008 to 0011)."""

from collections.abc import Iterator
from dataclasses import dataclass

from zerofs.testing.protocol.guards import Guards
from zerofs.testing.protocol.owning import own_steps, take_over
from zerofs.testing.protocol.space import Left, Owner, Point, Space, Sst, Version, bit, members, rows_of


@dataclass(slots=True, frozen=True, kw_only=True)
class Collection:
    """A volume that one writer has open, after `runs` flushes and with `pinned` checkpoints of that state.

    `heirs` other writers may take it over, one after the other. `points` checkpoints are created, `forgets` deleted.
    `doubts`: edits that are given up although their manifest is stored.
    """

    guards: Guards
    heirs: int = 0
    runs: int = 0
    pinned: int = 0
    commits: int = 0
    flushes: int = 0
    merges: int = 0
    points: int = 0
    forgets: int = 0
    doubts: int = 0
    passes: int = 0

    def start(self) -> Space:
        """Of each flush a chunk SST and a meta SST; of each checkpoint a manifest; the version of today."""
        runs = range(2 * self.runs, 0, -2)
        ssts = [sst for run in reversed(runs) for sst in (Sst(1, 0, True), Sst(1, bit(run - 1), True))]
        points = tuple(Point(version_id, 1) for version_id in range(1, self.pinned + 1))
        manifests = tuple(
            Version(version_id=version_id, epoch=1, mark=self.runs, runs=tuple(runs), points=points[:version_id])
            for version_id in range(1, self.pinned + 2)
        )
        return Space(
            ssts=tuple(ssts),
            wal=tuple(run - 1 for run in reversed(runs)),
            manifests=manifests,
            floor=0,
            writers=(*[Owner()] * self.heirs, Owner(epoch=1, version=manifests[-1])),
            acknowledged=max(0, 2 * self.runs - 1),
            points=points,
            left=Left(
                commits=self.commits,
                flushes=self.flushes,
                merges=self.merges,
                points=self.points,
                forgets=self.forgets,
                doubts=self.doubts,
                passes=self.passes,
            ),
        )

    def steps(self, state: Space) -> Iterator[tuple[int, str, Space]]:
        """Every step of every writer."""
        for i, owner in enumerate(state.writers):
            if owner.epoch:
                for what, after in own_steps(state, i, self.guards):
                    yield i, what, after
            elif not i:
                yield (i, *take_over(state, i, self.guards))

    def complaint(self, state: Space) -> str:
        """What whoever opened the volume, or one of its checkpoints, now would miss."""
        newest = state.manifests[-1]
        assert newest
        above = state.wal[newest.mark :]
        missing = _missing(state, newest)
        if missing:
            return f"manifest {newest.version_id} refers to {missing}, which is gone"
        for wal_id, row in enumerate(above, newest.mark + 1):
            if not state.ssts[row - 1].stored:
                return f"WAL {wal_id}, above the mark, names SST {row}, which is not there"
        rows = [*members(rows_of(state, newest.runs)), *above, 0]
        if max(rows) < state.acknowledged:
            return f"the acknowledged value in SST {state.acknowledged} is lost: the newest one is {max(rows)}"
        for point in newest.points:
            pinned = state.manifests[point.version_id - 1]
            if not pinned:
                return f"a checkpoint names manifest {point.version_id}, which is gone"
            missing = _missing(state, pinned)
            if missing:
                return f"the checkpoint of manifest {point.version_id} refers to {missing}, which is gone"
        for point in state.points:
            if point not in newest.points:
                return f"the acknowledged checkpoint of manifest {point.version_id} is in no list"
        return ""


def _missing(state: Space, version: Version) -> str:
    """The first SST that a version refers to and that is not stored."""
    for run in version.runs:
        if not state.ssts[run - 1].stored:
            return f"meta SST {run}"
    for row in members(rows_of(state, version.runs)):
        if not state.ssts[row - 1].stored:
            return f"chunk SST {row}"
    return ""
