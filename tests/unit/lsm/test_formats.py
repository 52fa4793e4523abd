"""The codecs of the engine: round trips, and refusal of everything that is not what was written."""

import contextlib
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerofs.errors import CorruptionError
from zerofs.ids import KeyId
from zerofs.lsm.format import bloom, foreign, header, manifest, names, pointer, rows, sst, wal
from zerofs.lsm.ranges import KeyRanges

KEYS = st.binary(min_size=1, max_size=40)
ROWS = st.dictionaries(KEYS, st.tuples(st.sampled_from([rows.PUT, rows.DELETE, rows.POINTER]), st.binary(max_size=60)))
PUT_IDS = st.binary(min_size=16, max_size=16)


def as_rows(mapping):
    return [(key, kind, value) for key, (kind, value) in sorted(mapping.items())]


def ranges_of(pairs):
    return KeyRanges((min(a, b), max(a, b)) for a, b in pairs)


@given(ROWS)
def test_rows_round_trip(mapping):
    expected = as_rows(mapping)
    decoded = rows.decode_rows(rows.encode_rows(expected), "here")
    assert list(decoded) == expected
    assert [decoded.position(row[0]) for row in expected] == list(range(len(expected)))
    assert decoded.position(b"no such key, it is far too long to have been drawn") is None


@given(ROWS, st.sets(KEYS, max_size=30))
def test_many_rows_are_found_as_one_by_one(mapping, others):
    decoded = rows.decode_rows(rows.encode_rows(as_rows(mapping)), "here")
    asked = sorted({*list(mapping)[::2], *others})
    expected = {row[0]: row for row in as_rows(mapping) if row[0] in asked}
    assert decoded.find_many(asked) == expected
    assert list(decoded.find_many(asked)) == list(expected), "in order"


@given(ROWS.filter(bool), KEYS)
def test_the_neighbours_of_a_key_without_a_row(mapping, key):
    known = sorted(mapping)
    if key not in mapping and key < known[-1]:
        before, after = rows.decode_rows(rows.encode_rows(as_rows(mapping)), "here").gap_around(key)
        assert before is None or before < key
        assert key < after
        assert not [other for other in known if (before or b"") < other < after]


@given(ROWS, KEYS, KEYS)
def test_rows_slice(mapping, one, other):
    start, stop = min(one, other), max(one, other)
    decoded = rows.decode_rows(rows.encode_rows(as_rows(mapping)), "here")
    inside = [row for row in as_rows(mapping) if start <= row[0] < stop]
    assert decoded.slice(start, stop, 1000) == inside
    assert decoded.slice(start, stop, 2) == inside[:2]


@given(st.lists(st.tuples(KEYS, KEYS), max_size=8), KEYS)
def test_ranges_are_a_union(pairs, key):
    ranges = ranges_of(pairs)
    assert ranges.covers(key) == any(min(a, b) <= key < max(a, b) for a, b in pairs)
    flat = [bound for pair in ranges for bound in pair]
    assert flat == sorted(flat)
    assert len(set(flat)) == len(flat)


@given(st.lists(st.tuples(KEYS, KEYS), max_size=8), KEYS, KEYS, KEYS)
def test_ranges_within(pairs, one, other, key):
    start, stop = min(one, other), max(one, other)
    ranges = ranges_of(pairs)
    assert ranges.within(start, stop).covers(key) == (ranges.covers(key) and start <= key < stop)


@given(st.sets(KEYS, max_size=200))
def test_a_bloom_filter_never_denies_a_member(keys):
    table = bloom.build_bloom([bloom.hash_keys(keys)])
    bloom.check_bloom(table, "here")
    assert all(bloom.may_contain(table, bloom.hash_key(key)) for key in keys)


def test_a_bloom_filter_of_keys_that_came_in_parts():
    keys = [b"in%d" % i for i in range(10_000)]
    table = bloom.build_bloom([bloom.hash_keys(keys[:7]), b"", bloom.hash_keys(iter(keys[7:]))])
    assert all(bloom.may_contain(table, bloom.hash_key(key)) for key in keys)


def test_a_bloom_filter_denies_most_others():
    table = bloom.build_bloom([bloom.hash_keys(b"in%d" % i for i in range(5000))])
    wrong = sum(bloom.may_contain(table, bloom.hash_key(b"out%d" % i)) for i in range(5000))
    assert wrong < 100


@given(
    st.sampled_from([pointer.IN_SST, pointer.IN_WAL]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(1, 32768),
    st.binary(min_size=24, max_size=24),
)
def test_pointer_round_trip(holder, number, offset, length, size, nonce):
    value = pointer.Pointer(holder, 0 if holder else 7, number, offset, length, size, nonce)
    encoded = pointer.encode_pointer(value)
    assert len(encoded) == pointer.POINTER_SIZE
    assert pointer.decode_pointer(encoded) == value


@given(PUT_IDS, PUT_IDS, st.integers(0, 2**63), st.integers(0, 2**40))
def test_header_round_trip(put_id, volume_id, epoch, length):
    value = header.Header(
        magic=header.WAL_MAGIC, epoch=epoch, put_id=put_id, volume_id=volume_id, first_length=length, second_length=3
    )
    encoded = header.encode_header(value)
    assert len(encoded) == header.HEADER_SIZE
    assert header.decode_header(encoded, magic=header.WAL_MAGIC, volume_id=volume_id, name="x") == value


@given(PUT_IDS, ROWS, st.lists(st.tuples(KEYS, KEYS), max_size=4))
def test_wal_record_round_trip(put_id, mapping, pairs):
    ranges = ranges_of(pairs)
    data = wal.encode_record(
        kind=wal.ROWS, previous_put_id=put_id, seqnos=(5, 9), range_deletes=ranges, rows=as_rows(mapping)
    )
    record = wal.decode_record(data, "here")
    assert list(record.rows) == as_rows(mapping)
    assert list(record.range_deletes) == list(ranges)
    assert (record.previous_put_id, record.first_seqno, record.last_seqno) == (put_id, 5, 9)


@given(ROWS, st.lists(st.tuples(KEYS, KEYS), max_size=4))
def test_index_round_trip(mapping, pairs):
    keys = sorted(mapping)
    table = [(100 + i, key) for i, key in enumerate(keys)]
    filter_ = bloom.build_bloom([bloom.hash_keys(keys)])
    ranges = ranges_of(pairs)
    data = sst.encode_index(row_count=len(keys), blocks=table, range_deletes=ranges, bloom=filter_)
    index = sst.decode_index(data, blocks_length=sum(length for length, _ in table), what="here")
    assert index.last_keys == keys
    assert list(index.range_deletes) == list(ranges)
    for number, key in enumerate(keys):
        assert index.block_for(key) == number
        assert index.offsets[number + 1] - index.offsets[number] == table[number][0]


def some_manifest() -> manifest.Manifest:
    def info(counter: int, first: bytes, last: bytes) -> manifest.SstInfo:
        return manifest.SstInfo(
            sst=(3, counter), size_bytes=1000, index_length=100, row_count=5, first_key=first, last_key=last
        )

    run = manifest.Run(ssts=(info(1, b"a", b"c"), info(2, b"d", b"f")), has_range_deletes=True)
    return manifest.Manifest(
        manifest_id=9,
        epoch=3,
        token=b"t" * 16,
        put_id=b"p" * 16,
        predecessor_digest=b"d" * 32,
        created_at_ns=-5,
        writer=manifest.WriterInfo(host="höst", pid=77, mountpoint="/mnt/\udcff"),
        closed=True,
        wal_mark=4,
        wal_mark_put_id=b"w" * 16,
        last_seqno=1234,
        tokens={3: b"t" * 16, 1: b"o" * 16},
        trees=(manifest.Tree(prefix=b"meta", runs=(run,)), manifest.Tree(prefix=b"chunk")),
    )


def test_manifest_round_trip():
    value = some_manifest()
    assert manifest.decode_manifest(manifest.encode_manifest(value), epoch=3, put_id=b"p" * 16, name="x") == value


KEY_IDS = st.sets(st.integers(0, 2**32 - 1), max_size=4)


@st.composite
def tables(draw):
    """Foreign tables of a manifest of epoch 100."""
    epochs = sorted(draw(st.sets(st.integers(1, 99), max_size=5)))
    sources = []
    for epoch in epochs:
        key_ids = sorted(map(KeyId, draw(KEY_IDS)))
        sources.append(
            foreign.Foreign(
                url=draw(st.text(max_size=50)),
                volume_id=draw(PUT_IDS),
                last_epoch=epoch,
                pin=draw(st.text(max_size=20)),
                block_keys={key_id: draw(st.binary(min_size=32, max_size=32)) for key_id in key_ids},
                chunk_keys={key_id: draw(st.binary(min_size=32, max_size=32)) for key_id in key_ids},
            )
        )
    return tuple(sources)


def some_clone() -> manifest.Manifest:
    table = (
        foreign.Foreign(url="file:///a", volume_id=b"a" * 16, last_epoch=1, pin=""),
        foreign.Foreign(
            url="s3://b/c",
            volume_id=b"b" * 16,
            last_epoch=2,
            pin="clone-00",
            block_keys={KeyId(1): b"\x01" * 32, KeyId(4): b"\x04" * 32},
            chunk_keys={KeyId(1): b"\x11" * 32, KeyId(4): b"\x14" * 32},
        ),
    )
    return replace(some_manifest(), foreign=table)


@given(tables())
def test_a_clones_manifest_round_trips(table):
    token = b"t" * 16
    value = replace(some_manifest(), epoch=100, tokens={100: token}, token=token, foreign=table)
    data = manifest.encode_manifest(value)
    assert manifest.decode_manifest(data, epoch=100, put_id=b"p" * 16, name="x") == value
    without = manifest.encode_manifest(replace(value, foreign=()))
    assert data.startswith(without), "a volume without sources is written as it always was"


@given(tables(), st.integers(1, 100))
def test_an_epoch_says_whose_an_object_is(table, epoch):
    last = foreign.last_foreign_epoch(table)
    assert (epoch > last) == all(epoch > it.last_epoch for it in table if it.is_read)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda table: (table[1], table[0]),
        lambda table: (replace(table[0], last_epoch=3),),
        lambda table: (table[0], replace(table[1], last_epoch=1)),
        lambda table: (replace(table[0], last_epoch=1 << 32),),
        lambda table: (replace(table[0], url="x" * 5000),),
        lambda table: tuple(replace(table[0], last_epoch=number) for number in range(100)),
    ],
)
def test_a_foreign_table_that_makes_no_sense_is_refused(wrong):
    value = some_clone()
    data = manifest.encode_manifest(replace(value, foreign=wrong(value.foreign)))
    with pytest.raises(CorruptionError):
        manifest.decode_manifest(data, epoch=3, put_id=b"p" * 16, name="x")


def test_an_empty_foreign_table_is_refused():
    data = manifest.encode_manifest(some_manifest()) + b"\0"
    with pytest.raises(CorruptionError, match="its foreign table is empty"):
        manifest.decode_manifest(data, epoch=3, put_id=b"p" * 16, name="x")


def test_a_clones_manifest_cut_short_is_refused_or_an_ordinary_one():
    data, ordinary = manifest.encode_manifest(some_clone()), manifest.encode_manifest(some_manifest())
    for length in range(len(data)):
        if length == len(ordinary):  # no table: what seals catch, as they do every cut
            continue
        with pytest.raises(CorruptionError):
            manifest.decode_manifest(data[:length], epoch=3, put_id=b"p" * 16, name="x")


def test_directory_round_trip():
    entries = [sst.DirectoryEntry(b"chunk%d" % i, 50 + i, 100, bytes([i]) * 24) for i in range(5)]
    data = sst.encode_directory(entries)
    assert sst.decode_directory(data, frames_length=sum(entry.length for entry in entries), what="x") == entries
    with pytest.raises(CorruptionError):
        sst.decode_directory(data, frames_length=1, what="x")


def encodings():
    """One encoding of each kind, and the call that decodes it."""
    some_rows = [(b"a%d" % i, rows.PUT, b"value") for i in range(5)]
    ranges = ranges_of([(b"a", b"b"), (b"x", b"z")])
    filter_ = bloom.build_bloom([bloom.hash_keys([b"a"])])
    index = sst.encode_index(row_count=1, blocks=[(64, b"a")], range_deletes=ranges, bloom=filter_)
    directory = sst.encode_directory([sst.DirectoryEntry(b"chunk1", 64, 100, b"n" * 24)])
    record = wal.encode_record(
        kind=wal.ROWS, previous_put_id=b"p" * 16, seqnos=(1, 2), range_deletes=ranges, rows=some_rows
    )
    return {
        "rows": (rows.encode_rows(some_rows), lambda data: rows.decode_rows(data, "x")),
        "record": (record, lambda data: wal.decode_record(data, "x")),
        "index": (index, lambda data: sst.decode_index(data, blocks_length=64, what="x")),
        "directory": (directory, lambda data: sst.decode_directory(data, frames_length=64, what="x")),
        "manifest": (
            manifest.encode_manifest(some_manifest()),
            lambda data: manifest.decode_manifest(data, epoch=3, put_id=b"p" * 16, name="x"),
        ),
        "pointer": (
            pointer.encode_pointer(pointer.Pointer(0, 1, 2, 3, 4, 5, b"n" * 24)),
            pointer.decode_pointer,
        ),
    }


@pytest.mark.parametrize("kind", encodings())
def test_every_truncation_is_refused(kind):
    data, decode = encodings()[kind]
    decode(data)
    for length in range(len(data)):
        with pytest.raises(CorruptionError):
            decode(data[:length])


def clone_encoding():
    return {
        "clone": (
            manifest.encode_manifest(some_clone()),
            lambda data: manifest.decode_manifest(data, epoch=3, put_id=b"p" * 16, name="x"),
        )
    }


@pytest.mark.parametrize("kind", encodings() | clone_encoding())
def test_no_flipped_bit_and_no_noise_raises_anything_but_corruption(kind):
    """Seals catch every flip before a codec sees it; a codec that meets one all the same must not misbehave."""
    data, decode = (encodings() | clone_encoding())[kind]
    rng = random.Random(5)
    candidates = [data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :] for i in range(len(data)) for bit in (0, 4, 7)]
    candidates += [rng.randbytes(rng.randrange(200)) for _ in range(500)]
    for candidate in candidates:
        with contextlib.suppress(CorruptionError):
            decode(candidate)


@settings(max_examples=50)
@given(st.integers(1, 10**20 - 1), st.integers(0, names.MAX_EPOCH), st.integers(0, names.MAX_COUNTER))
def test_names_round_trip_and_sort_as_their_numbers(number, epoch, counter):
    assert names.parse_manifest_name(names.manifest_name(number)) == number
    assert names.parse_wal_name(names.wal_name(number)) == number
    assert names.parse_sst_name(names.sst_name((epoch, counter))) == (epoch, counter)
    assert names.wal_name(number - 1) < names.wal_name(number)


@pytest.mark.parametrize("name", ["manifest/floor", "wal/1.sst", "compacted/1-1.sst", "", "wal/../x"])
def test_other_names_are_refused(name):
    for parse in (names.parse_manifest_name, names.parse_wal_name, names.parse_sst_name):
        with pytest.raises(CorruptionError):
            parse(name)


@given(st.lists(st.binary(max_size=6), max_size=300), st.integers(1, 50))
def test_keys_are_sorted_in_steps_of_any_size(keys, step):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "SORT_STEP", step)
        assert rows.sort_in_steps(keys) == sorted(keys)
