"""Which rows survive a merge: the newest of each key, unless a newer run's range delete hides it. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import itemgetter

from zerofs.lsm.format.rows import Row
from zerofs.lsm.ranges import KeyRanges

row_key = itemgetter(0)
"""The key of a row."""


class Hiding:
    """The range deletes of all runs that are newer than one: what they hide from it. Does not change any more."""

    __slots__ = ("_starts", "_stops")

    def __init__(self, ranges: KeyRanges) -> None:
        self._starts = [start for start, _ in ranges]
        self._stops = [stop for _, stop in ranges]

    def touches(self, first_key: bytes, last_key: bytes) -> bool:
        """Whether some key from the first to the last one, both included, is hidden."""
        position = bisect_right(self._stops, first_key)
        return position < len(self._starts) and self._starts[position] <= last_key

    def split(self, rows: list[Row]) -> tuple[list[Row], list[Row]]:
        """The visible and the hidden ones of at least one row in key order. By slices, not row by row."""
        if not self.touches(rows[0][0], rows[-1][0]):
            return rows, []
        visible: list[Row] = []
        hidden: list[Row] = []
        done = 0
        for position in range(bisect_right(self._stops, rows[0][0]), len(self._starts)):
            if self._starts[position] > rows[-1][0]:
                break
            first = bisect_left(rows, self._starts[position], lo=done, key=row_key)
            stop = bisect_left(rows, self._stops[position], lo=first, key=row_key)
            visible += rows[done:first]
            hidden += rows[first:stop]
            done = stop
        visible += rows[done:]
        return visible, hidden


def merge_window(parts: Sequence[tuple[Hiding, list[Row]]]) -> tuple[list[Row], list[Row]]:
    """Rows of several runs over one range of keys, newest run first, with what the newer runs hide from each.

    Each part is in key order and may be empty. Returns the rows that survive, in key order, and those that are dropped.
    """
    dropped: list[Row] = []
    pieces: list[list[Row]] = []
    for hiding, part in parts:
        if part:
            visible, hidden = hiding.split(part)
            dropped += hidden
            if visible:
                pieces.append(visible)
    if len(pieces) < 2:
        return (pieces[0] if pieces else []), dropped
    kept: dict[bytes, Row] = {}
    for piece in pieces:
        merged = {row[0]: row for row in piece}
        dropped += [merged[key] for key in merged.keys() & kept.keys()]
        merged.update(kept)
        kept = merged
    return [kept[key] for key in sorted(kept)], dropped
