"""The one door to what a computation cannot decide: clock, entropy, randomness, threads, crash points.

Everything above asks a `World`; tests pass a simulated one (`zerofs.testing.world`) and a run becomes a function of its
seed. Sleeps and timeouts use trio directly: its clock can be replaced already.
"""

import enum
import os
import random
import time
from collections.abc import Callable
from resource import RUSAGE_THREAD, getrusage
from typing import TypeVar, TypeVarTuple, Unpack

import trio

_CLOCK_REALTIME_COARSE = 5  # <linux/time.h>; Python has no name for it

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Lane(enum.Enum):
    """What an offloaded function mostly waits for. Each lane has its own limit, so that none starves another."""

    CPU = "cpu"
    DISK = "disk"
    NETWORK = "network"


class World:
    """The real world. One per process; not to be shared between trio runs."""

    def __init__(self, *, network_threads: int = 16) -> None:
        self._limits = {
            Lane.CPU: trio.CapacityLimiter(os.cpu_count() or 1),
            Lane.DISK: trio.CapacityLimiter(4),
            Lane.NETWORK: trio.CapacityLimiter(network_threads),
        }
        self.random = random.Random(os.urandom(16))  # noqa: S311 (jitter only)
        """For jitter and choices that no security rests on."""

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since 1970, as of the last tick. For timestamps that people see, never for safety.

        The same clock as the kernel's, which stamps some changes of a mounted file by itself: what happens later must
        not look older than what we stamped.
        """
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)

    def monotonic_ns(self) -> int:
        """A clock that only moves forward. For durations."""
        return time.monotonic_ns()

    def switches(self) -> int:
        """How often this thread has given its core to another one, wanting to or not."""
        usage = getrusage(RUSAGE_THREAD)
        return usage.ru_nivcsw + usage.ru_nvcsw

    def entropy(self, size: int) -> bytes:
        """`size` bytes from the operating system's generator. For keys, nonces, ids."""
        return os.urandom(size)

    async def offload(self, lane: Lane, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Run a blocking function in a thread of its lane. It touches nothing that anybody changes meanwhile.

        A round trip costs about 80 µs, so hand over at least 256 KiB of work. Not cancellable: a caller that is
        cancelled still waits for the thread, because an abandoned store call would have an unknown outcome.
        """
        return await trio.to_thread.run_sync(function, *args, limiter=self._limits[lane])

    def reached(self, point: str) -> None:
        """A named crash window was reached. The simulated world may end the run here; the real one goes on."""
