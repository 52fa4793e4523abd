"""An engine in memory, faithful to the door of `zerofs.lsm` as the filesystem uses it: for tests of what stands above.

What it is faithful in: live values are kept as objects until a cut and are bytes from then on; a cut takes every commit
so far and nothing of any later one; what is not in a completed sync is gone after `crash`; chunk values are empty in
scans; what is synced is patched without being read; a fenced engine refuses before any effect. What it is not: a
store, a log, a cache.

It is also strict: a live value that was changed without being put again, a key of no family, a chunk that is empty or
too long, and an empty encoding are bugs of the caller, reported as AssertionError.
"""

import math
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import trio

from zerofs.errors import ClosedError, FencedError, ObjectStoreError, ZerofsError
from zerofs.fs.ports import Deferred, KeyRange, Row, Value
from zerofs.lsm.chunk import Shared
from zerofs.lsm.format.pointer import IN_SST, NONCE_SIZE, Pointer
from zerofs.lsm.patch import Patch
from zerofs.units import CHUNK_SIZE

T = TypeVar("T")

_ROW_OVERHEAD = 100


async def immediately(keys: Sequence[bytes]) -> None:
    """No pause."""


async def with_checkpoint(keys: Sequence[bytes]) -> None:
    """Let other tasks run first."""
    await trio.lowlevel.checkpoint()


class FakeEngine:
    """See the module. `strict=False` leaves out the costly check, for measurements."""

    def __init__(self, *, rows: dict[bytes, bytes] | None = None, strict: bool = True) -> None:
        self._durable: dict[bytes, bytes] = dict(rows or {})
        self._rows: dict[bytes, Value | Patch] = dict(self._durable)
        self._sorted: list[bytes] | None = None
        self._unsynced: set[bytes] = set()
        self._put_as: dict[bytes, tuple[Deferred | Patch, bytes]] = {}
        self._under: dict[int, bytes] = {}
        """What patches lie on, by the number of the SST that their pointer names."""
        self._losses: list[tuple[bytes, ZerofsError]] = []
        self._strict = strict
        self._state = "ok"
        self._sync_error: ZerofsError | None = None
        self._failure: ZerofsError | None = None
        self._flushed = trio.Event()
        self._syncing: trio.Event | None = None
        self.dirty_bytes = 0
        self.dirty_limit_bytes: float = math.inf
        """`admit` waits above it."""
        self.pause: Callable[[Sequence[bytes]], Awaitable[None]] = immediately
        """Awaited by every read that goes beyond the memtable, with its keys, and by sync, with none, before they
        answer: a test's place for checkpoints."""
        self.read_error: Callable[[bytes], ZerofsError | None] = lambda key: None
        """What a read of a key raises instead of answering."""
        self.base_error: Callable[[bytes], ZerofsError | None] = lambda key: None
        """Why a cut cannot read what the patch of a key lies on."""
        self.calls: list[str] = []
        self.wished: list[list[bytes]] = []
        """What somebody said that he would read soon."""
        """Every read that went beyond the memtable, by name."""
        self.syncs = 0
        """Completed syncs that had something to store."""

    @property
    def state(self) -> str:
        """One of `ok`, `waiting`, `read-only`, `fenced`, `failed`, `closed`."""
        return self._state

    def commit(self, rows: Iterable[Row], delete_ranges: Sequence[KeyRange] = ()) -> None:
        """See the port."""
        self._refuse_if_over()
        for start, stop in delete_ranges:
            for key in self._keys(start, stop):
                self._put(key, None)
        for key, value in rows:
            assert not isinstance(value, Shared), "this engine shares nothing"
            self._put(key, value)

    def _put(self, key: bytes, value: Value | Patch | None) -> None:
        if self._strict:
            _check_row(key, value)
        self._unsynced.add(key)
        if value is None:
            if self._rows.pop(key, None) is not None:
                self._sorted = None
            self._put_as.pop(key, None)
            self.dirty_bytes += len(key)
            return
        if key not in self._rows:
            self._sorted = None
        if isinstance(value, memoryview) and type(value.obj) is not _Lent:
            value = bytes(value)
        self._rows[key] = value
        if isinstance(value, bytes | memoryview):
            self.dirty_bytes += len(key) + len(value)
            self._put_as.pop(key, None)
        else:
            self.dirty_bytes += len(key) + _ROW_OVERHEAD
            if self._strict:
                self._put_as[key] = (value, self._encoded(value))

    def _keys(self, start: bytes, stop: bytes) -> list[bytes]:
        if self._sorted is None:
            self._sorted = sorted(self._rows)
        keys = self._sorted
        return keys[bisect_left(keys, start) : bisect_left(keys, stop)]

    async def get(self, key: bytes) -> Value | None:
        """See the port."""
        value = self._rows.get(key)
        if key not in self._unsynced or isinstance(value, Patch):
            self.calls.append("get")
            await self._answer([key])
        return self._whole(value)

    def lend(self, size_bytes: int) -> memoryview | None:
        """See the port."""
        return memoryview(_Lent(size_bytes))

    async def multi_get(self, keys: Sequence[bytes]) -> list[Value | None]:
        """See the port."""
        values = [self._rows.get(key) for key in keys]
        if not self._unsynced.issuperset(keys) or any(isinstance(value, Patch) for value in values):
            self.calls.append("multi_get")
            await self._answer(keys)
        return [self._whole(value) for value in values]

    async def bases(self, keys: Sequence[bytes]) -> list[Value | Patch | None]:
        """See the port. Whatever is synced is in a store."""
        if not self._unsynced.issuperset(keys):
            self.calls.append("bases")
            await self._answer(keys)
        return [self._base(key) for key in keys]

    def _base(self, key: bytes) -> Value | Patch | None:
        value = self._rows.get(key)
        if isinstance(value, Patch):
            return self._encoded(value) if value.is_full else value
        if value is None or key in self._unsynced:
            return value
        number, data = len(self._under), self._encoded(value)
        self._under[number] = data
        return Patch(Pointer(IN_SST, 1, number, 0, len(data), len(data), bytes(NONCE_SIZE)))

    def _whole(self, value: Value | Patch | None) -> Value | None:
        return self._encoded(value) if isinstance(value, Patch) else value

    def _encoded(self, value: Value | Patch) -> bytes:
        if isinstance(value, Patch):
            return value.over(self._under[value.base.number])
        return bytes(value) if isinstance(value, bytes | memoryview) else value.encode()

    def take_losses(self) -> list[tuple[bytes, ZerofsError]]:
        """See the port."""
        losses, self._losses = self._losses, []
        return losses

    @property
    def misses(self) -> int:
        """See the port. Nothing but what is not synced yet is in memory."""
        return len(self.calls)

    def prefetch(self, keys: Sequence[bytes]) -> bool:
        """See the port. Nothing is fetched."""
        self.wished.append(list(keys))
        return True

    async def shareable(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See the port. Nothing is shared: everything is given as it is."""
        values = await self.multi_get(keys)
        return [None if value is None else self._encoded(value) for value in values]

    async def contains(self, key: bytes) -> bool:
        """See the port."""
        answer = key in self._rows
        self.calls.append("contains")
        await self._answer([key])
        return answer

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, Value]]:
        """See the port."""
        keys = self._keys(start, stop)[:limit]
        found = [(key, b"" if key.startswith(b"chunk") else self._whole(self._rows[key]) or b"") for key in keys]
        self.calls.append("scan")
        await self._answer(keys)
        return found

    async def _answer(self, keys: Sequence[bytes]) -> None:
        if self._state == "closed":
            raise ClosedError("the engine is closed")
        await self.pause(keys)
        for key in keys:
            error = self.read_error(key)
            if error is not None:
                raise error

    async def admit(self, size_bytes: int, *, unless_read_only: bool = False) -> None:
        """See the port."""
        self._refuse_if_over()
        while self.dirty_bytes > self.dirty_limit_bytes and not (unless_read_only and self._state == "read-only"):
            await self._flushed.wait()

    async def patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """See the port."""
        while True:
            self._refuse_if_over()
            try:
                return await read()
            except ObjectStoreError:
                await trio.sleep(1)

    async def sync(self) -> None:
        """See the port. One at a time; the cut is made at the start, what it took is durable only at the end."""
        while self._syncing is not None:
            await self._syncing.wait()
        self._refuse_if_over()
        done = self._syncing = trio.Event()
        try:
            await self._store_cut()
        finally:
            self._syncing = None
            done.set()

    async def _store_cut(self) -> None:
        taken = {key: self._cut(key) for key in self._unsynced}
        self._unsynced = set()
        dirty = self.dirty_bytes
        try:
            await self.pause(())
            self._refuse_if_over()
            if self._sync_error is not None:
                self._state = "waiting"
                raise self._sync_error
        except BaseException:
            self._unsynced.update(taken)
            raise
        self._state = "ok"
        for key, value in taken.items():
            if value is None:
                self._durable.pop(key, None)
            else:
                self._durable[key] = value
        self.syncs += bool(taken)
        self.dirty_bytes -= dirty
        self._flushed.set()
        self._flushed = trio.Event()

    def _cut(self, key: bytes) -> bytes | None:
        value = self._rows.get(key)
        if value is None or isinstance(value, bytes):
            return value
        encoded = self._encoded(value)
        assert encoded, f"a live value of {key!r} is empty"
        self._check_live(key)
        error = self.base_error(key) if isinstance(value, Patch) else None
        if error is not None and isinstance(value, Patch):
            self._losses.append((key, error))
            encoded = self._under[value.base.number]
        self._rows[key] = encoded
        return encoded

    async def flush(self) -> None:
        """See the port."""
        await self.sync()

    def _refuse_if_over(self) -> None:
        if self._state == "fenced":
            raise FencedError("another writer took the volume over")
        if self._state == "closed":
            raise ClosedError("the engine is closed")
        if self._failure is not None:
            raise self._failure

    # for tests

    def fence(self) -> None:
        """Another writer takes over."""
        self._state = "fenced"

    def outage(self, state: str) -> None:
        """The store is away (`waiting`, or `read-only` for long), or back (`ok`). Whoever is held looks again."""
        self._state = state
        self._flushed.set()
        self._flushed = trio.Event()

    def close(self) -> None:
        """Every later call raises ClosedError."""
        self._state = "closed"

    def fail(self, error: ZerofsError) -> None:
        """Stop for good, as after a bug: every change and sync raises the error from now on."""
        self._state = "failed"
        self._failure = error

    def fail_syncs(self, error: ZerofsError | None) -> None:
        """Let every sync fail like that, without losing anything, until None is given."""
        self._sync_error = error

    def crash(self) -> "FakeEngine":
        """A new engine with what the last completed sync left. This one is fenced, like a process that died."""
        self._state = "fenced"
        return FakeEngine(rows=self._durable, strict=self._strict)

    def check_live_values(self) -> None:
        """Raise AssertionError if a live value was changed without being put again."""
        for key in list(self._put_as):
            self._check_live(key)

    def _check_live(self, key: bytes) -> None:
        known = self._put_as.get(key)
        if known is not None:
            value, encoded = known
            assert self._encoded(value) == encoded, f"the live value of {key!r} was changed without being put again"

    def durable_rows(self) -> dict[bytes, bytes]:
        """What a crash would leave."""
        return dict(self._durable)

    def rows(self) -> dict[bytes, bytes]:
        """Everything as bytes, as a sync at this moment would store it."""
        return {key: self._encoded(value) for key, value in self._rows.items()}

    def replace(self, key: bytes, value: bytes | None) -> None:
        """Change a row behind the filesystem's back, durably: for tests of damage."""
        self._unsynced.discard(key)
        self._put_as.pop(key, None)
        self._sorted = None
        if value is None:
            self._rows.pop(key, None)
            self._durable.pop(key, None)
        else:
            self._rows[key] = self._durable[key] = value


class _Lent(bytearray):
    """Memory that nobody changes once it is filled: views of it may be kept."""


def _check_row(key: bytes, value: Value | Patch | None) -> None:
    assert key.startswith((b"meta", b"chunk")), f"{key!r} belongs to no family"
    assert key.startswith(b"chunk") or not isinstance(value, memoryview), f"{key!r} is no chunk"
    if key.startswith(b"chunk") and isinstance(value, bytes | memoryview):
        assert 0 < len(value) <= CHUNK_SIZE, f"a chunk of {len(value)} bytes"
