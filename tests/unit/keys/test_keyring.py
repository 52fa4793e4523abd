import copy
import pickle

import pytest

from zerofs.crypto.kdf import Purpose, hkdf_sha256
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError
from zerofs.ids import KeyId
from zerofs.keys.format import Generation
from zerofs.keys.keyring import Keyring
from zerofs.transform.compression import DEFAULT_COMPRESSION
from zerofs.transform.frame import Kind, Sealer

VOLUME = b"v" * 16
NONCE = b"n" * 24


def make(*key_ids):
    return Keyring(
        volume_id=VOLUME,
        generations=[
            Generation(key_id=KeyId(key_id), created_at_ns=key_id, dek=Secret(bytes((key_id,)) * 32))
            for key_id in key_ids
        ],
    )


def seal(keyring, purpose=Purpose.CHUNKS, kind=Kind.CHUNK):
    return keyring.sealer(purpose, kind, DEFAULT_COMPRESSION).seal(b"text", b"place", NONCE)


def open_(keyring, frame, purpose=Purpose.CHUNKS, kind=Kind.CHUNK):
    return keyring.sealer(purpose, kind, DEFAULT_COMPRESSION).open(frame, b"place", 4)


def test_the_highest_generation_is_the_current_one():
    keyring = make(1, 4)
    assert keyring.key_ids == (1, 4)
    assert keyring.current == 4
    assert seal(keyring)[:4] == (4).to_bytes(4, "little")


def test_older_generations_still_open():
    assert open_(make(1, 4), seal(make(1))) == b"text"


def test_a_dropped_generation_does_not():
    with pytest.raises(CorruptionError, match="key generation 1"):
        open_(make(4), seal(make(1)))


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if not purpose.name.startswith("SIDECAR")])
def test_subkeys_are_hkdf_of_the_generation(purpose):
    by_hand = Sealer(
        volume_id=VOLUME,
        kind=Kind.CHUNK,
        subkeys={KeyId(1): hkdf_sha256(b"\x01" * 32, purpose)},
        current=KeyId(1),
        compression=DEFAULT_COMPRESSION,
    )
    assert by_hand.open(seal(make(1), purpose), b"place", 4) == b"text"


def test_bare_subkeys_are_those_of_the_sealers_of_one_purpose():
    subkeys = make(1, 4).subkeys(Purpose.BLOCKS)
    assert subkeys == {key_id: hkdf_sha256(bytes((key_id,)) * 32, Purpose.BLOCKS) for key_id in (1, 4)}
    by_hand = Sealer(
        volume_id=VOLUME, kind=Kind.META_BLOCK, subkeys=subkeys, current=KeyId(4), compression=DEFAULT_COMPRESSION
    )
    assert by_hand.open(seal(make(1, 4), Purpose.BLOCKS, Kind.META_BLOCK), b"place", 4) == b"text"
    with pytest.raises(CorruptionError):
        by_hand.open(seal(make(1, 4), Purpose.CHUNKS, Kind.META_BLOCK), b"place", 4)


def test_purposes_do_not_open_each_other():
    with pytest.raises(CorruptionError):
        open_(make(1), seal(make(1), Purpose.CHUNKS), Purpose.BLOCKS)


def test_the_volume_is_bound():
    other = Keyring(
        volume_id=b"w" * 16, generations=[Generation(key_id=KeyId(1), created_at_ns=1, dek=Secret(b"\x01" * 32))]
    )
    with pytest.raises(CorruptionError):
        open_(other, seal(make(1)))


def test_sealers_outlive_a_wipe():
    keyring = make(1)
    sealer = keyring.sealer(Purpose.CHUNKS, Kind.CHUNK, DEFAULT_COMPRESSION)
    frame = seal(keyring)
    keyring.wipe()
    assert sealer.open(frame, b"place", 4) == b"text"
    assert all(generation.dek.reveal() == b"" for generation in keyring._generations)


def test_no_key_is_written():
    keyring = make(0x41)
    assert repr(keyring) == f"Keyring(volume {VOLUME.hex()}, generations [65])"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, lambda held: held.__getstate__()):
        with pytest.raises(TypeError, match="pickled or copied"):
            attempt(keyring)
