"""Sets of half-open key ranges [start, stop): the range deletes of one memtable, WAL record or run.

A source's range deletes hide rows of older sources only, and all with the same force, so overlapping ones are simply
united and a set is a sorted list of disjoint ranges.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

KeyRange = tuple[bytes, bytes]


class KeyRanges:
    """A growing union of ranges."""

    __slots__ = ("_starts", "_stops")

    def __init__(self, ranges: Iterable[KeyRange] = ()) -> None:
        self._starts: list[bytes] = []
        self._stops: list[bytes] = []
        for start, stop in ranges:
            self.add(start, stop)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[KeyRange]:
        return iter(zip(self._starts, self._stops, strict=True))

    def add(self, start: bytes, stop: bytes) -> None:
        """Unite with [start, stop). Touching ranges become one."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def update(self, other: "KeyRanges") -> None:
        """Unite with every range of another set."""
        for start, stop in other:
            self.add(start, stop)

    def covers(self, key: bytes) -> bool:
        """Whether some range holds the key."""
        index = bisect_right(self._starts, key) - 1
        return index >= 0 and key < self._stops[index]

    def within(self, start: bytes, stop: bytes) -> "KeyRanges":
        """The part of the set that lies in [start, stop)."""
        return KeyRanges((max(a, start), min(b, stop)) for a, b in self if a < stop and b > start)
