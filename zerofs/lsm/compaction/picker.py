"""Which neighbouring runs of a tree to merge next: pure arithmetic over their sizes (decision 0008, point 1)."""

from collections.abc import Sequence

from zerofs.lsm.format.manifest import Run

MIN_RUNS = 4
"""Runs that a merge is worth its work for."""

MAX_RUNS = 8
"""Most runs in one merge: bounds its memory, and how long it takes to be done."""

GROWTH = 4
"""A run joins while it holds at most so many times the bytes of all newer ones in the slice."""

RUNS_LIMIT = 12
"""With more runs than this in a tree, lookups come first: the newest are merged whatever their sizes."""


def pick(run_sizes: Sequence[int], *, keeps_frames: bool) -> slice | None:
    """The runs to merge, given the bytes of each, newest first; None when the tree is in good order.

    `keeps_frames`: an overwritten row of this tree keeps space alive elsewhere (0009), so all runs are merged once the
    newer ones hold half as many bytes as the oldest.
    """
    count = len(run_sizes)
    if keeps_frames and count > 1 and 2 * sum(run_sizes[:-1]) >= run_sizes[-1]:
        return slice(0, min(count, MAX_RUNS))
    if count > RUNS_LIMIT:
        return slice(0, MAX_RUNS)
    for start in range(count - MIN_RUNS + 1):
        stop = _grow(run_sizes, start)
        if stop - start >= MIN_RUNS:
            return slice(start, stop)
    return None


def _grow(run_sizes: Sequence[int], start: int) -> int:
    """End of the longest slice from `start` on that the growth factor and MAX_RUNS allow."""
    newer = run_sizes[start]
    stop = start + 1
    while stop < min(len(run_sizes), start + MAX_RUNS) and run_sizes[stop] <= GROWTH * newer:
        newer += run_sizes[stop]
        stop += 1
    return stop


def pick_all(runs: Sequence[Run], rewrite_up_to: int = 0) -> slice | None:
    """The whole tree, for tightening; None when it is one run already, and that run deletes no ranges.

    Also when it has an SST of an epoch up to `rewrite_up_to`.
    """
    is_old = any(sst.sst[0] <= rewrite_up_to for run in runs for sst in run.ssts)
    if len(runs) > 1 or (runs and runs[0].has_range_deletes) or is_old:
        return slice(0, len(runs))
    return None


def run_size(run: Run) -> int:
    """Bytes of a run in the store."""
    return sum(sst.size_bytes for sst in run.ssts)
