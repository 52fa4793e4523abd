"""Why a small request is quick: the next one is awaited awake for a short while, without the scheduler.

Most of what a small FUSE request costs in Python is the way to sleep and back: registering the descriptor with epoll,
two passes of trio's scheduler, a lock handed over, the wake-up of the thread. A program that uses the filesystem sends
its next request within microseconds of the last reply. So `AwakeTrio` first asks poll(2) whether the next request is
there, keeps asking for a while, and only then lets trio sleep. `Patience` decides how long the while is.

The binding takes its `Lock` and `wait_readable` from the module that its attribute `trio` names (its own asyncio
support replaces that module); `staying_awake` puts `AwakeTrio` there. If a binding did not look there, everything would
work as before, only slower.
"""

import logging
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import pyfuse3
import trio
from trio.lowlevel import ParkingLot, checkpoint, wait_readable

from zerofs.frontend.fuse.patience import DISTURBED_NS, Patience
from zerofs.world import World

_log = logging.getLogger(__name__)

YIELD_NS = 50_000
"""Other tasks get their turn at least that often, however fast requests come."""

_POLLS_AT_ONCE = 4


class NoLock:
    """Takes the place of the lock around `wait_readable`: `AwakeTrio` lets one reader in at a time by itself."""

    __slots__ = ()

    async def __aenter__(self) -> None:
        """Never waits."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Never swallows."""


class AwakeTrio:
    """What the binding sees as the module trio: the same, but for `Lock` and `lowlevel.wait_readable`.

    Serves one descriptor. After `wait_readable` returns, the caller must read from it before it awaits anything.
    """

    def __init__(self, world: World, *, can_read: Callable[[int], Callable[[int], Any]] | None = None) -> None:
        self.Lock = NoLock
        self.lowlevel = self
        self._now_ns, self._switches = world.monotonic_ns, world.switches
        self._can_read_factory = can_read or _poller
        self._can_read: Callable[[int], Any] | None = None
        self._patience = Patience()
        self._reading = False
        self._idle = ParkingLot()
        self._yield_at_ns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name, None) or getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Return when a request can be read. Waits in turn if another task does already.

        Unlike trio's it may return without a checkpoint; there is one at least every `YIELD_NS`.
        """
        while self._reading:
            await self._idle.park()
        self._reading = True
        try:
            if self._can_read is None:
                self._can_read = self._can_read_factory(descriptor)
            if self._now_ns() >= self._yield_at_ns:
                await self._yield()
            if not self._can_read(0):
                await self._wait(descriptor, self._can_read)
        finally:
            self._reading = False
            if self._idle:
                self._idle.unpark()

    async def _yield(self) -> None:
        await checkpoint()
        self._yield_at_ns = self._now_ns() + YIELD_NS

    async def _wait(self, descriptor: int, can_read: Callable[[int], Any]) -> None:
        began_ns = self._now_ns()
        if not await self._arrives_while_awake(began_ns, can_read):
            await self._sleep(descriptor, can_read)
            self._patience.slept(self._now_ns() - began_ns)

    async def _arrives_while_awake(self, began_ns: int, can_read: Callable[[int], Any]) -> bool:
        now_ns = began_ns
        deadline_ns = self._patience.deadline_ns(began_ns)
        while now_ns < deadline_ns:
            switches = self._switches()
            for _ in range(_POLLS_AT_ONCE):
                if can_read(0):
                    self._patience.hit(now_ns - began_ns)
                    return True
            after_ns = self._now_ns()
            if after_ns - now_ns > DISTURBED_NS:
                if self._switches() != switches:
                    self._patience.disturbed(after_ns)
                    return False
                deadline_ns += after_ns - now_ns  # the machine was gone, not the core
            await self._yield()
            now_ns = self._now_ns()
        if deadline_ns == began_ns:
            return False
        # Other tasks may have used the while up, and that is no reason to give up.
        if can_read(0):
            self._patience.hit(now_ns - began_ns)
            return True
        self._patience.missed()
        return False

    async def _sleep(self, descriptor: int, can_read: Callable[[int], Any]) -> None:
        while True:
            await wait_readable(descriptor)
            # A request can be withdrawn before it is read, and then the read would block everything.
            if can_read(0):
                break


def _poller(descriptor: int) -> Callable[[int], Any]:
    """A function that asks whether `descriptor` is readable or broken, waiting so many milliseconds at most."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll


@contextmanager
def staying_awake(world: World) -> Iterator[None]:
    """While inside, the binding waits for requests through an `AwakeTrio`. Enter before its loop starts."""
    binding: Any = pyfuse3
    if getattr(binding, "trio", None) is not trio:
        _log.info("this version of pyfuse3 cannot be kept awake between requests; small requests will be slower")
        yield
        return
    binding.trio = AwakeTrio(world)
    try:
        yield
    finally:
        binding.trio = trio
