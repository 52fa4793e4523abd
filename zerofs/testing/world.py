"""A world that is a function of its seed: for tests and simulation, together with trio's autojumping clock.

Time is trio's own (virtual under `MockClock`), entropy comes from the seed, offloaded work runs in line. Under trio's
seeded scheduler a run with the same seed is the same run.
"""

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple

import trio
import trio.testing

from zerofs.units import NS_PER_S
from zerofs.world import Lane, World

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_START_NS = 1_700_000_000 * NS_PER_S
"""Where the simulated wall clock starts."""


def _go_on(point: str) -> None:
    """Nothing happens at a point."""


class SimWorld(World):
    """The simulated world. `points` records every named crash window that was reached, in order."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self._entropy = random.Random(seed ^ 0x5EED)
        self.points: list[str] = []
        self.at_point: Callable[[str], None] = _go_on
        """Called at each of them: a simulation's place for dying there."""

    def now_ns(self) -> int:
        """The simulated wall clock."""
        return EPOCH_START_NS + self.monotonic_ns()

    def monotonic_ns(self) -> int:
        """Trio's clock."""
        return int(trio.current_time() * NS_PER_S)

    def entropy(self, size: int) -> bytes:
        """Bytes from the seed: reproducible, so of no use outside tests."""
        return self._entropy.randbytes(size)

    async def offload(self, lane: Lane, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run the function in line, after a checkpoint where others may run, as a thread hop would allow."""
        await trio.lowlevel.checkpoint()
        return function(*args)

    def reached(self, point: str) -> None:
        """Note the point, and whatever `at_point` does."""
        self.points.append(point)
        self.at_point(point)


def run_seeded(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run an async function so that it is a function of its seed: virtual time, seeded scheduler.

    Trio shuffles runnable tasks; its generator can be seeded only through a private switch (the one that Hypothesis
    uses too). This is the one place that touches it.
    """
    scheduler: Any = trio._core._run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(seed)
    try:
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before
