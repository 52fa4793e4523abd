"""Frames that must open for ever, and the worked example of docs/format/frame.md."""

import json
import re
from pathlib import Path

import pytest

from zerofs.crypto.kdf import Purpose, hkdf_sha256
from zerofs.ids import KeyId
from zerofs.transform.compression import Codec, Compression
from zerofs.transform.frame import FRAME_OVERHEAD, Kind, Sealer, frame_nonce

HERE = Path(__file__).parent
DOCUMENT = (HERE.parents[1] / "docs" / "format" / "frame.md").read_text(encoding="utf-8")
VECTORS = json.loads((HERE / "frame_v1.json").read_text(encoding="utf-8"))["frames"]
ROW = re.compile(r"^\| (\d+) \| (\d+) \| ([^|]*) \| `([0-9a-f ]+)` \|$", re.MULTILINE)


def sealer_of(vector):
    subkey = hkdf_sha256(bytes.fromhex(vector["dek"]), Purpose[vector["purpose"]])
    assert subkey.hex() == vector["subkey"]
    return Sealer(
        volume_id=bytes.fromhex(vector["volume_id"]),
        kind=Kind[vector["kind"]],
        subkeys={KeyId(vector["key_id"]): subkey},
        current=KeyId(vector["key_id"]),
        compression=Compression.parse(vector["compression"]),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_golden_frame(vector):
    sealer = sealer_of(vector)
    text, frame, place = (bytes.fromhex(vector[field]) for field in ("text", "frame", "place"))
    assert sealer.open(frame, place, len(text)) == text
    assert int.from_bytes(frame[:4], "little") == vector["key_id"]
    assert frame_nonce(frame).hex() == vector["nonce"]
    if vector["seals_to_the_same_bytes"]:
        assert sealer.seal(text, place, bytes.fromhex(vector["nonce"])) == frame


def test_every_codec_has_a_golden_frame():
    assert {vector["compression"][:3] for vector in VECTORS if not vector["seals_to_the_same_bytes"]} == {"zst", "lz4"}
    assert any(vector["seals_to_the_same_bytes"] for vector in VECTORS)


def test_worked_example_of_the_document():
    vector = VECTORS[0]
    example = bytearray()
    for offset, size, field, digits in ROW.findall(DOCUMENT):
        part = bytes.fromhex(digits)
        assert (int(offset), int(size)) == (len(example), len(part)), field
        example += part
    assert example.hex() == vector["frame"]
    assert sealer_of(vector).open(example, b"", 100) == b"hello, zerofs\n"
    for value in (vector["volume_id"], vector["dek"], vector["subkey"], vector["volume_id"] + "0301000000"):
        assert f"`{value}`" in DOCUMENT


def test_tables_of_the_document():
    for kind in Kind:
        assert f"| {kind.name} | {kind.value} |" in DOCUMENT
    assert [int(number) for number in re.findall(r"^\| (\d) \| [a-z]", DOCUMENT, re.MULTILINE)][-3:] == list(Codec)
    for purpose in Purpose:
        assert (f"| `{purpose.value.decode()}` |" in DOCUMENT) == (not purpose.name.startswith("SIDECAR"))
    assert f"at least {FRAME_OVERHEAD} bytes" in DOCUMENT
