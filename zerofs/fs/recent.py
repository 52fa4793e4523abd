"""A bounded dictionary that forgets what was not used for longest, roughly, at the price of one dictionary lookup.

Two generations: new and used entries are in the young one; when that is full it becomes the old one, and the old one is
forgotten whole. So between `count` and twice `count` entries are kept, and nothing is ever sorted or shifted.
"""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """See the module. Values must not be None: that is the answer for absence."""

    __slots__ = ("_count", "_old", "_young")

    def __init__(self, count: int) -> None:
        self._count = count
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        """The value, which thereby becomes young; None if it is not known."""
        value = self._young.get(key)
        if value is None and self._old:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Remember."""
        young = self._young
        young[key] = value
        if len(young) > self._count:
            self._old = young
            self._young = {}

    def clear(self) -> None:
        """Forget all."""
        self._young, self._old = {}, {}

    def drop(self, key: K) -> None:
        """Forget one."""
        self._young.pop(key, None)
        self._old.pop(key, None)
