"""What the filesystem needs of the engine below it: the shape of `zerofs.lsm`'s door, and of the fake in tests."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from zerofs.errors import ZerofsError
from zerofs.lsm.chunk import Shared
from zerofs.lsm.patch import Patch

T = TypeVar("T")


class Deferred(Protocol):
    """A live value: the engine keeps the object and asks for its bytes at the cut, or before when it is put rarely.

    So it changes only together with a commit of it, without an await in between.
    """

    def encode(self) -> bytes:
        """The value as of now. Does not await, does not fail. Empty, for a chunk: there is none."""
        ...


Value = bytes | memoryview | Deferred
"""`get` gives the live object back until it is encoded, then bytes. Views are of chunks alone."""

Base = Value | Patch
"""A chunk of which a part is to be overwritten."""

Row = tuple[bytes, Base | Shared | None]
"""A key and what to put there; None deletes."""

KeyRange = tuple[bytes, bytes]
"""Half-open."""

ALIVE = frozenset({"ok", "waiting", "read-only"})
"""States in which the engine of a writer takes commits."""


class Engine(Protocol):
    """Ordered rows; atomic commits, visible at once; durable at the next sync, in whole cuts."""

    @property
    def dirty_bytes(self) -> int:
        """What a sync would have to store; 0 when there is nothing."""
        ...

    @property
    def state(self) -> str:
        """`ok`; `waiting`, then `read-only`, while the store does not answer; or why it stopped for good (`fenced`)."""
        ...

    def commit(self, rows: Iterable[Row], delete_ranges: Sequence[KeyRange] = ()) -> None:
        """One operation: the ranges are deleted first, then the rows put. Raises before any effect, if at all."""
        ...

    def lend(self, size_bytes: int) -> memoryview | None:
        """Memory to be filled, whole chunks of which `commit` takes without a copy; None when there is none.

        Whoever has filled it must not change it any more. It is used again when nobody has any part of it.
        """
        ...

    async def get(self, key: bytes) -> Value | None:
        """The newest value. No checkpoint when it is in memory."""
        ...

    async def multi_get(self, keys: Sequence[bytes]) -> Sequence[Value | None]:
        """The newest value of each key as of the call, in the order of the keys."""
        ...

    @property
    def misses(self) -> int:
        """How many reads and prefetches found data that was not in memory, so far."""
        ...

    def prefetch(self, keys: Sequence[bytes]) -> bool:
        """These chunk keys will be read soon. A hint; False when it is not taken."""
        ...

    async def shareable(self, keys: Sequence[bytes]) -> Sequence[Shared | bytes | None]:
        """What to put under other chunk keys so that they have what these have. Commit it before any await."""
        ...

    async def bases(self, keys: Sequence[bytes]) -> Sequence[Base | None]:
        """As `multi_get`, but what would have to be fetched comes as a patch. Commit it before any await."""
        ...

    def take_losses(self) -> Sequence[tuple[bytes, ZerofsError]]:
        """Chunks that keep what they had because nothing could be laid over it, and why; each is told once."""
        ...

    async def contains(self, key: bytes) -> bool:
        """Whether there is a value, without fetching a chunk's data."""
        ...

    async def scan(self, start: bytes, stop: bytes, limit: int) -> Sequence[tuple[bytes, Value]]:
        """The first `limit` rows in [start, stop), in order. The values of chunk keys are empty."""
        ...

    async def admit(self, size_bytes: int, *, unless_read_only: bool = False) -> None:
        """Wait while too much is dirty, with `unless_read_only` not in that state. No checkpoint otherwise."""
        ...

    async def patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """The result of `read`, called again and again while the store does not answer, until the engine ends."""
        ...

    async def sync(self) -> None:
        """Return when everything committed before the call is durable."""
        ...

    async def flush(self) -> None:
        """A sync, after which opening the volume has nothing to replay."""
        ...
