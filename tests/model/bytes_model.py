"""A file as bytes in memory, and dice that fall where mistakes are made: at pages, chunks, requests, the file's end.

Whoever throws them must throw the same again for the same seed: nothing here looks at a clock or at a result.
"""

import random

from zerofs.fs.format.records import INLINE_LIMIT
from zerofs.units import CHUNK_SIZE

PAGE = 4096
C = CHUNK_SIZE
REQUEST = 1024 * 1024
"""The most that a kernel hands over at once."""

UNITS = (INLINE_LIMIT, PAGE, PAGE, C, C, C, C, REQUEST)
SHOWN = 16
"""Bytes of each side that a complaint shows."""


class Shadow:
    """What a file holds."""

    def __init__(self) -> None:
        self.data = bytearray()

    def __len__(self) -> int:
        return len(self.data)

    def write(self, offset: int, data: bytes) -> None:
        """At or beyond the end too: between, there are zeros then."""
        self.data.extend(bytes(max(0, offset - len(self.data))))
        self.data[offset : offset + len(data)] = data

    def resize(self, size: int) -> None:
        self.data.extend(bytes(max(0, size - len(self.data))))
        del self.data[size:]

    def zero(self, start: int, size: int) -> None:
        """The size stays."""
        stop = min(start + size, len(self.data))
        self.data[start:stop] = bytes(max(0, stop - start))

    def part(self, offset: int, size: int) -> bytes:
        return bytes(self.data[offset : offset + size])


def require_same(found: bytes, expected: bytes, offset: int, what: str) -> None:
    """Raise AssertionError that says where they differ first, for how long, and what is there instead."""
    if found == expected:
        return
    if len(found) != len(expected):
        what += f" ({len(found)} bytes instead of {len(expected)})"
    pairs = enumerate(zip(found, expected, strict=False))
    wrong = [at for at, (one, other) in pairs if one != other] or [min(len(found), len(expected))]
    first, last = wrong[0], wrong[-1]
    raise AssertionError(
        f"{what}: {len(wrong)} bytes differ, the first at {offset + first} (chunk {(offset + first) // C}, byte "
        f"{(offset + first) % C}), the last at {offset + last}: found {found[first : first + SHOWN].hex(' ')}, "
        f"expected {expected[first : first + SHOWN].hex(' ')}"
    )


class Dice:
    """Offsets, sizes and contents, as a seed wants them."""

    def __init__(self, seed: object) -> None:
        self.rng = random.Random(str(seed))

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def offset(self, size: int, limit: int) -> int:
        """A place in a file of that size that is never to grow beyond the limit: 0 to `limit`, both among them."""
        kind = self.rng.random()
        if kind < 0.25:
            place = size + self.rng.choice((-PAGE, -2, -1, 0, 0, 1, 2, C))
        elif kind < 0.7:
            place = self._multiple(limit) + self.rng.choice((-1, 0, 0, 0, 1))
        else:
            place = self.rng.randrange(limit + 1)
        return min(max(place, 0), limit)

    def size(self, offset: int, size: int, limit: int) -> int:
        """How much from there on: at least 1 byte, as long as the limit has room for it."""
        kind = self.rng.random()
        if kind < 0.3:
            wanted = self.rng.randrange(1, 200)
        elif kind < 0.4:
            wanted = size - offset + self.rng.choice((-1, 0, 0, 1))
        elif kind < 0.6:
            unit = self.rng.choice(UNITS)
            wanted = (offset // unit + self.rng.randrange(1, 4)) * unit - offset + self.rng.choice((-1, 0, 0, 1))
        elif kind < 0.85:
            wanted = self._multiple(min(limit, 5 * C)) + self.rng.choice((-1, 0, 0, 1))
        else:
            wanted = self.rng.randrange(1, limit + 1)
        return min(max(wanted, 1), limit - offset)

    def span(self, size: int, limit: int) -> tuple[int, int]:
        """Offset and size of something that the limit has room for; never nothing."""
        offset = min(self.offset(size, limit), limit - 1)
        return offset, self.size(offset, size, limit)

    def data(self, size: int) -> bytes:
        """Noise, mostly; sometimes what compresses, and sometimes zeros, of which whole chunks become holes."""
        kind = self.rng.random()
        if kind < 0.15:
            return bytes(size)
        if kind < 0.3:
            return bytes([self.rng.randrange(1, 256)]) * size
        if kind < 0.4:
            half = size // 2
            return self.rng.randbytes(half) + bytes(size - half)
        return self.rng.randbytes(size)

    def new_size(self, size: int, limit: int) -> int:
        """What to truncate it to: often so little that it stands in the inode's row again."""
        return self.rng.randrange(INLINE_LIMIT + 2) if self.chance(0.25) else self.offset(size, limit)

    def cuts(self, data: bytes) -> list[bytes]:
        """The same in up to four pieces."""
        places = sorted(self.rng.randrange(len(data) + 1) for _ in range(self.rng.randrange(4)))
        return [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]

    def _multiple(self, limit: int) -> int:
        unit = self.rng.choice([unit for unit in UNITS if unit <= limit] or [1])
        count = limit // unit + 1
        return unit * self.rng.randrange(min(count, 3) if self.chance(0.5) else count)
