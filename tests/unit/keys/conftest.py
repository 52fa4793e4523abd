"""What the tests of the keys room share: a world without threads, a cheap KDF, a store."""

import hashlib

import pytest

from tests.unit.keys.support import OLD, seal
from zerofs.crypto import kdf
from zerofs.crypto.kdf import KdfCost
from zerofs.keys import vault
from zerofs.objectstore.memory import MemoryStore
from zerofs.world import World


class InlineWorld(World):
    """Offloaded work runs in place; `crash_at` names a crash point that ends the run."""

    def __init__(self):
        super().__init__()
        self.crash_at = None
        self.points = []
        self.lanes = []

    async def offload(self, lane, function, *args):
        self.lanes.append((lane, function.__name__))
        return function(*args)

    def reached(self, point):
        self.points.append(point)
        if point == self.crash_at:
            raise KeyboardInterrupt(point)


@pytest.fixture
def world():
    return InlineWorld()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def cost():
    """The cheapest that is allowed."""
    return KdfCost(memory_kib=8192, time_cost=1, parallelism=1)


@pytest.fixture
def kdf_calls(monkeypatch):
    """In Argon2's place, for sweeps over thousands of variants: depends on all inputs as Argon2 does, and records."""
    calls = []

    def fake(secret, salt, **parameters):
        calls.append(parameters)
        parameters["type"] = parameters["type"].value
        return hashlib.sha256(repr((secret, salt, sorted(parameters.items()))).encode()).digest()

    monkeypatch.setattr(kdf, "hash_secret_raw", fake)
    return calls


@pytest.fixture
async def frame(store, world, cost, kdf_calls):
    """A volume with the password OLD, and a frame that was sealed in it."""
    return seal(await vault.create(store, world, OLD, cost))
