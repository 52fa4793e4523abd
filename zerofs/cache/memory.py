"""Decoded values in memory, bounded in bytes and resistant to scans.

S3-FIFO: a small queue takes what is new, a main queue what was asked for again, a ghost list remembers the keys that
left the small queue unasked. A value that is read once passes through a fifth of the budget and is gone; nothing is
moved on a hit, a counter is raised. Source: Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023).
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from zerofs.telemetry.metrics import ratio

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SMALL_SHARE = 5
"""The small queue gets one part in so many: twice what its source proposes, as what is fetched ahead waits there."""

_MAX_HITS = 3

_STALE_PLACES = 64
"""Places of forgotten values that may stay in the queues, besides one for each value."""


class _Entry(Generic[V]):
    __slots__ = ("hits", "size", "value")

    def __init__(self, value: V, size: int) -> None:
        self.value = value
        self.size = size
        self.hits = 0


class MemoryCache(Generic[K, V]):
    """A bounded map. Sizes are in bytes, as the caller states them."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._entries: dict[K, _Entry[V]] = {}
        self._small: deque[K] = deque()
        self._main: deque[K] = deque()
        self._small_bytes = 0
        self._in_small: set[K] = set()
        self._ghosts: OrderedDict[K, None] = OrderedDict()
        self.size_bytes = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0

    def get(self, key: K) -> V | None:
        """The value, or None."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        if entry.hits < _MAX_HITS:
            entry.hits += 1
        return entry.value

    def peek(self, key: K) -> V | None:
        """The value, or None; counted as no use."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def put(self, key: K, value: V, size_bytes: int, *, unasked: bool = False) -> None:
        """Keep a value, unless it alone exceeds the budget. Replaces an older one of the same key.

        `unasked`: nobody wanted it yet, so the first use only makes it what others are when they come.
        """
        if size_bytes > self.limit_bytes:
            return
        old = self._entries.get(key)
        if old is not None:
            self.size_bytes += size_bytes - old.size
            if key in self._in_small:
                self._small_bytes += size_bytes - old.size
            old.value, old.size = value, size_bytes
        else:
            self._entries[key] = entry = _Entry(value, size_bytes)
            if unasked:
                entry.hits = -1
            self.size_bytes += size_bytes
            if key in self._ghosts:
                del self._ghosts[key]
                self._main.append(key)
            else:
                self._small.append(key)
                self._in_small.add(key)
                self._small_bytes += size_bytes
        while self.size_bytes > self.limit_bytes:
            self._evict_one()

    def discard(self, key: K) -> None:
        """Forget a value; its place in the queues is cleaned up when its turn comes."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size
            if key in self._in_small:
                self._in_small.discard(key)
                self._small_bytes -= entry.size
            if len(self._small) + len(self._main) > 2 * len(self._entries) + _STALE_PLACES:
                self._small = deque(key for key in self._small if key in self._in_small)
                self._main = deque(key for key in self._main if key in self._entries and key not in self._in_small)

    def statistics(self) -> dict[str, int | float | None]:
        """Bytes, entries, and counters since the start."""
        return {
            "bytes": self.size_bytes,
            "entries": len(self._entries),
            "hits": self.hits,
            "misses": self.misses,
            "hit_ratio": ratio(self.hits, self.hits + self.misses),
            "evictions": self.evictions,
        }

    def _evict_one(self) -> None:
        """Look at one key at the head of a queue: promote it, give it another turn, or drop it."""
        if self._small and (self._small_bytes * _SMALL_SHARE >= self.limit_bytes or not self._main):
            key = self._small.popleft()
            if key not in self._in_small:
                return
            entry = self._entries[key]
            self._in_small.discard(key)
            self._small_bytes -= entry.size
            if entry.hits > 0:
                entry.hits = 0
                self._main.append(key)
                return
            if not entry.hits:  # what was never asked for is not missed
                self._ghosts[key] = None
            if len(self._ghosts) > max(16, len(self._entries)):
                self._ghosts.popitem(last=False)
            self._drop(key, entry)
            return
        key = self._main.popleft()
        main_entry = self._entries.get(key)
        if main_entry is None or key in self._in_small:
            return
        if main_entry.hits > 0:
            main_entry.hits -= 1
            self._main.append(key)
            return
        self._drop(key, main_entry)

    def _drop(self, key: K, entry: _Entry[V]) -> None:
        del self._entries[key]
        self.size_bytes -= entry.size
        self.evictions += 1
