"""What to fetch before it is asked for, decided from what was asked for so far. Pure; one object for each open file.

Not the place where anything is fetched: the engine does that, when it has hands free.
"""

from collections import deque

from zerofs.units import CHUNK_SIZE, MIB

FIRST_WINDOW = MIB

STEP = 4 * MIB
"""A large window moves on by this much at a time: what the engine fetches with one request."""

_RECENT = 16
"""Windows that are looked back on, to tell how many streams there are."""


class Streams:
    """How far readers may be ahead of themselves, all together: what memory keeps of what nobody has read yet."""

    __slots__ = ("_limit", "_recent")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._recent: deque[int] = deque(maxlen=_RECENT)

    def share(self, stream: object) -> int:
        """The part of one of those that open windows now, bytes."""
        self._recent.append(id(stream))
        return self._limit // len(set(self._recent))


class ReadAhead:
    """Notices reads that follow one another, and keeps a window open in front of them.

    The kernel asks for several parts of its own window at one time, so a read may be a little before or behind the
    place where the last one ended.
    """

    __slots__ = ("_ahead", "_expected", "_misses", "_streams", "_window")

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._expected = 0
        self._ahead = 0
        """Up to here everything was asked for, by the reader or in front of it."""
        self._window = 0
        self._misses = 0
        """How often reads had missed something when the last window was opened."""

    def after(self, offset: int, size: int, file_size: int, misses: int) -> tuple[int, int] | None:
        """A read of `size` bytes came: the range to fetch in addition, as (start, stop), or None.

        `misses` counts reads and prefetches that found something missing: as long as it stands still nothing is needed.
        """
        end = offset + size
        slack = max(self._window, 2 * size)
        is_next = size > 0 and self._expected - slack <= offset <= self._expected + self._window
        begins = self._expected == 0
        if not is_next or begins:
            # The very first read of a file may be the only one.
            self._expected = self._ahead = end
            self._window = 0
            self._misses = misses
            return None
        self._expected = max(self._expected, end)
        self._ahead = max(self._ahead, self._expected)
        used = self._expected + self._window - self._ahead
        if misses == self._misses or used < min(self._window // 2, STEP):
            return None
        self._misses = misses
        self._window = min(max(FIRST_WINDOW, 2 * self._window), self._streams.share(self))
        start, stop = self._ahead, self._expected + self._window
        if stop - start > STEP:
            stop -= (stop - start) % STEP
        stop = min(stop - stop % CHUNK_SIZE, file_size)  # part of a chunk would be a request of its own
        if start >= stop:
            return None
        self._ahead = stop
        return start, stop

    def refused(self, start: int) -> None:
        """What was to be fetched from `start` on was not: nobody had a hand free. It may be asked for again."""
        self._ahead = start
        self._misses -= 1
