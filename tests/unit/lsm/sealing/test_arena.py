import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.lsm.sealing.kit import KEY_ID, make_nonces, make_sealer
from zerofs.lsm.sealing.arena import BLOCK_SIZE, Arena, is_lent
from zerofs.lsm.sealing.work import seal_chunks
from zerofs.units import CHUNK_SIZE, MIB


@pytest.fixture
def arena():
    with contextlib.closing(Arena.create(6)) as arena:
        yield arena


TEXTS = st.one_of(st.binary(max_size=3000), st.integers(0, CHUNK_SIZE).map(os.urandom), st.just(bytes(CHUNK_SIZE)))


@given(batches=st.lists(st.lists(TEXTS, max_size=12), min_size=1, max_size=3))
def test_frames_are_those_that_a_thread_makes(batches):
    with contextlib.closing(Arena.create(6)) as arena:
        sealer = make_sealer()
        nonces = [make_nonces(texts) for texts in batches]
        for slot, texts in enumerate(batches):
            arena.put(slot, texts, nonces[slot])
        for slot, texts in enumerate(batches):
            arena.seal(slot, slot + 3, len(texts), sealer)
        for slot, texts in enumerate(batches):
            assert arena.take(slot, slot + 3, texts, nonces[slot], KEY_ID) == seal_chunks(sealer, texts, nonces[slot])


@given(texts=st.lists(TEXTS, min_size=1, max_size=12), chance=st.randoms(use_true_random=False))
def test_texts_in_blocks_are_sealed_where_they_are(texts, chance):
    with contextlib.closing(Arena.create(2, 2)) as arena, contextlib.closing(Arena.create(2, 1)) as foreign:
        blocks = [arena.block(0, id), arena.block(1, id), foreign.block(0, id)]
        parts, end = [], 0
        for text in texts:
            block = chance.choice([*blocks, None])
            at = end + chance.randrange(100)
            end = at + len(text)
            if block is not None:
                block[at:end] = text
            parts.append(text if block is None else block[at:end])
        before = [bytes(block) for block in blocks]
        nonces = make_nonces(texts)
        arena.put(0, parts, nonces)
        with contextlib.closing(Arena(os.dup(arena.descriptor))) as other:
            other.seal(0, 1, len(texts), make_sealer())
        assert arena.take(0, 1, parts, nonces, KEY_ID) == seal_chunks(make_sealer(), texts, nonces)
        assert [bytes(block) for block in blocks] == before, "sealing changes no text"


def test_a_block_comes_back_when_nobody_has_any_part_of_it():
    returned = []
    with contextlib.closing(Arena.create(2, 2)) as arena:
        blocks = [arena.block(number, returned.append) for number in range(2)]
        part = blocks[1][CHUNK_SIZE : 2 * CHUNK_SIZE]
        assert is_lent(part)
        assert len(part.obj) == BLOCK_SIZE
        del blocks
        assert returned == [0]
        part = part[5:]
        assert returned == [0]
    del arena, part
    assert returned == [0, 1]


def test_nothing_else_is_lent(arena):
    texts = [os.urandom(5000)]
    nonces = make_nonces(texts)
    arena.put(0, texts, nonces)
    arena.seal(0, 3, 1, make_sealer())
    (frame,) = arena.take(0, 3, texts, nonces, KEY_ID, [].append)
    for view in (frame, memoryview(b"text"), memoryview(bytearray(BLOCK_SIZE))):
        assert not is_lent(view)


def test_both_sides_see_the_same_memory(arena):
    texts = [b"one", b"two" * 10_000]
    nonces = make_nonces(texts)
    with contextlib.closing(Arena(os.dup(arena.descriptor))) as other:
        arena.put(1, texts, nonces)
        other.seal(1, 4, len(texts), make_sealer())
    assert arena.take(1, 4, texts, nonces, KEY_ID) == seal_chunks(make_sealer(), texts, nonces)


def others(arena):
    """The slots 0, 2, 3 and 5."""
    return [bytes(arena._slot(number)) for number in (0, 2, 3, 5)]


@pytest.mark.parametrize(
    ("texts", "fits"),
    [
        ([], True),
        ([os.urandom(CHUNK_SIZE)] * 64, True),
        ([os.urandom(CHUNK_SIZE)] * 63 + [os.urandom(CHUNK_SIZE - 1), os.urandom(CHUNK_SIZE)], True),
        ([os.urandom(512)] * 4097, True),
        ([os.urandom(CHUNK_SIZE)] * 73, False),
        ([b"x"] * MIB, False),
    ],
    ids=["none", "64 chunks", "65 chunks", "4097 parts", "73 chunks", "a million bytes"],
)
def test_what_a_slot_holds(arena, texts, fits):
    """The first four are all that a chunk writer may ask for; incompressible, so the frames are as large as can be."""
    assert Arena.holds(texts) == fits
    if fits:
        nonces = make_nonces(texts)
        before = others(arena)
        arena.put(1, texts, nonces)
        arena.seal(1, 4, len(texts), make_sealer())
        assert arena.take(1, 4, texts, nonces, KEY_ID) == seal_chunks(make_sealer(), texts, nonces)
        assert others(arena) == before


@pytest.mark.parametrize("size", [0, 3 + 46, 1 << 31])
def test_frames_of_impossible_sizes_are_refused(arena, size):
    nonces = make_nonces([b"abc"])
    arena.put(0, [b"abc"], nonces)
    arena.seal(0, 3, 1, make_sealer())
    arena._view[:4] = size.to_bytes(4, "little")
    with pytest.raises(ValueError, match="impossible"):
        arena.take(0, 3, [b"abc"], nonces, KEY_ID)


def test_a_slot_that_nobody_sealed_gives_nothing(arena):
    texts = [os.urandom(5000)] * 3
    nonces, others = make_nonces(texts), make_nonces(texts)
    arena.put(0, texts, nonces)
    with pytest.raises(ValueError, match="or none"):
        arena.take(0, 3, texts, nonces, KEY_ID)
    arena.seal(0, 3, len(texts), make_sealer())
    with pytest.raises(ValueError, match="other chunks"):
        arena.take(0, 3, texts, nonces, KEY_ID + 1)
    arena.put(0, texts, others)
    with pytest.raises(ValueError, match="other chunks"):
        arena.take(0, 3, texts, others, KEY_ID)


def test_the_memory_has_no_name_and_cannot_be_cut(arena):
    assert not os.get_inheritable(arena.descriptor)
    for size in (0, 100 * MIB):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.descriptor, size)


def test_closing_twice_is_closing_once():
    arena = Arena.create(1)
    arena.close()
    arena.close()


def test_a_slot_comes_back_when_nobody_has_any_of_its_frames(arena):
    texts = [b"one", b"two" * 10_000, os.urandom(CHUNK_SIZE)]
    nonces, returned = make_nonces(texts), []
    arena.put(0, texts, nonces)
    arena.seal(0, 3, len(texts), make_sealer())
    frames = arena.take(0, 3, texts, nonces, KEY_ID, returned.append)
    assert frames == seal_chunks(make_sealer(), texts, nonces)
    assert all(frame.readonly for frame in frames)
    part = frames[1][5:9]
    frames.clear()
    assert not returned
    del part
    assert returned == [3]


def test_frames_that_are_lent_outlive_the_arena():
    texts = [os.urandom(CHUNK_SIZE)]
    nonces = make_nonces(texts)
    with contextlib.closing(Arena.create(2)) as arena:
        arena.put(0, texts, nonces)
        arena.seal(0, 1, 1, make_sealer())
        frames = arena.take(0, 1, texts, nonces, KEY_ID, [].append)
    del arena
    assert frames == seal_chunks(make_sealer(), texts, nonces)
