"""A whole volume in one process on a failing store, for a seed: engine and filesystem, crashes, reopenings, an oracle.

    python -m zerofs.testing.simulation --seed 7 [--rounds 6] [--operations 60]

One round: open the volume through an unreliable connection, do random operations, and either close it or die somewhere
in the middle. A plain model follows along. What is found at the next opening must be a state that the model was in, at
or after the last fsync that was acknowledged: a prefix (P2, P3). Everything, also the digest that is printed at the
end, is a function of the seed.
"""

import argparse
import contextlib
import errno
import hashlib
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from zerofs.errors import FsError, ZerofsError
from zerofs.fs.access import Caller
from zerofs.fs.attributes import AttributeChanges
from zerofs.fs.filesystem import ROOT_INODE, Filesystem
from zerofs.fs.options import FilesystemOptions
from zerofs.ids import KeyId
from zerofs.lsm.engine import open_engine
from zerofs.lsm.format.manifest import WriterInfo
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.recovery import create_volume
from zerofs.lsm.storage import Sealers, Storage
from zerofs.lsm.witness import Witness
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.faults import FaultRates, FaultyStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.options import RetryOptions
from zerofs.objectstore.retrying import RetryingStore
from zerofs.telemetry.metrics import Metrics
from zerofs.testing.world import SimWorld, run_seeded
from zerofs.transform.compression import Compression
from zerofs.transform.frame import Kind, Sealer
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

Flush = Callable[[], Awaitable[None]]

State = dict[bytes, bytes]
"""The model: path to contents; a directory ends in a slash and has none."""


class SimulationError(AssertionError):
    """The oracle was contradicted."""


@dataclass(slots=True)
class History:
    """Every state that the volume may show, oldest first, and from where on it must."""

    states: list[State] = field(default_factory=lambda: [{}])
    acknowledged: int = 0

    @property
    def now(self) -> State:
        """The newest state."""
        return self.states[-1]

    def settle(self, found: State) -> None:
        """Check what an opening found; it becomes the only possible past."""
        if found not in self.states[self.acknowledged :]:
            kind = "an older state than was acknowledged" if found in self.states else "a state that never was"
            raise SimulationError(f"{kind}: {sorted(found)} after {len(self.states)} operations")
        self.states = [found]
        self.acknowledged = 0


class Simulation:
    """One seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.world = SimWorld(seed)
        self.store = MemoryStore()
        self.metrics = Metrics()
        self.history = History()
        self.digest = hashlib.sha256()
        self._folder = folder
        self._sealers = simulated_sealers(bytes(16))

    async def run(self, rounds: int, operations: int) -> str:
        """Live through it. Returns the digest of everything that happened. Raises SimulationError."""
        await create_volume(self._storage(self.store), ManifestStore(self._storage(self.store)), WRITER)
        async with trio.open_nursery() as nursery:
            for _ in range(rounds):
                await self._round(operations, nursery)
            nursery.cancel_scope.cancel()
        await self._look(self.store)
        for info in await self.store.list(""):
            self.digest.update(f"{info.name} {info.size_bytes}\n".encode())
        return self.digest.hexdigest()[:16]

    async def _round(self, operations: int, nursery: trio.Nursery) -> None:
        store = FaultyStore(self.store, self.rng, nursery=nursery)
        with trio.CancelScope() as life:
            if self.rng.random() < 0.7:
                nursery.start_soon(self._die_some_time, store, life)
            try:
                await self._live(store, operations)
                # A clean close is an acknowledgement of everything.
                self.history.acknowledged = len(self.history.states) - 1
            except* ZerofsError:
                pass  # the volume did not open, or could not be closed: as good as a crash
        store.crash()
        await self._look(self.store)

    async def _die_some_time(self, store: FaultyStore, life: trio.CancelScope) -> None:
        await trio.sleep(self.rng.random() * 4)
        store.crash()
        life.cancel()

    async def _live(self, store: FaultyStore, operations: int) -> None:
        reliable = RetryingStore(store, self.rng, self.metrics, RetryOptions(deadline_s=30.0))
        async with self._open(reliable) as (engine_flush, fs):
            store.rates = ROUGH
            for _ in range(operations):
                await self._operate(fs, engine_flush)
            store.rates = FaultRates()

    async def _operate(self, fs: Filesystem, flush: Flush) -> None:
        chance = self.rng.random()
        if chance < 0.12:
            await self._durably(fs.sync if chance < 0.08 else flush)
        elif chance < 0.3:
            await trio.sleep(self.rng.random() / 10)
        else:
            await self._change(fs)

    async def _durably(self, action: Flush) -> None:
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
        path = _join(directory, rng.choice(NAMES))
        other = _join(rng.choice(DIRECTORIES), rng.choice(NAMES))
        kind = rng.choice(["write", "write", "write", "truncate", "unlink", "rename", "mkdir", "rmdir"])
        after = dict(now)
        if directory and directory + b"/" not in now and kind not in ("mkdir", "rmdir"):
            kind = "mkdir"
        if kind == "write":
            offset, data = rng.choice([0, 10, 5000, CHUNK_SIZE - 3]), rng.randbytes(rng.choice([5, 900, 3000, 70_000]))
            old = now.get(path, b"").ljust(offset, b"\0")
            after[path] = old[:offset] + data + old[offset + len(data) :]
            await self._attempt(after, _write(fs, path, offset, data, create=path not in now))
        elif kind == "truncate" and path in now:
            size = rng.choice([0, 7, 2000, CHUNK_SIZE + 5])
            after[path] = now[path][:size].ljust(size, b"\0")
            await self._attempt(after, _truncate(fs, path, size))
        elif kind == "unlink" and path in now:
            del after[path]
            await self._attempt(after, _remove(fs, path))
        elif kind == "rename" and path in now and path != other and _parent_exists(now, other):
            after[other] = after.pop(path)
            await self._attempt(after, _rename(fs, path, other))
        elif kind == "mkdir" and directory and directory + b"/" not in now:
            after[directory + b"/"] = b""
            await self._attempt(after, _mkdir(fs, directory))
        elif (
            kind == "rmdir"
            and directory + b"/" in now
            and not any(p.startswith(directory + b"/") and p != directory + b"/" for p in now)
        ):
            del after[directory + b"/"]
            await self._attempt(after, _rmdir(fs, directory))

    async def _attempt(self, after: State, operation: Awaitable[None]) -> None:
        before = len(self.history.states)
        self.history.states.append(after)
        try:
            await operation
        except FsError as error:
            if error.errno not in (errno.EIO, errno.EROFS):
                raise SimulationError(f"operation {before} failed with {error!r}") from error
            self.history.states.pop()

    async def _look(self, store: ObjectStore) -> None:
        """Open without faults, and compare."""
        async with self._open(store) as (_, fs):
            found = await read_tree(fs)
        self.history.settle(found)
        for path in sorted(found):
            self.digest.update(path + b"\0" + found[path])

    @contextlib.asynccontextmanager
    async def _open(self, store: ObjectStore) -> AsyncIterator[tuple[Flush, Filesystem]]:
        async with (
            open_engine(self._storage(store), TINY, writer=WRITER, witness=Witness(self._folder, bytes(16))) as engine,
            trio.open_nursery() as nursery,
        ):
            fs = await Filesystem.mount(engine, FilesystemOptions(), self.world)
            await nursery.start(fs.run)
            yield engine.flush, fs
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


def simulated_sealers(volume_id: bytes) -> Sealers:
    """Sealers under keys that everybody knows."""
    compression = Compression.parse("zstd-1")

    def sealer(kind: Kind) -> Sealer:
        return Sealer(
            volume_id=volume_id,
            kind=kind,
            subkeys={KeyId(1): bytes([kind]) * 32},
            current=KeyId(1),
            compression=compression,
        )

    return Sealers(
        block=sealer(Kind.META_BLOCK),
        index=sealer(Kind.META_INDEX),
        chunk=sealer(Kind.CHUNK),
        directory=sealer(Kind.CHUNK_DIRECTORY),
        wal=sealer(Kind.WAL),
        manifest=sealer(Kind.MANIFEST),
    )


async def read_tree(fs: Filesystem) -> State:
    """The whole volume as the model sees it."""
    found: State = {}

    async def walk(inode: int, prefix: bytes) -> None:
        handle = await fs.opendir(ROOT, inode)
        entries = await fs.readdir(handle, 2, 1000)
        await fs.releasedir(handle)
        for entry in entries:
            path = prefix + entry.name
            if entry.attributes.mode & 0o170000 == 0o040000:
                found[path + b"/"] = b""
                await walk(entry.attributes.inode, path + b"/")
            else:
                opened = await fs.open(ROOT, entry.attributes.inode, os.O_RDONLY)
                found[path] = await fs.read(opened, 0, 1 << 30)
                await fs.release(opened)
            fs.forget(entry.attributes.inode, 1)

    await walk(ROOT_INODE, b"")
    return found


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _parent_exists(state: State, path: bytes) -> bool:
    directory, slash, _ = path.rpartition(b"/")
    return not slash or directory + b"/" in state


@contextlib.asynccontextmanager
async def _parent(fs: Filesystem, path: bytes) -> AsyncIterator[tuple[int, bytes]]:
    directory, slash, name = path.rpartition(b"/")
    if not slash:
        yield ROOT_INODE, name
        return
    inode = (await fs.lookup(ROOT, ROOT_INODE, directory)).inode
    try:
        yield inode, name
    finally:
        fs.forget(inode, 1)


async def _write(fs: Filesystem, path: bytes, offset: int, data: bytes, *, create: bool) -> None:
    """Create and write are two requests; to be one step of the model, a new file is written under another name."""
    async with _parent(fs, path) as (parent, name):
        target = b"new" if create else name
        handle, attributes = await fs.create(ROOT, parent, target, 0o644, os.O_RDWR)
        try:
            await fs.write(handle, offset, data)
            if create:
                await fs.rename(ROOT, parent, target, parent, name, 0)
        finally:
            await fs.release(handle)
            fs.forget(attributes.inode, 1)


async def _truncate(fs: Filesystem, path: bytes, size: int) -> None:
    async with _parent(fs, path) as (parent, name):
        inode = (await fs.lookup(ROOT, parent, name)).inode
        try:
            await fs.setattr(ROOT, inode, AttributeChanges(size_bytes=size), None)
        finally:
            fs.forget(inode, 1)


async def _remove(fs: Filesystem, path: bytes) -> None:
    async with _parent(fs, path) as (parent, name):
        await fs.unlink(ROOT, parent, name)


async def _rename(fs: Filesystem, path: bytes, other: bytes) -> None:
    async with _parent(fs, path) as (parent, name), _parent(fs, other) as (new_parent, new_name):
        await fs.rename(ROOT, parent, name, new_parent, new_name, 0)


async def _mkdir(fs: Filesystem, name: bytes) -> None:
    fs.forget((await fs.mkdir(ROOT, ROOT_INODE, name, 0o755)).inode, 1)


async def _rmdir(fs: Filesystem, name: bytes) -> None:
    await fs.rmdir(ROOT, ROOT_INODE, name)


def simulate(seed: int, rounds: int = 6, operations: int = 60) -> str:
    """Run one seed; its digest. Raises SimulationError."""
    with TemporaryDirectory() as folder:
        simulation = Simulation(seed, Path(folder))
        return run_seeded(seed, lambda: simulation.run(rounds, operations))


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
