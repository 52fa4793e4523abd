"""A sidecar that must open for ever, and the worked example of docs/format/sidecar.md."""

import json
import re
from pathlib import Path

from zerofs.crypto import kdf
from zerofs.crypto.kdf import Purpose
from zerofs.ids import KeyId
from zerofs.keys import format as sidecar_format
from zerofs.keys import vault
from zerofs.keys.format import MAX_TOTAL_WORK_KIB, SIDECAR_NAME, decode_sidecar, encode_body
from zerofs.keys.password import check_password
from zerofs.objectstore.memory import MemoryStore
from zerofs.transform.compression import DEFAULT_COMPRESSION
from zerofs.transform.frame import Kind, Sealer
from zerofs.world import World

HERE = Path(__file__).parent
DOCUMENT = (HERE.parents[1] / "docs" / "format" / "sidecar.md").read_text(encoding="utf-8")
GOLDEN = json.loads((HERE / "sidecar_v1.json").read_text(encoding="utf-8"))
SIDECAR = bytes.fromhex("".join(GOLDEN["sidecar"]))
ROW = re.compile(r"^\| (\d+) \| (\d+) \| ([^|]*) \| `([0-9a-f ]+)` \|$", re.MULTILINE)


async def test_golden_sidecar_opens():
    store = MemoryStore()
    await store.put(SIDECAR_NAME, SIDECAR)
    keyring = await vault.unseal(store, World(), check_password(GOLDEN["password"]))
    assert keyring.volume_id.hex() == GOLDEN["volume_id"]
    assert list(keyring.key_ids) == GOLDEN["key_ids"]
    for name, subkey in GOLDEN["subkeys"].items():
        ours = keyring.sealer(Purpose[name], Kind.CHUNK, DEFAULT_COMPRESSION)
        golden = Sealer(
            volume_id=keyring.volume_id,
            kind=Kind.CHUNK,
            subkeys={KeyId(1): bytes.fromhex(subkey)},
            current=KeyId(1),
            compression=DEFAULT_COMPRESSION,
        )
        assert golden.open(ours.seal(b"text", b"place", bytes(24)), b"place", 4) == b"text"


def test_golden_sidecar_encodes_to_itself():
    sidecar = decode_sidecar(SIDECAR)
    assert encode_body(sidecar) + sidecar.mac == SIDECAR


def test_the_put_id_is_in_the_first_64_bytes():
    assert decode_sidecar(SIDECAR).put_id in SIDECAR[:64]


def test_worked_example_of_the_document():
    example = bytearray()
    for offset, size, field, digits in ROW.findall(DOCUMENT):
        part = bytes.fromhex(digits)
        assert (int(offset), int(size)) == (len(example), len(part)), field
        example += part
    assert bytes(example) == SIDECAR
    for value in (GOLDEN["password"], GOLDEN["volume_id"], GOLDEN["subkeys"]["CHUNKS"]):
        assert f"`{value}`" in DOCUMENT


def test_limits_of_the_document():
    limits = [
        f"u64: 1 to {sidecar_format.MAX_SLOTS} |",
        f"u64: 1 to {sidecar_format.MAX_GENERATIONS:,} |",
        f"length (at most {sidecar_format.MAX_LABEL_SIZE})",
        f"length (at most {sidecar_format.MAX_PROTECTOR_SIZE:,})",
        f"length (at most {sidecar_format.MAX_SEALED_KEYRING_SIZE:,})",
        f"KiB: {kdf.MIN_MEMORY_KIB:,} to {kdf.MAX_MEMORY_KIB:,} |",
        f"passes, u32: 1 to {kdf.MAX_TIME_COST} |",
        f"lanes, u32: 1 to {kdf.MAX_PARALLELISM} |",
        f"at most {kdf.MAX_WORK_KIB:,} KiB in one slot and {MAX_TOTAL_WORK_KIB:,} KiB in all slots together",
    ]
    for limit in limits:
        assert limit in DOCUMENT
    for purpose in (Purpose.SIDECAR_MAC, Purpose.SIDECAR_KEYRING):
        assert f"`{purpose.value.decode()}`" in DOCUMENT
