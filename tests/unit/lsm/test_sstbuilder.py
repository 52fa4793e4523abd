"""SSTs of rows that come in parts are those of rows that come at once."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.lsm.compaction.kit import TOKENS
from zerofs.lsm.format.names import sst_name
from zerofs.lsm.format.rows import PUT, decode_rows
from zerofs.lsm.format.sst import MAX_INDEX_SIZE, decode_index, place
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sstbuilder import SstBuilder
from zerofs.testing.sealers import simulated_sealers
from zerofs.transform.frame import frame_nonce

VOLUME_ID = bytes(range(16))
NAME, TOKEN = sst_name((1, 1)), TOKENS[1]
SEALERS = simulated_sealers(VOLUME_ID)
BLOCK_SIZE = 100


def build(parts, ranges):
    builder = new_builder(BLOCK_SIZE)
    for part in parts:
        builder.add(part)
    return builder.finish(ranges)


def new_builder(block_size):
    sealers = {"block": SEALERS.block, "index": SEALERS.index}
    return SstBuilder(name=NAME, token=TOKEN, block_size_bytes=block_size, seed=bytes(24), **sealers)


def index_of(sealed):
    length = sealed.blocks_length
    text = SEALERS.index.open(sealed.index, place(NAME, 64 + length, TOKEN), MAX_INDEX_SIZE)
    return decode_index(text, blocks_length=length, what=NAME)


@given(st.lists(st.integers(1, 150), max_size=40), st.lists(st.integers(0, 40), max_size=6), st.booleans())
def test_parts_make_no_difference(sizes, cuts, deletes_ranges):
    rows = [(b"m%05d" % number, PUT, b"v" * size) for number, size in enumerate(sizes)]
    ranges = KeyRanges([(b"m00003", b"m00005")] if deletes_ranges else [])
    ends = sorted(min(cut, len(rows)) for cut in cuts)
    parts = [rows[start:stop] for start, stop in itertools.pairwise([0, *ends, len(rows)])]
    once, sealed = build([rows], ranges), build(parts, ranges)
    index, expected = index_of(sealed), index_of(once)
    assert (index.last_keys, index.bloom, index.row_count) == (expected.last_keys, expected.bloom, len(rows))
    assert list(index.range_deletes) == list(ranges)
    assert len(sealed.blocks) == len(index.last_keys)
    assert (sealed.first_key, sealed.last_key, sealed.row_count) == (once.first_key, once.last_key, len(rows))
    nonces = [frame_nonce(frame) for frame in (*sealed.blocks, sealed.index)]
    assert len(set(nonces)) == len(nonces)
    read = []
    for frame, offset in zip(sealed.blocks, index.offsets, strict=False):
        read += decode_rows(SEALERS.block.open(frame, place(NAME, offset, TOKEN), 1 << 20), NAME)
    assert read == rows


def test_what_was_sealed_is_held_and_not_the_rows():
    """The reason for it: a merge holds what it will store."""
    builder = new_builder(1000)
    for number in range(200):
        builder.add([(b"m%05d" % (20 * number + row), PUT, b"x" * 40) for row in range(20)])
        assert sum(len(key) + len(value) + 7 for key, _, value in builder._rest) <= 1100
