"""A world whose threads, entropy and randomness are a function of a seed, and a store that says what it was asked."""

import random

from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.metered import MeteredStore
from zerofs.telemetry.metrics import Metrics
from zerofs.world import World


class SeededWorld(World):
    """Runs offloaded functions in line, and counts them."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.offloads = 0

    def entropy(self, size):
        return self.random.randbytes(size)

    async def offload(self, lane, function, *args):
        self.offloads += 1
        return function(*args)


class TracedStore(MeteredStore):
    """A new MemoryStore, or another store, with its trace as `kinds`."""

    def __init__(self, inner=None) -> None:
        self.metrics = Metrics()
        self.trace = []
        super().__init__(inner or MemoryStore(), self.metrics, self.trace)

    @property
    def kinds(self) -> list[str]:
        return [traced.kind for traced in self.trace]
