"""A whole volume in one process on a failing store, for a seed: engine and filesystem, crashes, thefts, an oracle.

    python -m zerofs.testing.simulation --seed 7 [--rounds 6] [--operations 60]

One round: open the volume through an unreliable connection, which now and then is cut for a while, do random
operations, let it merge, repack and collect, and either close it, or die somewhere in the middle, at any time or at a
named point of the engine, or have it stolen by a second writer. A plain model follows along. What is found at the next
opening must be a state that the model was in, at or after the last fsync that was acknowledged: a prefix (P2, P3). The
store must always hold together, its registers must equal a recount, and after the last round nothing may be left that
nobody refers to. Everything, also the digest that is printed at the end, is a function of the seed.
"""

import argparse
import contextlib
import errno
import hashlib
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from zerofs.errors import FsError, ZerofsError
from zerofs.fs.access import Caller
from zerofs.fs.filesystem import Filesystem
from zerofs.fs.options import FilesystemOptions
from zerofs.lsm.audit import audit, unreferenced
from zerofs.lsm.engine import Engine
from zerofs.lsm.format.manifest import WriterInfo
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.opening import open_engine
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.recovery import create_volume
from zerofs.lsm.storage import Storage
from zerofs.lsm.witness import Witness
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.faults import FaultRates, FaultyStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.options import RetryOptions
from zerofs.objectstore.retrying import RetryingStore
from zerofs.telemetry.metrics import Metrics
from zerofs.testing import actions
from zerofs.testing.history import History, SimulationError, State
from zerofs.testing.sealers import simulated_sealers
from zerofs.testing.world import SimWorld, run_seeded
from zerofs.units import CHUNK_SIZE, KIB

ROOT = Caller(uid=0, gid=0, pid=1, umask=0o022, groups=frozenset)
NAMES = [b"a", b"b", b"c", b"d"]
DIRECTORIES = [b"", b"x", b"y"]
WRITER = WriterInfo(host="simulated", pid=1, mountpoint="/sim")

TINY = LsmOptions(
    memtable_size_bytes=24 * KIB,
    chunk_sst_size_bytes=96 * KIB,
    meta_sst_size_bytes=8 * KIB,
    block_size_bytes=KIB,
    seal_batch_size_bytes=32 * KIB,
    part_chunks_size_bytes=16 * KIB,
    inline_frames_size_bytes=40 * KIB,
    wal_frames_size_bytes=128 * KIB,
    dirty_limit_bytes=256 * KIB,
    sync_timeout_s=30.0,
)

ROUGH = FaultRates(
    fail_before=0.03, lost_reply=0.03, delayed=0.01, conflict=0.02, busy=0.02, short_body=0.02, latency_s=(0.0, 0.03)
)
"""One call in eight fails, one way or another."""

POINTS = (
    "open_after_claim_before_fence",
    "open_after_fence_before_replay",
    "sync_after_chunks_before_wal",
    "sync_after_wal_before_wake",
    "flush_after_frames_before_runs",
    "flush_after_runs_before_manifest",
    "edit_before_manifest",
    "compaction_after_output",
    "compact_after_outputs_before_manifest",
    "repack_after_sst_before_pointers",
    "collect_after_floor_before_deletes",
)
"""The named crash windows of the engine, in the order in which a volume comes to them."""

Step = Callable[[], Awaitable[object]]


class Simulation:
    """One seed. With a `point`, every round is to die there."""

    def __init__(self, seed: int, folder: Path, point: str = "") -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.world = SimWorld(seed)
        self.store = MemoryStore()
        self.metrics = Metrics()
        self.history = History()
        self.digest = hashlib.sha256()
        self.died_at: list[str] = []
        """The named points at which it died."""
        self._folder = folder
        self._point = point
        self._sealers = simulated_sealers(bytes(16))

    async def run(self, rounds: int, operations: int) -> str:
        """Live through it. Returns the digest of everything that happened. Raises SimulationError."""
        await create_volume(self._storage(self.store), ManifestStore(self._storage(self.store)), WRITER)
        async with trio.open_nursery() as nursery:
            for _ in range(rounds):
                await self._round(operations, nursery)
            # Requests that were delayed have all arrived by then.
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        await self._leave_nothing_behind()
        for info in await self.store.list(""):
            self.digest.update(f"{info.name} {info.size_bytes}\n".encode())
        return self.digest.hexdigest()[:16]

    async def _round(self, operations: int, nursery: trio.Nursery) -> None:
        store = FaultyStore(self.store, self.rng, nursery=nursery)
        fate = self.rng.random()
        stolen: list[State] = []
        async with trio.open_nursery() as thieves:
            if self.rng.random() < 0.3:
                thieves.start_soon(self._cut_off_for_a_while, store)
            with trio.CancelScope() as life:
                if self._point or fate < 0.25:
                    self._die_at_a_point(store, life)
                elif fate < 0.6:
                    nursery.start_soon(self._die_some_time, store, life)
                elif fate < 0.8:
                    thieves.start_soon(self._steal_some_time, stolen)
                try:
                    await self._live(store, operations)
                    if not stolen:
                        # A clean close is an acknowledgement of everything.
                        self.history.acknowledged = len(self.history.states) - 1
                except* ZerofsError:
                    pass  # the volume did not open, or could not be closed: as good as a crash
            store.crash()
            self.world.at_point = lambda point: None
        if stolen:
            self.history.settle(stolen[0])
        await self._look()

    async def _die_some_time(self, store: FaultyStore, life: trio.CancelScope) -> None:
        await trio.sleep(self.rng.random() * 4)
        store.crash()
        life.cancel()

    async def _cut_off_for_a_while(self, store: FaultyStore) -> None:
        """A partition: shorter than the retries of a request, or longer than a sync waits."""
        await trio.sleep(self.rng.random() * 4)
        store.partitioned = True
        await trio.sleep(self.rng.random() * self.rng.choice([2, 60]))
        store.partitioned = False

    def _die_at_a_point(self, store: FaultyStore, life: trio.CancelScope) -> None:
        """Let the end come at one of the next times that the engine reaches a point. It may never reach it."""
        chosen, before = self._point or self.rng.choice(POINTS), self.rng.randrange(3)

        def die(point: str) -> None:
            nonlocal before
            if point == chosen and not life.cancel_called:
                before -= 1
                if before < 0:
                    self.died_at.append(point)
                    store.crash()
                    life.cancel()

        self.world.at_point = die

    async def _steal_some_time(self, stolen: list[State]) -> None:
        """Another writer takes the volume. What it finds is all that the robbed one may ever have acknowledged."""
        await trio.sleep(self.rng.random() * 4)
        async with self._open(self.store) as (_, fs):
            stolen.append(await actions.read_tree(fs))

    async def _live(self, store: FaultyStore, operations: int) -> None:
        reliable = RetryingStore(store, self.rng, self.metrics, RetryOptions(deadline_s=30.0))
        async with self._open(reliable) as (engine, fs):
            store.rates = ROUGH
            for _ in range(operations):
                await self._operate(fs, engine)
            store.rates = FaultRates()

    async def _operate(self, fs: Filesystem, engine: Engine) -> None:
        chance = self.rng.random()
        if chance < 0.12:
            await self._durably(fs.sync if chance < 0.08 else engine.flush)
        elif chance < 0.3:
            await trio.sleep(self.rng.random() / 10)
        elif chance < 0.33:
            maintenance = engine.maintenance
            steps: list[Step] = [maintenance.keep_up, maintenance.tighten, maintenance.collect]
            with contextlib.suppress(ZerofsError):
                await self.rng.choice(steps)()
        else:
            await self._change(fs)

    async def _durably(self, action: Step) -> None:
        position = len(self.history.states) - 1
        try:
            await action()
        except ZerofsError:
            return
        self.history.acknowledged = max(self.history.acknowledged, position)

    async def _change(self, fs: Filesystem) -> None:
        """One operation on the volume and on the model. It counts as possible from before it starts."""
        rng, now = self.rng, self.history.now
        directory = rng.choice(DIRECTORIES)
        path = actions.join(directory, rng.choice(NAMES))
        other = actions.join(rng.choice(DIRECTORIES), rng.choice(NAMES))
        kind = rng.choice(["write", "write", "write", "copy", "copy", "truncate", "unlink", "rename", "mkdir", "rmdir"])
        after = dict(now)
        if directory and directory + b"/" not in now and kind not in ("mkdir", "rmdir"):
            kind = "mkdir"
        if kind == "write":
            offset, data = rng.choice([0, 10, 5000, CHUNK_SIZE - 3]), rng.randbytes(rng.choice([5, 900, 3000, 70_000]))
            old = now.get(path, b"").ljust(offset, b"\0")
            after[path] = old[:offset] + data + old[offset + len(data) :]
            await self._attempt(after, actions.write(fs, path, offset, data, create=path not in now))
        elif kind == "copy" and path in now and other in now and path != other and now[path]:
            # Whole chunks, which are shared, or the first bytes, which are copied.
            place, size = (
                rng.choice([0, CHUNK_SIZE]),
                len(now[path]) // CHUNK_SIZE * CHUNK_SIZE or min(len(now[path]), 900),
            )
            old = now[other].ljust(place, b"\0")
            after[other] = old[:place] + now[path][:size] + old[place + size :]
            await self._attempt(after, actions.copy(fs, path, other, place, size))
        elif kind == "truncate" and path in now:
            size = rng.choice([0, 7, 2000, CHUNK_SIZE + 5])
            after[path] = now[path][:size].ljust(size, b"\0")
            await self._attempt(after, actions.truncate(fs, path, size))
        elif kind == "unlink" and path in now:
            del after[path]
            await self._attempt(after, actions.remove(fs, path))
        elif kind == "rename" and path in now and path != other and actions.parent_exists(now, other):
            after[other] = after.pop(path)
            await self._attempt(after, actions.rename(fs, path, other))
        elif kind == "mkdir" and directory and directory + b"/" not in now:
            after[directory + b"/"] = b""
            await self._attempt(after, actions.mkdir(fs, directory))
        elif (
            kind == "rmdir"
            and directory + b"/" in now
            and not any(p.startswith(directory + b"/") and p != directory + b"/" for p in now)
        ):
            del after[directory + b"/"]
            await self._attempt(after, actions.rmdir(fs, directory))

    async def _attempt(self, after: State, operation: Awaitable[None]) -> None:
        before = len(self.history.states)
        self.history.states.append(after)
        try:
            await operation
        except FsError as error:
            if error.errno not in (errno.EIO, errno.EROFS):
                raise SimulationError(f"operation {before} failed with {error!r}") from error
            self.history.states.pop()

    async def _look(self) -> None:
        """Open without faults, and compare."""
        async with self._open(self.store) as (engine, fs):
            found = await actions.read_tree(fs)
            await self._check(engine)
        self.history.settle(found)
        for path in sorted(found):
            self.digest.update(path + b"\0" + found[path])

    async def _check(self, engine: Engine) -> None:
        findings = await audit(self._storage(self.store), engine.manifest)
        if findings:
            raise SimulationError(f"the store does not hold together: {findings}")

    async def _leave_nothing_behind(self) -> None:
        """Two passes of the collector on a volume at rest take everything that nobody refers to, and nothing else."""
        async with self._open(self.store) as (engine, fs):
            for _ in range(2):
                await engine.maintenance.tighten()
            left = await unreferenced(self._storage(self.store))
            if left:
                raise SimulationError(f"never collected: {sorted(left)}")
            await self._check(engine)
            self.history.settle(await actions.read_tree(fs))

    @contextlib.asynccontextmanager
    async def _open(self, store: ObjectStore) -> AsyncIterator[tuple[Engine, Filesystem]]:
        async with (
            open_engine(self._storage(store), TINY, writer=WRITER, witness=Witness(self._folder, bytes(16))) as engine,
            trio.open_nursery() as nursery,
        ):
            fs = await Filesystem.mount(engine, FilesystemOptions(), self.world)
            await nursery.start(fs.run)
            yield engine, fs
            await fs.close()
            nursery.cancel_scope.cancel()

    def _storage(self, store: ObjectStore) -> Storage:
        return Storage(
            store=store,
            world=self.world,
            sealers=self._sealers,
            volume_id=bytes(16),
            metrics=self.metrics,
            cache_memory_bytes=64 * KIB,
        )


def live(seed: int, rounds: int = 6, operations: int = 60, point: str = "") -> tuple[str, list[str]]:
    """Run one seed: its digest, and the points at which it died. Raises SimulationError."""
    with TemporaryDirectory() as folder:
        simulation = Simulation(seed, Path(folder), point)
        digest = run_seeded(seed, lambda: simulation.run(rounds, operations))
        return digest, simulation.died_at


def simulate(seed: int, rounds: int = 6, operations: int = 60) -> str:
    """Run one seed; its digest. Raises SimulationError."""
    return live(seed, rounds, operations)[0]


def main() -> None:
    """The command line of the module."""
    parser = argparse.ArgumentParser(description="Run seeds of the simulation.")
    parser.add_argument("--seed", type=int, default=None, help="one seed; without it, fresh ones")
    parser.add_argument("--seeds", type=int, default=20, help="how many fresh seeds")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--operations", type=int, default=60)
    arguments = parser.parse_args()
    first = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**31)
    for seed in range(first, first + (1 if arguments.seed is not None else arguments.seeds)):
        try:
            digest = simulate(seed, arguments.rounds, arguments.operations)
        except BaseException:
            print(f"seed {seed} fails; replay it with: make sim SEED={seed}", file=sys.stderr)
            raise
        print(f"seed {seed}: ok, digest {digest}")


if __name__ == "__main__":
    main()
