"""A chunk of which parts were overwritten while nobody has read the rest: what is new, and where the rest lies (0021).

Whoever reads it lays the parts over what is there. Before it is sealed the patcher does so for good.
"""

from typing import final

from zerofs.lsm.format.pointer import Pointer
from zerofs.units import CHUNK_SIZE

PARTS_MAX = 16
"""With so many, or with as many bytes as a chunk has, it takes no more: then it is cheaper to have the chunk."""

Text = bytes | memoryview


@final
class Patch:
    """A live value for a chunk key, made by `Engine.bases`. Changes only together with a commit of it.

    Whoever writes to it must not write only zeros: what it becomes is never all zeros.
    """

    __slots__ = ("_covered", "_parts", "base", "size")

    def __init__(self, base: Pointer) -> None:
        self.base = base
        """The frame of what it lies on, in a chunk SST."""
        self.size = base.size
        """Bytes that the chunk has now."""
        self._parts: list[tuple[int, bytes]] = []
        """(first byte, data), the newest last."""
        self._covered = 0
        """Up to here nothing of the base is left."""

    @property
    def is_full(self) -> bool:
        """Whether it should take no more parts."""
        return len(self._parts) >= PARTS_MAX or sum(len(data) for _, data in self._parts) >= CHUNK_SIZE

    def write(self, start: int, data: bytes) -> None:
        """Put `data` at byte `start` of the chunk; what lies between the old end and it becomes zeros."""
        stop = start + len(data)
        if self._parts:  # those that this one covers go
            self._parts = [part for part in self._parts if part[0] < start or part[0] + len(part[1]) > stop]
        self._parts.append((start, data))
        if start <= self._covered < stop:
            self._covered = stop
        self.size = max(self.size, stop)

    def whole(self) -> bytes | None:
        """The chunk, if it is known without the base."""
        return self.over(b"") if self._covered == self.size else None

    def over(self, base: Text) -> bytes:
        """The chunk as of now, given what its base holds."""
        if len(self._parts) == 1:
            start, data = self._parts[0]
            if start <= len(base):
                return b"".join((base[:start], data, base[start + len(data) :]))
        chunk = bytearray(self.size)
        chunk[: len(base)] = base
        for start, data in self._parts:
            chunk[start : start + len(data)] = data
        return bytes(chunk)

    def copy(self) -> "Patch":
        """The same, to stay as it is while this one changes."""
        other = Patch(self.base)
        other.size = self.size
        other._parts = self._parts.copy()
        other._covered = self._covered
        return other
