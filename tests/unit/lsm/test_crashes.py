"""A crash at every store call of a scripted life, and again during the recovery from it (P2, P3).

The life has everything in it that writes: commits, syncs, flushes, merges, repacks, collection, close. Every run of it
with the same seed makes the same calls up to the crash.
"""

import contextlib
import random

import pytest
import trio

from tests.unit.lsm.kit import Bed, chunk_key
from zerofs.errors import ZerofsError
from zerofs.lsm.audit import audit, unreferenced
from zerofs.lsm.manifests import ManifestStore
from zerofs.objectstore.faults import Fault, FaultyStore
from zerofs.testing.world import run_seeded
from zerofs.units import CHUNK_SIZE

SEED = 7


class Life:
    """What one scripted life did: `history`, the state after each commit; `acknowledged`, how much of it is durable."""

    def __init__(self) -> None:
        self.history: list[dict[bytes, bytes]] = [{}]
        self.acknowledged = 0

    async def live(self, bed: Bed, store) -> None:
        """Two sessions. Ends with an error, or is cancelled, when the store crashes."""
        rng = random.Random(4)
        for _ in range(2):
            async with bed.open(store=store, host="other") as engine:
                self._commit(engine, [(b"meta1", b"one"), (chunk_key(1, 0), rng.randbytes(500))])
                self._commit(engine, [(chunk_key(1, i), rng.randbytes(CHUNK_SIZE)) for i in range(6)])
                await self._durably(engine.sync)
                self._commit(engine, [(b"meta2", b"two")])
                await self._durably(engine.flush)
                self._commit(engine, [(b"meta1", None)], [(chunk_key(1, 1), chunk_key(1, 4))])
                self._commit(engine, [(chunk_key(1, 3), b"again")])
                await self._durably(engine.sync)
                await engine.maintenance.tighten()
                self._commit(engine, [(chunk_key(1, 5), rng.randbytes(900)), (b"meta3", b"three")])
                await self._durably(engine.flush)
                await engine.maintenance.collect()
                self._commit(engine, [(b"meta4", b"four")])
            self.acknowledged = len(self.history) - 1

    def _commit(self, engine, rows, ranges=()) -> None:
        engine.commit(rows, ranges)
        state = dict(self.history[-1])
        for start, stop in ranges:
            for key in [key for key in state if start <= key < stop]:
                del state[key]
        for key, value in rows:
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
        self.history.append(state)

    async def _durably(self, action) -> None:
        position = len(self.history) - 1
        await action()
        self.acknowledged = position


async def interrupted(store: FaultyStore, life) -> None:
    """Run `life` until it ends or the store crashes; with the store, everything that was under way."""
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await store.wait_crashed()
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        with contextlib.suppress(ZerofsError, BaseExceptionGroup):
            await life()
        nursery.cancel_scope.cancel()


async def contents(bed: Bed, host: str = "other") -> dict[bytes, bytes]:
    async with bed.open(host=host) as engine:
        rows = dict(await engine.scan(b"meta", b"metb", 1000))
        keys = [key for key, _ in await engine.scan(b"chunk", b"chunl", 1000)]
        return {**rows, **dict(zip(keys, await engine.multi_get(keys), strict=True))}


async def check(bed: Bed, life: Life, what: str) -> None:
    """Reopen: a state that was, not older than acknowledged, in good order, and writable; no garbage is left."""
    found = await contents(bed)
    assert found in life.history, f"{what}: a state that never was"
    assert found in life.history[life.acknowledged :], f"{what}: lost what was acknowledged"
    assert await audit(bed.storage(), await ManifestStore(bed.storage()).latest()) == [], what
    async with bed.open(host="other") as engine:
        engine.commit([(b"meta9", b"afterwards")])
        await engine.maintenance.tighten()
        await engine.maintenance.collect()
        assert await unreferenced(bed.storage()) == set(), what
        assert await audit(bed.storage(), engine.manifest) == [], what
    assert await contents(bed) == {**found, b"meta9": b"afterwards"}, what


def one_life(folder, fault: Fault | None, call: int, again: int | None = None) -> int:
    """Crash at store call number `call`, and at number `again` of the reopening; how many calls were made in all."""

    async def run() -> int:
        bed = Bed(folder)
        await bed.create()
        life = Life()
        store = FaultyStore(bed.store, random.Random(0))
        if fault is not None:
            store.plan(fault, skip=call)
        await interrupted(store, lambda: life.live(bed, store))
        calls = store.calls
        if again is not None:
            second = FaultyStore(bed.store, random.Random(0))
            second.plan(fault, skip=again)

            async def reopen() -> None:
                async with bed.open(store=second, host="other") as engine:
                    await engine.maintenance.tighten()

            await interrupted(second, reopen)
        await check(bed, life, f"{fault} at call {call}, then {again}")
        return calls

    return run_seeded(SEED, run)


def test_the_life_has_everything_in_it(tmp_path):
    async def run():
        bed = Bed(tmp_path)
        await bed.create()
        life = Life()
        await life.live(bed, bed.store)
        numbers = bed.metrics.snapshot()
        for name in ("compactions", "repacked_ssts", "collected_objects", "tightenings", "flushes", "wal_objects"):
            assert numbers.get(name), f"{name}: {numbers}"
        kinds = {(traced.kind, traced.name.split("/")[0]) for traced in bed.trace}
        assert {("delete", "wal"), ("delete", "compacted"), ("delete", "manifest")} <= kinds
        await check(bed, life, "no crash")

    run_seeded(SEED, run)


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LOST_REPLY])
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=[pytest.mark.slow] if part % 2 else []) for part in range(4)]
)
def test_a_crash_at_every_store_call(tmp_path, fault, part):
    calls = one_life(tmp_path / "count", None, 0)
    assert calls > 150
    for call in range(part, calls, 4):
        one_life(tmp_path / str(call), fault, call)


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
def test_a_second_crash_during_the_recovery(tmp_path, fault):
    calls = one_life(tmp_path / "count", None, 0)
    rng = random.Random(SEED)
    for number in range(60):
        one_life(tmp_path / str(number), fault, rng.randrange(calls), rng.randrange(60))
