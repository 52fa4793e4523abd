"""What a compaction is asked to do and what it answers: values that travel to a worker and back. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from zerofs.lsm.format.foreign import Foreign
from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.lsm.format.names import SstId


@dataclass(slots=True, frozen=True, kw_only=True)
class CompactionJob:
    """Neighbouring runs of one tree that are to become one run."""

    prefix: bytes
    """The tree's."""
    runs: tuple[Run, ...]
    """Newest first."""
    drop_deletes: bool
    """Nothing older than these runs is left in the tree, so deletes and range deletes have done their work."""
    tokens: dict[int, bytes]
    """Epoch → token, at least of every epoch that an input was made under."""
    epoch: int
    """The writer's: that of all names."""
    token: bytes
    """The writer's: what outputs are bound to."""
    names: tuple[SstId, ...]
    """Minted for outputs, used from the front; `names_needed` says how many. More is fine."""
    target_size_bytes: int
    """Row bytes in one output SST."""
    block_size_bytes: int
    """Row bytes in one block."""
    foreign: tuple[Foreign, ...] = ()
    """Whose objects inputs may be besides the writer's: of a clone. Only the keys of blocks are needed."""
    rewrite_up_to: int = 0
    """Inputs of epochs up to this one are read and written anew, even where moving them would do."""


@dataclass(slots=True, frozen=True, kw_only=True)
class CompactionResult:
    """What became of the runs. All objects of `run` are stored."""

    run: Run | None
    """What takes the place of the job's runs; None when nothing of them is left."""
    written: tuple[SstInfo, ...]
    """The SSTs of `run` that are new, in the order of their keys."""
    moved: int
    """The SSTs of `run` that the job's runs held already."""
    dropped: dict[SstId, int]
    """Bytes of frames that the pointer rows which are gone pointed to, by chunk SST: what registers lose (0009)."""


def names_needed(runs: Sequence[Run], target_size_bytes: int) -> int:
    """Names to mint for a merge of `runs`: enough to cut every output at the target size.

    Four for each SST cover inputs that were cut at the same target: its rows, the end of its cluster, a cut behind it,
    a last row that overshoots. The rest is for inputs that were cut at a larger one; of those that compress better than
    four to one, some outputs grow beyond the target instead (see `output`). Never less than `Plan.names_least`.
    """
    return 2 + sum(4 + 4 * sst.size_bytes // target_size_bytes for run in runs for sst in run.ssts)
