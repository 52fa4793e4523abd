"""The model of collecting: which SSTs may be deleted (decisions 0008 to 0011).

Taking over is one step here; `takeover` has it in detail. There is one key, overwritten by every commit. A commit puts
its value into a chunk SST of its own, so that a row is the number of the SST that it points into, and a higher number
is a newer value. SSTs are numbered in the order in which their names were minted; sets of them are bits.
"""

from enum import IntEnum
from typing import NamedTuple

Nothing = tuple[()]


class Sst(NamedTuple):
    """An SST under a minted name. `rows`: what a meta SST holds; none in a chunk SST."""

    epoch: int
    rows: int
    stored: bool = False


class Point(NamedTuple):
    """A checkpoint: the version that it names."""

    version_id: int
    epoch: int


class Version(NamedTuple):
    """A manifest. `runs`: the meta SSTs of the tree, newest first; registers are what their rows add up to."""

    version_id: int
    epoch: int
    mark: int = 0
    runs: tuple[int, ...] = ()
    points: tuple[Point, ...] = ()


class Job(NamedTuple):
    """A flush or a merge on its way: its output, and the mark or the inputs that go with it."""

    sst: int
    mark: int = 0
    inputs: tuple[int, ...] = ()
    before: Version | Nothing = ()


class Edit(NamedTuple):
    """A manifest that is stored, and whose writer has not heard of that yet."""

    version: Version
    kind: "Kind"


class Kind(IntEnum):
    """What a version was made for."""

    FLUSH = 0
    MERGE = 1
    POINT = 2
    FORGET = 3


class Stage(IntEnum):
    """How far a pass of the collector is."""

    LISTED = 0
    DECIDED = 1
    CONFIRMED = 2


class Pass(NamedTuple):
    """A pass of the collector under way."""

    stage: Stage
    listed: int
    view: Version
    protected: int = 0
    ssts: int = 0
    manifests: int = 0


class Owner(NamedTuple):
    """A writer from its opening on; with epoch 0, before it."""

    epoch: int = 0
    version: Version | Nothing = ()
    """The newest one that it knows to be stored."""
    fenced: bool = False
    active: int = 0
    """The row of the active memtable; the same for the frozen one."""
    frozen: int = 0
    unsynced: int = 0
    """The row that is in no WAL object yet."""
    uploading: int = 0
    held: int = 0
    """Held until the active memtable is flushed; until the frozen one is."""
    held_frozen: int = 0
    flush: Job | Nothing = ()
    merge: Job | Nothing = ()
    edit: Edit | Nothing = ()
    doubtful: int = 0
    """Outputs of edits that were given up."""
    sweep: Pass | Nothing = ()


class Left(NamedTuple):
    """How many more times these may happen."""

    commits: int
    flushes: int
    merges: int
    points: int
    forgets: int
    doubts: int
    passes: int


class Space(NamedTuple):
    """One state. `wal`: the row of each WAL object. `acknowledged`: the newest row whose sync was answered."""

    ssts: tuple[Sst, ...]
    wal: tuple[int, ...]
    manifests: tuple[Version | Nothing, ...]
    floor: int
    writers: tuple[Owner, ...]
    acknowledged: int
    points: tuple[Point, ...]
    """Checkpoints whose creation was answered, and that nobody deleted."""
    left: Left


def bit(number: int) -> int:
    """A set of one."""
    return 1 << number


def members(numbers: int) -> list[int]:
    """A set as a list."""
    return [number for number in range(numbers.bit_length()) if numbers >> number & 1]


def rows_of(space: Space, runs: tuple[int, ...]) -> int:
    """The rows of some runs, hidden ones included: the SSTs whose registers are above zero."""
    rows = 0
    for sst in runs:
        rows |= space.ssts[sst - 1].rows
    return rows


def with_sst(space: Space, number: int, *, stored: bool) -> Space:
    """The state after an SST was put or deleted."""
    sst = space.ssts[number - 1]._replace(stored=stored)
    return space._replace(ssts=(*space.ssts[: number - 1], sst, *space.ssts[number:]))


def with_owner(space: Space, i: int, owner: Owner) -> Space:
    """The state after writer `i` became `owner`."""
    return space._replace(writers=(*space.writers[:i], owner, *space.writers[i + 1 :]))
