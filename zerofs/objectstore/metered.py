"""Counts what reaches the store: calls, bytes and errors by kind, and for tests a trace of every call.

Sits directly around the real store, so that it sees each try of a retried call. It counts calls of the protocol: `api`
says how many requests of S3 one call can be.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from zerofs.errors import ObjectNotFoundError, PreconditionFailedError, ZerofsError
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.decorator import Request, StoreDecorator

T = TypeVar("T")


class MetricsSink(Protocol):
    """As much of a metrics registry as this room needs."""

    def add(self, name: str, amount: int, **labels: str) -> None:
        """Raise the counter of this name and these labels."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Traced:
    """One call that was made. `error` is the name of the error's class, empty for success."""

    kind: str
    name: str
    sent_bytes: int
    received_bytes: int
    error: str = ""


class TraceSink(Protocol):
    """What a trace is written to: a list will do."""

    def append(self, traced: Traced, /) -> None:
        """Take one finished call."""
        ...


class MeteredStore(StoreDecorator):
    """Counters, each labelled with the `kind` of call.

    `store_requests_total`: calls that began; `store_sent_bytes` and `store_received_bytes`: contents of objects, of
    successful calls; `store_errors_total`, also labelled with the class of the error: calls that failed. An absent
    object and a lost condition are answers, not errors, and are not counted as such; the trace shows them.
    """

    def __init__(self, inner: ObjectStore, metrics: MetricsSink, trace: TraceSink | None = None) -> None:
        super().__init__(inner)
        self._metrics = metrics
        self._trace = trace

    async def _around(self, request: Request, call: Callable[[], Awaitable[T]]) -> T:
        kind = request.kind.value
        self._metrics.add("store_requests_total", 1, kind=kind)
        try:
            result = await call()
        except ZerofsError as exc:
            error = type(exc).__name__
            if not isinstance(exc, ObjectNotFoundError | PreconditionFailedError):
                self._metrics.add("store_errors_total", 1, kind=kind, error=error)
            self._note(request, 0, error)
            raise
        received_bytes = _content_size(result)
        if received_bytes:
            self._metrics.add("store_received_bytes", received_bytes, kind=kind)
        if request.sent_bytes:
            self._metrics.add("store_sent_bytes", request.sent_bytes, kind=kind)
        self._note(request, received_bytes, "")
        return result

    def _note(self, request: Request, received_bytes: int, error: str) -> None:
        if self._trace is not None:
            traced = Traced(
                kind=request.kind.value,
                name=request.name,
                sent_bytes=request.sent_bytes,
                received_bytes=received_bytes,
                error=error,
            )
            self._trace.append(traced)


def _content_size(result: object) -> int:
    """Bytes of contents in what a call returned: bytes, bytes with a version, or something without contents."""
    contents = result[0] if isinstance(result, tuple) else result
    return len(contents) if isinstance(contents, bytes) else 0
