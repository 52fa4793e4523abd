"""Where a run is cut, besides at the target size, so that merges can move what they would else rewrite. Pure.

What every change writes anew (counters, the directory that grows) lies far from what is new in the keys: an SST from
the one to the other overlaps all that is older, and each merge would rewrite that. Decision 0008, point 7.
"""

from collections.abc import Iterable, Sequence
from heapq import nlargest
from itertools import pairwise

from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.lsm.format.rows import Row

MOVE_SHARE = 4
"""An SST is worth keeping as it is from one part in so many of the target size on; smaller ones would pile up."""

ROW_BYTES = 50
"""A row has at least so many, about. In the store a row of a small file may take six, so both are looked at."""

LEAST_ROWS = 1000
"""A run of fewer rows is not worth a second request."""

GAPS_MAX = 3
"""A run is cut in so many places at most: behind the counters, behind the directory that grows, and in one more."""

_STRIDE = 64
_NUMBER_SIZE = 24


def is_large(sst: SstInfo, target_size_bytes: int, *, by_rows: bool = True) -> bool:
    """Whether it is worth keeping as it is: by its bytes in the store and, unless told otherwise, by its rows."""
    size_bytes = max(sst.size_bytes, ROW_BYTES * sst.row_count) if by_rows else sst.size_bytes
    return size_bytes * MOVE_SHARE >= target_size_bytes


def divide(rows: list[Row], older: Iterable[Run]) -> list[list[Row]]:
    """New rows, in key order, in parts for SSTs of their own: older SSTs reach into the wide gaps between them."""
    if len(rows) < LEAST_ROWS:
        return [rows]
    sizeable = [sst for run in older for sst in run.ssts if sst.row_count >= LEAST_ROWS]
    places = [
        place
        for place in _wide_gaps([key for key, _, _ in rows])
        if any(sst.first_key < rows[place][0] and sst.last_key > rows[place - 1][0] for sst in sizeable)
    ]
    return [rows[start:stop] for start, stop in pairwise((0, *places, len(rows)))]


def _wide_gaps(keys: Sequence[bytes]) -> list[int]:
    """Before which keys there is a wide gap: one wider than all lesser ones and the keys between them take together."""
    # Most pairs of neighbours are not looked at: a wide gap makes its stretch a wide one.
    stretches = [(start, min(start + _STRIDE, len(keys) - 1)) for start in range(0, len(keys) - 1, _STRIDE)]
    widest = nlargest(GAPS_MAX, stretches, key=lambda ends: _distance(keys[ends[0]], keys[ends[1]]))
    gaps = nlargest(
        GAPS_MAX,
        ((_distance(keys[at - 1], keys[at]), at) for start, stop in widest for at in range(start + 1, stop + 1)),
    )
    left = _distance(keys[0], keys[-1])
    places: list[int] = []
    for width, place in gaps:
        left -= width
        if width <= left:
            break
        places.append(place)
    return sorted(places)


def _distance(left: bytes, right: bytes) -> int:
    """How far apart two keys are, as numbers of which the first bytes count."""
    return _number(right) - _number(left)


def _number(key: bytes) -> int:
    return int.from_bytes(key[:_NUMBER_SIZE].ljust(_NUMBER_SIZE, b"\0"), "big")


def cuts_of(runs: Sequence[Run], target_size_bytes: int) -> tuple[bytes, ...]:
    """Keys behind which a merge of `runs` begins a new SST: where most of them have a gap behind a small one.

    Ascending; none for one run alone. A gap supports one cut, however long it is: else each row that a run has within
    the gap of the others would stay an SST of its own for ever. At most one for each small SST.
    """
    gaps = sorted(
        (left.last_key, right.first_key)
        for run in runs
        for left, right in pairwise(sst for sst in run.ssts if sst.row_count)
        if not is_large(left, target_size_bytes)
    )
    cuts: list[bytes] = []
    cut_until = b""
    """Where the first of the gaps ends that the last cut is in."""
    free: list[bytes] = []
    """Where gaps end that support no cut yet."""
    for key, end in gaps:
        if cuts and key < cut_until:
            cuts[-1] = key  # the same gap, in which this run's rows go furthest
            cut_until = min(cut_until, end)
            continue
        free = [*(other for other in free if key < other), end]
        if len(runs) > 1 and 2 * len(free) > len(runs):
            cuts.append(key)
            cut_until = min(free)
            free = []
    return tuple(cuts)
