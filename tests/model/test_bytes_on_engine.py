"""Bytes at random below the frontend: programs at work at the same time on the filesystem over the real engine, while
it syncs, flushes, merges, repacks and collects, with tiny limits; each answer is compared with bytes in memory.

A run is a function of its seed. A failure names the seed, and the last operations of the program that found it.
"""

import collections
import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.model.bytes_model import PAGE, C, Dice, Shadow, require_same
from tests.model.fs_checker import assert_consistent, rows_of
from tests.unit.fs.harness import ROOT_CALLER, evict_all, fails
from tests.unit.lsm.kit import Bed, Crash
from zerofs.errors import FsError
from zerofs.fs.attributes import AttributeChanges
from zerofs.fs.filesystem import ROOT_INODE, Filesystem
from zerofs.fs.ops.space import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from zerofs.fs.options import FilesystemOptions
from zerofs.lsm.engine import Engine
from zerofs.objectstore.faults import FaultRates, FaultyStore
from zerofs.testing.world import run_seeded

LIMITS = (PAGE, 7 * C, 7 * C, 40 * C)
"""How large each file of a program may become."""

PROGRAMS = 3
STEPS = 60
"""Of each program, between two breaks."""

SLOW = FaultRates(latency_s=(0.0, 0.03))
"""Of a store that answers late, so that much happens meanwhile."""

MODES = (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE)


class File:
    """One file: what is in it, and the handles that are open on it."""

    def __init__(self, inode: int, limit: int) -> None:
        self.inode = inode
        self.limit = limit
        self.shadow = Shadow()
        self.handles: list[int] = []

    @property
    def size(self) -> int:
        return len(self.shadow)

    def span(self, dice: Dice) -> tuple[int, int]:
        return dice.span(self.size, self.limit)


class Program:
    """It works on files of its own."""

    fs: Filesystem

    def __init__(self, seed: int, number: int) -> None:
        self.number = number
        self.dice = Dice(f"{seed}/{number}")
        self.files: list[File] = []
        self.notes: collections.deque[str] = collections.deque(maxlen=40)
        self.operations: dict[Callable[[File], Awaitable[None]], int] = {
            self.read: 20,
            self.write: 25,
            self.truncate: 10,
            self.allocate: 14,
            self.copy: 10,
            self.seek: 5,
            self.fsync: 2,
            self.reopen: 4,
            self.rest: 6,
        }

    async def create(self) -> None:
        for index, limit in enumerate(LIMITS):
            name = b"%d-%d" % (self.number, index)
            handle, made = await self.fs.create(ROOT_CALLER, ROOT_INODE, name, 0o644, os.O_RDWR)
            await self.fs.release(handle)
            self.fs.forget(made.inode, 1)
            self.files.append(File(made.inode, limit))

    async def work(self, fs: Filesystem) -> None:
        """One life of the mount, up to the break; then nothing is open."""
        self.fs = fs
        if not self.files:
            await self.create()
        try:
            for file in self.files:
                file.handles = [await self.open(file)]
                await self.compare(file)
            for _ in range(STEPS):
                (operation,) = self.dice.rng.choices([*self.operations], [*self.operations.values()])
                await operation(self.dice.rng.choice(self.files))
                await trio.sleep(self.dice.rng.random() / 50)
            for file in self.files:
                await self.compare(file)
                for handle in file.handles:
                    await self.fs.release(handle)
        except BaseException as error:
            error.add_note("\n".join([f"program {self.number}; its last operations:", *self.notes]))
            raise

    def note(self, file: File, text: str) -> None:
        self.notes.append(f"file {self.files.index(file)} of {file.size} bytes: {text}")

    async def open(self, file: File) -> int:
        return await self.fs.open(ROOT_CALLER, file.inode, os.O_RDWR)

    async def compare(self, file: File) -> None:
        assert (await self.fs.getattr(file.inode)).size_bytes == file.size
        found = await self.fs.read(self.dice.rng.choice(file.handles), 0, file.limit + 1)
        require_same(found, bytes(file.shadow.data), 0, f"all of file {self.files.index(file)}")

    # --- operations

    async def read(self, file: File) -> None:
        handle, (offset, size) = self.dice.rng.choice(file.handles), file.span(self.dice)
        self.note(file, f"read {size} at {offset}")
        require_same(await self.fs.read(handle, offset, size), file.shadow.part(offset, size), offset, "read")

    async def write(self, file: File) -> None:
        handle, (offset, size) = self.dice.rng.choice(file.handles), file.span(self.dice)
        data = self.dice.data(size)
        self.note(file, f"write {size} at {offset}")
        assert await self.fs.write(handle, offset, data) == size
        file.shadow.write(offset, data)

    async def truncate(self, file: File) -> None:
        handle, size = self.dice.rng.choice([None, *file.handles]), self.dice.new_size(file.size, file.limit)
        self.note(file, f"truncate to {size}")
        await self.fs.setattr(ROOT_CALLER, file.inode, AttributeChanges(size_bytes=size), handle)
        file.shadow.resize(size)

    async def allocate(self, file: File) -> None:
        handle, (offset, size) = self.dice.rng.choice(file.handles), file.span(self.dice)
        mode = self.dice.rng.choice(MODES)
        self.note(file, f"allocate {mode:#x} {size} at {offset}")
        await self.fs.allocate(handle, mode, offset, size)
        if mode & (PUNCH_HOLE | ZERO_RANGE):
            file.shadow.zero(offset, size)
        if not mode & KEEP_SIZE:
            file.shadow.resize(max(file.size, offset + size))

    async def copy(self, file: File) -> None:
        """Whole chunks, mostly: they are shared."""
        source = self.dice.rng.choice(self.files)
        start, (place, size) = self.dice.offset(source.size, source.limit), file.span(self.dice)
        if self.dice.chance(0.5):
            start, place = start // C * C, place // C * C
        reader, writer = self.dice.rng.choice(source.handles), self.dice.rng.choice(file.handles)
        data = source.shadow.part(start, size)
        self.note(file, f"copy {size} from {start} of file {self.files.index(source)} to {place}")
        if source is file and data and abs(start - place) < len(data):
            with fails("EINVAL"):
                await self.fs.copy_range(reader, start, writer, place, size)
            return
        done = 0
        while got := await self.fs.copy_range(reader, start + done, writer, place + done, len(data) - done):
            done += got
        assert done == len(data)
        if data:
            file.shadow.write(place, data)

    async def seek(self, file: File) -> None:
        """What is said to be a hole is zeros, and the holes and the rest are all of the file."""
        handle, at = self.dice.rng.choice(file.handles), 0
        self.note(file, "seek")
        while at < file.size:
            try:
                data = await self.fs.seek_data(handle, at)
            except FsError:
                data = file.size
            require_same(bytes(data - at), file.shadow.part(at, data - at), at, "a hole")
            if data < file.size:
                hole = await self.fs.seek_hole(handle, data)
                assert data < hole <= file.size
                data = hole
            at = data

    async def fsync(self, file: File) -> None:
        self.note(file, "fsync")
        await self.fs.fsync(self.dice.rng.choice(file.handles))

    async def reopen(self, file: File) -> None:
        """One more handle, or one less."""
        self.note(file, "reopen")
        if len(file.handles) < 3:
            file.handles.append(await self.open(file))
        else:
            await self.fs.release(file.handles.pop(0))

    async def rest(self, file: File) -> None:
        """While the others go on."""
        self.note(file, "rest")
        await trio.sleep(self.dice.rng.random())
        if self.dice.chance(0.2):
            evict_all(self.fs)


async def tidy_up(engine: Engine, rng: random.Random) -> None:
    """What a volume does for itself, much more often than it would."""
    maintenance = engine.maintenance
    while True:
        await trio.sleep(rng.random())
        await rng.choice([engine.flush, maintenance.keep_up, maintenance.tighten, maintenance.collect])()


async def live(folder: Path, seed: int, lives: int) -> dict[str, int]:
    """A volume that is mounted again and again, cold, after a clean end or a crash behind a sync; what it counted."""
    bed = Bed(folder)
    await bed.create()
    programs = [Program(seed, number) for number in range(PROGRAMS)]
    rng = random.Random(seed)
    options = FilesystemOptions(inode_cache_count=4, dentry_cache_count=4)
    for life in range(lives):
        with contextlib.suppress(Crash):
            async with bed.open(store=FaultyStore(bed.store, rng, SLOW)) as engine:
                fs = await Filesystem.mount(engine, options, bed.world)
                assert_consistent(await rows_of(engine))
                async with trio.open_nursery() as beside:
                    beside.start_soon(tidy_up, engine, rng)
                    await beside.start(fs.run)
                    async with trio.open_nursery() as nursery:
                        for program in programs:
                            nursery.start_soon(program.work, fs)
                    beside.cancel_scope.cancel()
                await (fs.sync() if life % 3 == 1 else fs.close())
                assert_consistent(await rows_of(engine))
                if life % 3 == 1:
                    raise Crash
    return bed.metrics.snapshot()


@pytest.mark.parametrize(
    ("seed", "lives"),
    [
        *(pytest.param(seed, 4, id=f"{seed}") for seed in range(4)),
        *(pytest.param(seed, 12, id=f"{seed}-long", marks=pytest.mark.slow) for seed in range(100, 120)),
    ],
)
def test_every_byte_is_what_was_written_last(tmp_path: Path, seed: int, lives: int) -> None:
    try:
        counters = run_seeded(seed, lambda: live(tmp_path, seed, lives))
    except BaseException as error:
        error.add_note(f"seed {seed}, {lives} lives")
        raise
    for counter in ("wal_objects", "flushes", "compactions", "chunk_ssts", "chunk_fetches", "repacked_ssts"):
        assert counters.get(counter, 0) > 1, f"{counter}: the seed did not reach it"
    assert counters.get("collected_objects", 0) > 10, "the seed made no garbage"
