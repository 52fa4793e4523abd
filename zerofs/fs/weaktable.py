"""Values for as long as somebody else holds them, whoever that is.

As `weakref.WeakValueDictionary`, which runs Python when a value is put and again when it dies: 4 us for each inode of a
walk. Here nothing runs when a value dies; each put looks whether two of the others are dead.
"""

from typing import Generic, TypeVar
from weakref import ref

K = TypeVar("K")
V = TypeVar("V")

_LOOKED_AT = 2
"""Entries that a put looks at: more than it adds, so that the dead are never many more than those that live."""


class WeakTable(Generic[K, V]):
    """See the module. A dead entry takes some 150 bytes until it is found."""

    __slots__ = ("_rest", "_seen")

    def __init__(self) -> None:
        self._seen: dict[K, ref[V]] = {}
        """Put or found alive in this round; the newest of a key."""
        self._rest: dict[K, ref[V]] = {}
        """Not looked at in this round yet."""

    def __len__(self) -> int:
        """How many entries there are, dead ones included."""
        return len(self._seen) + len(self._rest)

    def get(self, key: K) -> V | None:
        """The value if somebody still holds it."""
        known = self._seen.get(key) or self._rest.get(key)
        return known() if known is not None else None

    def put(self, key: K, value: V) -> None:
        """Know the value, in the place of another one."""
        seen, rest = self._seen, self._rest
        for _ in range(min(_LOOKED_AT, len(rest))):
            other, known = rest.popitem()
            if known() is not None:
                seen.setdefault(other, known)
        seen[key] = ref(value)
        if not rest:
            self._seen, self._rest = rest, seen

    def drop(self, key: K) -> None:
        """Know it no more."""
        self._seen.pop(key, None)
        self._rest.pop(key, None)
