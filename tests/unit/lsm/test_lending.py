"""Memory that an engine lends: what is written into it is taken without a copy, and given back soon."""

import contextlib
import os

import pytest
import trio

from tests.unit.lsm.kit import Bed, chunk_key
from zerofs.lsm.sealing.arena import BLOCK_SIZE, Arena
from zerofs.lsm.sealing.sealer import ThreadSealer
from zerofs.units import CHUNK_SIZE

BLOCKS = 4


class Lending(ThreadSealer):
    """Threads that lend."""

    def __init__(self, world, sealer, arena):
        super().__init__(world, sealer)
        self.arena = arena
        self.free = list(range(BLOCKS))
        self.may_seal = trio.Event()
        self.may_seal.set()

    async def seal(self, texts, nonces):
        await self.may_seal.wait()
        return await super().seal(texts, nonces)

    def lend(self, size_bytes):
        return self.arena.block(self.free.pop(), self.free.append) if self.free else None


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    with contextlib.closing(Arena.create(0, BLOCKS)) as arena:
        bed.chunk_sealer = Lending(bed.world, bed.sealers.chunk, arena)
        yield bed


def fill(engine, count):
    """(a block of noise, the first `count` chunks in it)."""
    block = engine.lend(BLOCK_SIZE)
    block[:] = os.urandom(BLOCK_SIZE)
    return block, [block[80 + at * CHUNK_SIZE :][:CHUNK_SIZE] for at in range(count)]


def commit(engine, inode, parts):
    engine.commit([(chunk_key(inode, index), part) for index, part in enumerate(parts)])


async def read(engine, inode, count):
    return [bytes(value) for value in await engine.multi_get([chunk_key(inode, index) for index in range(count)])]


async def test_lent_chunks_are_read_while_queued_and_when_sealed_and_when_stored(bed):
    sealer = bed.chunk_sealer
    async with bed.open() as engine:
        sealer.may_seal = trio.Event()
        block, parts = fill(engine, 8)
        texts = [bytes(part) for part in parts]
        commit(engine, 1, parts)
        del block, parts
        assert type(await engine.get(chunk_key(1, 3))) is memoryview, "nothing was copied"
        assert await read(engine, 1, 8) == texts
        assert len(sealer.free) == BLOCKS - 1
        sealer.may_seal.set()
        with trio.fail_after(10):
            while len(sealer.free) < BLOCKS:  # given back as soon as it is sealed
                await trio.sleep(0.01)
        assert await read(engine, 1, 8) == texts
        await engine.sync()
        assert await read(engine, 1, 8) == texts
    async with bed.open() as engine:
        assert await read(engine, 1, 8) == texts


async def test_what_is_overwritten_is_given_back_at_once(bed):
    sealer = bed.chunk_sealer
    async with bed.open() as engine:
        sealer.may_seal = trio.Event()
        block, parts = fill(engine, 1)
        commit(engine, 1, parts)
        del block, parts
        commit(engine, 1, [b"new"])
        assert len(sealer.free) == BLOCKS
        sealer.may_seal.set()
        await engine.sync()
        assert await engine.get(chunk_key(1, 0)) == b"new"


async def test_a_view_of_other_memory_is_copied(bed):
    async with bed.open() as engine:
        buffer = bytearray(os.urandom(CHUNK_SIZE))
        text = bytes(buffer)
        commit(engine, 1, [memoryview(buffer)])
        buffer[:] = bytes(CHUNK_SIZE)
        assert await engine.get(chunk_key(1, 0)) == text
        await engine.sync()
        assert await engine.get(chunk_key(1, 0)) == text


async def test_copies_of_lent_chunks_are_copies(bed):
    async with bed.open() as engine:
        bed.chunk_sealer.may_seal = trio.Event()
        block, parts = fill(engine, 1)
        text = bytes(parts[0])
        commit(engine, 1, parts)
        (shared,) = await engine.shareable([chunk_key(1, 0)])
        assert shared == text
        assert type(shared) is bytes
        bed.chunk_sealer.may_seal.set()
        del block, parts


async def test_a_reader_lends_nothing(bed):
    async with bed.open(read_only=True) as engine:
        assert engine.lend(BLOCK_SIZE) is None
