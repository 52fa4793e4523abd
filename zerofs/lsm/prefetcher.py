"""Chunks that somebody will want soon, fetched into memory before they are asked for (decision 0019).

Never more than a help: a wish is dropped when all hands are busy, and what goes wrong is left to the reader who comes
for it.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from zerofs.errors import ZerofsError
from zerofs.telemetry.metrics import Metrics
from zerofs.units import CHUNK_SIZE

_log = logging.getLogger(__name__)

JOB_CHUNKS = 128
"""4 MiB: large enough for one request, small enough for somebody who waits for a part of it."""


class Prefetcher:
    """Serves one engine. `run` as long as the engine is open."""

    def __init__(
        self, fetch: Callable[[Sequence[bytes]], Awaitable[object]], limit_bytes: int, metrics: Metrics
    ) -> None:
        """`limit_bytes`: what may be under way at one time."""
        self._fetch = fetch
        self._free = max(limit_bytes // CHUNK_SIZE, 1)
        self._metrics = metrics
        self._nursery: trio.Nursery | None = None
        self._told: set[type[Exception]] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take wishes, until cancelled or stopped."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def stop(self) -> None:
        """Take no more wishes, and give up those that are being fulfilled."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
            self._nursery = None

    def want(self, keys: Sequence[bytes]) -> bool:
        """Somebody will read these chunk keys soon. False when all hands are busy."""
        if self._nursery is None or len(keys) > self._free:
            self._metrics.add("prefetches_dropped")
            return False
        self._metrics.add("prefetches")
        for first in range(0, len(keys), JOB_CHUNKS):
            job = keys[first : first + JOB_CHUNKS]
            self._free -= len(job)
            self._nursery.start_soon(self._fulfil, job)
        return True

    async def _fulfil(self, keys: Sequence[bytes]) -> None:
        try:
            await self._fetch(keys)
        except ZerofsError as error:
            _log.debug("fetching ahead failed, which its reader will meet: %s", error)
        except Exception as error:  # a help must not end what it helps
            if type(error) not in self._told:
                self._told.add(type(error))
                _log.exception("fetching ahead failed; reads go on")
        finally:
            self._free += len(keys)
