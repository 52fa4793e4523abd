"""A store that fails the way real ones do, at times that a seed decides or a test names. For tests and simulation.

Each `FaultyStore` is one client's connection to a store that others may share: partitions and crashes are per client.
It sits directly around the store, below retries. Time passes by `trio.sleep` only, so with trio's mock clock a run is a
function of its seed.
"""

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from zerofs.errors import ObjectStoreError, UnavailableError
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.backoff import Randomness
from zerofs.objectstore.decorator import Kind, Request, StoreDecorator

T = TypeVar("T")


class Fault(enum.Enum):
    """One thing that can go wrong with a call. The client sees UnavailableError for each of them."""

    FAIL_BEFORE = enum.auto()
    """The request never arrives."""
    LOST_REPLY = enum.auto()
    """The request has its effect, and the reply is lost, whatever it was."""
    DELAYED = enum.auto()
    """The client gives up; the request of a put or delete arrives later. Of a read: as FAIL_BEFORE."""
    CONFLICT = enum.auto()
    """409 to a conditional put: no effect."""
    BUSY = enum.auto()
    """503: no effect."""
    SHORT_BODY = enum.auto()
    """A get whose body ends early, which the store notices."""
    CRASH_BEFORE = enum.auto()
    """The client's machine dies before the request arrives: as FAIL_BEFORE, and cut off for ever."""
    CRASH_AFTER = enum.auto()
    """The client's machine dies after the effect: as LOST_REPLY, and cut off for ever."""

    def fits(self, kind: Kind) -> bool:
        """Whether a call of this kind can fail so."""
        if self is Fault.CONFLICT:
            return kind.conditional
        if self is Fault.SHORT_BODY:
            return kind is Kind.GET
        return True


@dataclass(slots=True, frozen=True, kw_only=True)
class FaultRates:
    """How often a call that a fault fits suffers it (probabilities, of sum <= 1), and how slow the network is."""

    fail_before: float = 0.0
    lost_reply: float = 0.0
    delayed: float = 0.0
    conflict: float = 0.0
    busy: float = 0.0
    short_body: float = 0.0
    latency_s: tuple[float, float] = (0.0, 0.0)
    """Uniform in this range, once for the request and once for the reply."""
    delay_s: tuple[float, float] = (0.1, 10.0)
    """How much later a delayed request arrives."""


@dataclass(slots=True)
class _Planned:
    fault: Fault
    kind: Kind | None
    name_part: str
    skip: int


class FaultyStore(StoreDecorator):
    """One client's unreliable connection.

    Shape: `calls` counts the calls that this client began while it was not cut off, so a test can run a workload once,
    read it, and then crash at each one with `plan`. Randomness is drawn only where a rate or a range asks for it.
    """

    def __init__(
        self,
        inner: ObjectStore,
        randomness: Randomness,
        rates: FaultRates | None = None,
        nursery: trio.Nursery | None = None,
    ) -> None:
        """`nursery` is where delayed requests wait: it must outlive the client. Without one none can be delayed."""
        super().__init__(inner)
        self._randomness = randomness
        self._nursery = nursery
        self._planned: list[_Planned] = []
        self._crashed = trio.Event()
        self.rates = rates or FaultRates()
        """May be replaced at any time."""
        self.partitioned = False
        """While true, requests do not arrive, and replies to those that arrived before are lost."""
        self.calls = 0

    def plan(self, fault: Fault, kind: Kind | None = None, name_part: str = "", skip: int = 0) -> None:
        """Let the call after the next `skip` that match suffer `fault`, instead of what the rates would do to it.

        A call matches when it is of `kind` (None: any that the fault fits) and its name contains `name_part`.
        """
        assert kind is None or fault.fits(kind), f"{fault} does not happen to a {kind}"
        self._planned.append(_Planned(fault, kind, name_part, skip))

    def crash(self) -> None:
        """Cut this client off for ever. Calls under way that have not arrived never will."""
        self._crashed.set()

    @property
    def crashed(self) -> bool:
        """Whether this client is cut off for ever."""
        return self._crashed.is_set()

    async def wait_crashed(self) -> None:
        """Return once this client is cut off for ever."""
        await self._crashed.wait()

    async def _around(self, request: Request, call: Callable[[], Awaitable[T]]) -> T:
        self._check_connected(request)
        self.calls += 1
        fault = self._choose(request.kind, request.name)
        await self._travel()
        self._check_connected(request)
        if fault is Fault.DELAYED and request.kind.changes:
            self._send_later(call)
        if fault is Fault.CRASH_BEFORE:
            self.crash()
        if fault in (Fault.FAIL_BEFORE, Fault.DELAYED, Fault.CONFLICT, Fault.BUSY, Fault.CRASH_BEFORE):
            raise _failure(request, fault)
        try:
            result = await call()
        except ObjectStoreError:
            await self._reply(request, fault)
            raise
        await self._reply(request, fault)
        return result

    async def _reply(self, request: Request, fault: Fault | None) -> None:
        """The way back. Raising here replaces the call's result or error: nobody learns it."""
        if fault is Fault.CRASH_AFTER:
            self.crash()
        if fault is not None:
            raise _failure(request, fault)
        await self._travel()
        self._check_connected(request)

    async def _travel(self) -> None:
        low_s, high_s = self.rates.latency_s
        if high_s > 0:
            await trio.sleep(low_s + (high_s - low_s) * self._randomness.random())

    def _check_connected(self, request: Request) -> None:
        if self.crashed or self.partitioned:
            raise UnavailableError(f"{request.kind} of {request.name}: no connection to {self.url}")

    def _choose(self, kind: Kind, name: str) -> Fault | None:
        chosen = None
        for planned in self._planned:
            if not planned.fault.fits(kind) or planned.kind not in (None, kind) or planned.name_part not in name:
                continue
            if planned.skip:
                planned.skip -= 1
            elif chosen is None:
                chosen = planned
        if chosen is not None:
            self._planned.remove(chosen)
            return chosen.fault
        return self._draw(kind)

    def _draw(self, kind: Kind) -> Fault | None:
        rates = self.rates
        table = (
            (Fault.FAIL_BEFORE, rates.fail_before),
            (Fault.LOST_REPLY, rates.lost_reply),
            (Fault.DELAYED, rates.delayed),
            (Fault.CONFLICT, rates.conflict),
            (Fault.BUSY, rates.busy),
            (Fault.SHORT_BODY, rates.short_body),
        )
        if not any(rate for _, rate in table):
            return None
        drawn = self._randomness.random()
        for fault, rate in table:
            drawn -= rate
            if drawn < 0:
                return fault if fault.fits(kind) else None
        return None

    def _send_later(self, call: Callable[[], Awaitable[object]]) -> None:
        assert self._nursery is not None, "delayed requests need a nursery to wait in"
        low_s, high_s = self.rates.delay_s
        self._nursery.start_soon(_arrive, call, low_s + (high_s - low_s) * self._randomness.random())


async def _arrive(call: Callable[[], Awaitable[object]], delay_s: float) -> None:
    await trio.sleep(delay_s)
    try:
        await call()
    except ObjectStoreError:
        return  # A refusal that nobody is left to hear.


def _failure(request: Request, fault: Fault) -> UnavailableError:
    return UnavailableError(f"{request.kind} of {request.name}: injected {fault.name}")
