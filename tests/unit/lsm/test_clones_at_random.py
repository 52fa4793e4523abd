"""Many volumes that begin as each other's checkpoints, written, cloned again, detached, and collected in any order."""

import random

import pytest

from tests.unit.lsm.clones import Family
from tests.unit.lsm.kit import chunk_key
from tests.unit.lsm.test_clones import check, contents, no_progress
from zerofs.errors import CloneError
from zerofs.testing.world import run_seeded
from zerofs.units import CHUNK_SIZE


class Tribe:
    """Volumes with what each of them must show, and clones of checkpoints made of them at random."""

    def __init__(self, family, rng):
        self.family, self.rng = family, rng
        self.models: dict[str, dict[bytes, bytes]] = {}
        self.states: dict[tuple[str, str], dict[bytes, bytes]] = {}
        """What each checkpoint must show, by volume and name."""
        self.count = 0

    def bed(self, url):
        return self.family.beds[url]

    def a_key(self):
        return self.rng.choice((chunk_key(1, self.rng.randrange(12)), b"meta%02d" % self.rng.randrange(20)))

    async def write(self, url):
        rng, model = self.rng, self.models[url]
        async with self.bed(url).open() as engine:
            for _ in range(rng.randrange(1, 5)):
                rows = {self.a_key(): rng.randbytes(rng.choice((10, 900, CHUNK_SIZE))) for _ in range(4)}
                gone = self.a_key()
                engine.commit([(gone, None)])
                model.pop(gone, None)
                engine.commit(list(rows.items()))
                model |= rows
                if rng.random() < 0.5:
                    await engine.flush()
            if rng.random() < 0.5:
                await engine.maintenance.tighten()

    async def checkpoint(self, url):
        self.count += 1
        async with self.bed(url).open() as engine:
            await engine.checkpoints.create(f"p{self.count}")
        self.states[url, f"p{self.count}"] = dict(self.models[url])

    async def clone(self, url):
        named = [name for at, name in self.states if at == url]
        if named and len(self.models) < 6:
            name, new = self.rng.choice(named), f"memory://{len(self.family.beds)}"
            await self.family.clone(self.bed(url), name, new)
            self.models[new] = dict(self.states[url, name])

    async def forget(self, url):
        named = [name for at, name in self.states if at == url]
        if named:
            name = self.rng.choice(named)
            async with self.bed(url).open() as engine:
                await engine.checkpoints.delete(name)
                engine.commit([(b"meta", b"so that there is something to do")])
                self.models[url][b"meta"] = b"so that there is something to do"
                await engine.maintenance.tighten()
            del self.states[url, name]

    async def detach(self, url):
        async with self.bed(url).open() as engine:
            try:
                await engine.detach(no_progress)
            except CloneError:
                assert engine.checkpoints.all(), "only checkpoints forbid it"
                return
            sources = [(it.pin, it.url) for it in engine.manifest.foreign if it.pin]
            await engine.checkpoints.forget_pins([it.volume_id for it in engine.manifest.foreign])
        for pin, at in sources:
            async with self.bed(at).open() as engine:
                await engine.checkpoints.delete(pin)
                await engine.maintenance.collect()

    async def check(self):
        for url, model in self.models.items():
            await check(self.bed(url), model)
            async with self.bed(url).open() as engine:
                await engine.maintenance.collect()
        for (url, name), state in self.states.items():
            assert await contents(self.bed(url), checkpoint=name, host="looker") == state, (url, name)


@pytest.mark.parametrize("seed", range(12))
def test_a_tribe_of_clones_at_random(tmp_path, seed):
    async def run():
        rng = random.Random(seed)
        tribe = Tribe(Family(tmp_path), rng)
        await tribe.family.source("memory://0")
        tribe.models["memory://0"] = {}
        for act in (tribe.write, tribe.checkpoint, tribe.clone, tribe.clone):
            await act("memory://0")
        acts = (tribe.write, tribe.write, tribe.checkpoint, tribe.clone, tribe.clone, tribe.forget, tribe.detach)
        for _ in range(40):
            await rng.choice(acts)(rng.choice(list(tribe.models)))
        await tribe.check()
        assert len(tribe.models) > 2, "some clones were made"

    run_seeded(seed, run)
