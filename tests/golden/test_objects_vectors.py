"""The engine's formats, byte for byte: what was written by the first release is read and written the same for ever."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from zerofs.ids import KeyId
from zerofs.lsm.format import bloom, foreign, header, manifest, pointer, register, rows, sst, wal
from zerofs.lsm.ranges import KeyRanges

HERE = Path(__file__).parent
VECTORS = {name: bytes.fromhex(text) for name, text in json.loads((HERE / "objects_v1.json").read_text()).items()}
DOCUMENT = (HERE.parent.parent / "docs" / "format" / "objects.md").read_text()

POINTER = pointer.Pointer(pointer.IN_SST, 2, 7, 64, 58, 13, bytes(range(0x40, 0x58)))
ROWS = [
    (b"chunk" + (2).to_bytes(8) + bytes(8), rows.POINTER, pointer.encode_pointer(POINTER)),
    (b"meta\x01a", rows.PUT, b"hello"),
    (b"meta\x01b", rows.DELETE, b""),
]
RANGES = KeyRanges([(b"chunk\x00", b"chunk\x01")])
BLOOM = bytes.fromhex("0794643083480a03a4")
"""Of the keys of ROWS, with 7 probes."""
BUILT = bytes.fromhex("0514043083080803a4")
"""The same with 5, as filters are written."""
HEADER = header.Header(
    magic=header.WAL_MAGIC,
    epoch=2,
    put_id=bytes(range(16)),
    volume_id=bytes(range(16, 32)),
    first_length=200,
    second_length=58,
)
SST = manifest.SstInfo(
    sst=(2, 3), size_bytes=300, index_length=86, row_count=3, first_key=b"meta\x01a", last_key=b"meta\x01b"
)
MANIFEST = manifest.Manifest(
    manifest_id=4,
    epoch=2,
    token=bytes(range(48, 64)),
    put_id=bytes(range(16)),
    created_at_ns=1_700_000_000_000_000_000,
    writer=manifest.WriterInfo(host="host", pid=42, mountpoint="/mnt"),
    wal_mark=3,
    wal_mark_put_id=bytes(range(32, 48)),
    last_seqno=6,
    tokens={2: bytes(range(48, 64))},
    trees=(
        manifest.Tree(prefix=b"meta", runs=(manifest.Run(ssts=(SST,)),)),
        manifest.Tree(prefix=b"chunk"),
    ),
    checkpoints=(
        manifest.Checkpoint(
            name="before", checkpoint_id=bytes(range(64, 80)), manifest_id=3, created_at_ns=1_600_000_000_000_000_000
        ),
    ),
    history=(manifest.Era(epoch=1, tag=manifest.tag_of(bytes(range(80, 96))), manifest_id=2, wal_id=2),),
)
CLONE = replace(
    MANIFEST,
    foreign=(
        foreign.Foreign(
            url="file:///source",
            volume_id=bytes(range(96, 112)),
            last_epoch=1,
            pin="clone-10111213",
            block_keys={KeyId(1): bytes(range(112, 144))},
            chunk_keys={KeyId(1): bytes(range(144, 176))},
        ),
    ),
)
REGISTER = register.Register(live_bytes=58, frame_bytes=300)
ENCODED = {
    "rows": lambda: rows.encode_rows(ROWS),
    "pointer": lambda: pointer.encode_pointer(POINTER),
    "header": lambda: header.encode_header(HEADER),
    "record": lambda: wal.encode_record(
        kind=wal.ROWS, previous_put_id=bytes(range(32, 48)), seqnos=(5, 6), range_deletes=RANGES, rows=ROWS
    ),
    "index": lambda: sst.encode_index(row_count=3, blocks=[(150, b"meta\x01b")], range_deletes=RANGES, bloom=BLOOM),
    "directory": lambda: sst.encode_directory([sst.DirectoryEntry(ROWS[0][0], 58, 13, POINTER.nonce)]),
    "manifest": lambda: manifest.encode_manifest(MANIFEST),
    "clone": lambda: manifest.encode_manifest(CLONE),
    "register": lambda: register.register_key((2, 7)) + register.encode_register(REGISTER),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_what_is_written_stays_the_same(kind):
    assert ENCODED[kind]() == VECTORS[kind]


def test_what_was_written_is_read():
    assert list(rows.decode_rows(VECTORS["rows"], "rows")) == ROWS
    assert pointer.decode_pointer(VECTORS["pointer"]) == POINTER
    found = header.decode_header(VECTORS["header"], magic=header.WAL_MAGIC, volume_id=HEADER.volume_id, name="x")
    assert found == HEADER
    record = wal.decode_record(VECTORS["record"], "x")
    assert (list(record.rows), list(record.range_deletes)) == (ROWS, list(RANGES))
    index = sst.decode_index(VECTORS["index"], blocks_length=150, what="x")
    assert (index.row_count, index.bloom, index.offsets) == (3, BLOOM, [64, 214])
    (entry,) = sst.decode_directory(VECTORS["directory"], frames_length=58, what="x")
    assert entry == sst.DirectoryEntry(ROWS[0][0], 58, 13, POINTER.nonce)
    assert register.parse_register_key(VECTORS["register"][:-16]) == (2, 7)
    assert register.decode_register(VECTORS["register"][-16:]) == REGISTER
    assert manifest.decode_manifest(VECTORS["manifest"], epoch=2, put_id=HEADER.put_id, name="x") == MANIFEST
    assert manifest.decode_manifest(VECTORS["clone"], epoch=2, put_id=HEADER.put_id, name="x") == CLONE


def test_a_filter_says_itself_how_many_probes_it_has():
    keys = [row[0] for row in ROWS]
    assert all(bloom.may_contain(BLOOM, bloom.hash_key(key)) for key in keys)
    assert bloom.build_bloom([bloom.hash_keys(keys)]) == BUILT
    assert all(bloom.may_contain(BUILT, bloom.hash_key(key)) for key in keys)


@pytest.mark.parametrize("kind", ENCODED)
def test_the_worked_examples_in_the_document_are_these_bytes(kind):
    block = re.search(rf"```hex {kind}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block is not None, f"docs/format/objects.md has no example of {kind}"
    assert bytes.fromhex("".join(block[1].split())) == VECTORS[kind]
