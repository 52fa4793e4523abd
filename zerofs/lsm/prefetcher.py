"""Chunks that somebody will want soon, fetched into memory before they are asked for (decision 0019).

Never more than a help: a wish is dropped when all hands are busy, and what goes wrong is left to the reader who comes
for it.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from zerofs.errors import ZerofsError
from zerofs.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

JOBS_MAX = 4
"""Wishes that are being fulfilled at one time."""


class Prefetcher:
    """Serves one engine. `run` as long as the engine is open."""

    def __init__(self, fetch: Callable[[Sequence[bytes]], Awaitable[object]], metrics: Metrics) -> None:
        self._fetch = fetch
        self._metrics = metrics
        self._nursery: trio.Nursery | None = None
        self._jobs = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take wishes, until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def want(self, keys: Sequence[bytes]) -> None:
        """Somebody will read these chunk keys soon."""
        if self._nursery is None or self._jobs >= JOBS_MAX:
            self._metrics.add("prefetches_dropped")
            return
        self._jobs += 1
        self._metrics.add("prefetches")
        self._nursery.start_soon(self._fulfil, keys)

    async def _fulfil(self, keys: Sequence[bytes]) -> None:
        try:
            await self._fetch(keys)
        except ZerofsError as error:
            _log.debug("fetching ahead failed, which its reader will meet: %s", error)
        finally:
            self._jobs -= 1
