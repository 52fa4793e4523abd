"""Rows of the newest commits, in memory: latest value per key, and range deletes of everything older.

A dictionary answers gets; the sorted key list that scans and flushes need is brought up to date only when one comes.
"""

from collections.abc import Iterator
from typing import Protocol

from sortedcontainers import SortedList

from zerofs.lsm.chunk import Chunk, Shared
from zerofs.lsm.patch import Patch
from zerofs.lsm.ranges import KeyRanges


class Deferred(Protocol):
    """A live value: put as often as it changes, encoded at the cut or, if it was not put again for long, before.

    It changes only together with a commit of it, without an await in between: what was encoded before the change is
    not asked for again. `encode` must not await and must not fail.

    For a chunk key, an empty encoding deletes the key: the chunk became a hole.
    """

    def encode(self) -> bytes:
        """The value as of now."""
        ...


Value = bytes | memoryview | Deferred
"""What a caller gets; views under chunk keys only."""

NewValue = Value | Shared | Patch
"""What a caller puts; shared frames and patches under chunk keys only. A view is kept if it is of lent memory, else
copied."""

Entry = bytes | Deferred | Patch | Chunk | None
"""What a memtable holds; None is a delete that hides older sources."""

_ABSENT = object()

_ROW_OVERHEAD = 200
"""Bytes of Python objects per row, about."""


class Memtable:
    """Active until a cut freezes it; from then on read only."""

    __slots__ = ("_keys", "_unsorted", "ranges", "rows", "size_bytes")

    def __init__(self) -> None:
        self.rows: dict[bytes, Entry] = {}
        self.ranges = KeyRanges()
        self.size_bytes = 0
        """Row bytes with their overhead; chunk data is counted elsewhere."""
        self._keys: SortedList = SortedList()
        self._unsorted: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self.rows) or bool(self.ranges)

    def put(self, key: bytes, entry: Entry) -> None:
        """The newest value of a key."""
        rows = self.rows
        old = rows.get(key, _ABSENT)
        if old is _ABSENT:
            self._unsorted.append(key)
            self.size_bytes += len(key) + _ROW_OVERHEAD
        elif type(old) is bytes:
            self.size_bytes -= len(old)
        rows[key] = entry
        if type(entry) is bytes:
            self.size_bytes += len(entry)

    def delete_range(self, start: bytes, stop: bytes) -> list[tuple[bytes, Entry]]:
        """Forget the rows in [start, stop) and hide those of older sources. Returns the forgotten rows."""
        gone = [(key, self.rows.pop(key)) for key in self.keys_between(start, stop)]
        if gone:
            first = self._keys.bisect_left(start)
            del self._keys[first : first + len(gone)]
        self.ranges.add(start, stop)
        self.size_bytes += len(start) + len(stop) + _ROW_OVERHEAD
        return gone

    def hides(self, key: bytes) -> bool:
        """Whether a range delete here hides the key in older sources."""
        return bool(self.ranges) and self.ranges.covers(key)

    def keys_between(self, start: bytes, stop: bytes, limit: int | None = None) -> list[bytes]:
        """The keys in [start, stop) in order, at most `limit`."""
        self._sort()
        first = self._keys.bisect_left(start)
        last = self._keys.bisect_left(stop)
        if limit is not None:
            last = min(last, first + limit)
        return list(self._keys[first:last])

    def copy(self) -> "Memtable":
        """The same rows, to be gone on with while others still read this one."""
        other = Memtable()
        other.rows = dict(self.rows)
        other.ranges = KeyRanges(self.ranges)
        other.size_bytes = self.size_bytes
        other._keys = self._keys.copy()
        other._unsorted = list(self._unsorted)
        return other

    def dismantle(self) -> None:
        """Free the memory of one that nobody uses any more, in a thread: at once, it would hold the interpreter."""
        rows, unsorted = self.rows, self._unsorted
        for _ in range(len(rows)):
            rows.popitem()
        for _ in range(len(unsorted)):
            unsorted.pop()

    def chunks(self) -> Iterator[Chunk]:
        """The chunks among the rows."""
        return (entry for entry in self.rows.values() if type(entry) is Chunk)

    def _sort(self) -> None:
        if self._unsorted:
            self._keys.update(self._unsorted)
            self._unsorted = []
