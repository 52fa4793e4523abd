"""What to fetch before it is asked for, decided from what was asked for so far. Pure; one object for each open file.

Not the place where anything is fetched: the engine does that, when it has hands free.
"""

from zerofs.units import MIB

FIRST_WINDOW = MIB


class ReadAhead:
    """Notices reads that follow one another, and keeps a window open in front of them.

    The kernel asks for several parts of its own window at one time, so a read may be a little before or behind the
    place where the last one ended.
    """

    __slots__ = ("_ahead", "_expected", "_limit", "_misses", "_window")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._expected = 0
        self._ahead = 0
        """Up to here everything was asked for, by the reader or in front of it."""
        self._window = 0
        self._misses = 0

    def after(self, offset: int, size: int, file_size: int, misses: int) -> tuple[int, int] | None:
        """A read of `size` bytes came: the range to fetch in addition, as (start, stop), or None.

        `misses` counts reads and prefetches that found something missing: as long as it stands still nothing is needed.
        """
        helps, self._misses = misses != self._misses, misses
        end = offset + size
        slack = max(self._window, 2 * size)
        is_next = size > 0 and self._expected - slack <= offset <= self._expected + self._window
        begins = self._expected == 0
        if not is_next or begins:
            # The very first read of a file may be the only one.
            self._expected = self._ahead = end
            self._window = 0
            return None
        self._expected = max(self._expected, end)
        self._ahead = max(self._ahead, self._expected)
        if not helps:
            return None
        if self._ahead - self._expected > self._window // 2:
            return None
        self._window = min(max(FIRST_WINDOW, 2 * self._window), self._limit)
        start, stop = self._ahead, min(self._expected + self._window, file_size)
        if start >= stop:
            return None
        self._ahead = stop
        return start, stop
