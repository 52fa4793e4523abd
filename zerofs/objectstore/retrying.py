"""Repeats what may be repeated, when the store was unavailable: get, head, list, put, delete.

Never a conditional put: a second try of one that had its effect would be told that it lost. Those are resolved by
`conditional`. tenacity decides when; trio does the sleeping, so that a simulated clock governs it.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity
import trio

from zerofs.errors import UnavailableError
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.backoff import Randomness, full_jitter_s
from zerofs.objectstore.decorator import Request, StoreDecorator
from zerofs.objectstore.metered import MetricsSink
from zerofs.objectstore.options import RetryOptions

T = TypeVar("T")

log = logging.getLogger(__name__)


class RetryingStore(StoreDecorator):
    """Tries again after UnavailableError, with full jitter, until the deadline; then raises the last error.

    Counts each repetition as `store_retries_total`, labelled with its `kind`. A call that succeeds at once pays nothing
    for being guarded.
    """

    def __init__(
        self, inner: ObjectStore, randomness: Randomness, metrics: MetricsSink, options: RetryOptions | None = None
    ) -> None:
        super().__init__(inner)
        self._randomness = randomness
        self._metrics = metrics
        self._options = options or RetryOptions()

    async def _around(self, request: Request, call: Callable[[], Awaitable[T]]) -> T:
        if request.kind.conditional:
            return await call()
        begun_s = trio.current_time()
        try:
            return await call()
        except UnavailableError as exc:
            return await self._repeat(request, call, exc, begun_s)

    async def _repeat(
        self, request: Request, call: Callable[[], Awaitable[T]], first: UnavailableError, begun_s: float
    ) -> T:
        pending: UnavailableError | None = first

        async def attempt() -> T:
            nonlocal pending
            if pending is not None:
                known, pending = pending, None
                raise known
            return await call()

        def pause_s(state: tenacity.RetryCallState) -> float:
            options = self._options
            return full_jitter_s(self._randomness, state.attempt_number, options.first_pause_s, options.longest_pause_s)

        def too_late(state: tenacity.RetryCallState) -> bool:
            return trio.current_time() + state.upcoming_sleep - begun_s > self._options.deadline_s

        def tell(state: tenacity.RetryCallState) -> None:
            self._metrics.add("store_retries_total", 1, kind=request.kind.value)
            error = state.outcome.exception() if state.outcome else None
            log.info(
                "%s of %s failed, trying again in %.1f s: %s", request.kind, request.name, state.upcoming_sleep, error
            )

        # One per call: tenacity keeps the state of a run in the object.
        retrying = tenacity.AsyncRetrying(
            sleep=trio.sleep,
            stop=too_late,
            wait=pause_s,
            retry=tenacity.retry_if_exception_type(UnavailableError),
            before_sleep=tell,
            reraise=True,
        )
        return await retrying(attempt)
