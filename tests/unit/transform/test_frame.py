import copy
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.crypto import aead
from zerofs.errors import CorruptionError
from zerofs.ids import KeyId
from zerofs.transform.compression import Compression
from zerofs.transform.frame import FRAME_OVERHEAD, Kind, Sealer, frame_nonce

VOLUME = b"V" * 16
KEYS = {KeyId(1): b"\x01" * 32, KeyId(7): b"\x07" * 32}
CURRENT = KeyId(7)
NONCE = bytes(range(24))
PLACE = b"compacted/1-1.sst\x00\x20"
TEXT = b"all work and no play " * 20
SETTINGS = [Compression.parse("zstd-3"), Compression.parse("zstd-19"), Compression.parse("lz4")]


def make(*, volume_id=VOLUME, kind=Kind.META_BLOCK, subkeys=KEYS, current=CURRENT, compression=SETTINGS[0]):
    return Sealer(volume_id=volume_id, kind=kind, subkeys=subkeys, current=current, compression=compression)


@given(
    text=st.binary(max_size=3000),
    place=st.binary(max_size=60),
    nonce=st.binary(min_size=24, max_size=24),
    kind=st.sampled_from(Kind),
    compression=st.sampled_from(SETTINGS),
    key_id=st.sampled_from(sorted(KEYS)),
)
def test_round_trip(text, place, nonce, kind, compression, key_id):
    sealer = make(kind=kind, compression=compression, current=key_id)
    frame = sealer.seal(text, place, nonce)
    assert type(frame) is bytes
    assert FRAME_OVERHEAD <= len(frame) <= len(text) + FRAME_OVERHEAD
    assert frame_nonce(frame) == nonce
    assert frame[:4] == key_id.to_bytes(4, "little")
    assert make(kind=kind).open(frame, place, len(text)) == text


@given(
    text=st.one_of(st.binary(max_size=3000), st.integers(16_000, 33_000).map(random.Random(7).randbytes)),
    place=st.binary(max_size=60),
    nonce=st.binary(min_size=24, max_size=24),
    compression=st.sampled_from(SETTINGS),
)
def test_sealing_into_a_buffer_makes_the_same_frame(text, place, nonce, compression):
    sealer = make(compression=compression)
    room, target = bytearray(b"?" + text), bytearray(b"?" * (len(text) + FRAME_OVERHEAD + 3))
    size = sealer.seal_into(memoryview(target), memoryview(room), place, nonce)
    assert target[:size] == sealer.seal(text, place, nonce)
    assert target[size:] == b"?" * (len(target) - size)
    assert room[1:] == text


@pytest.mark.parametrize("missing", [1, 44, 45])
def test_a_buffer_that_is_too_small_is_a_bug(missing):
    text = random.Random(7).randbytes(20_000)
    target = memoryview(bytearray(len(text) + FRAME_OVERHEAD - missing))
    with pytest.raises(ValueError, match=r"."):
        make().seal_into(target, memoryview(bytearray(b"?" + text)), b"", NONCE)


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
def test_any_bytes_like(convert):
    frame = make().seal(convert(TEXT), PLACE, NONCE)
    opened = make().open(convert(frame), PLACE, len(TEXT))
    assert type(opened) is bytes
    assert opened == TEXT
    assert frame_nonce(convert(frame)) == NONCE


def test_a_frame_inside_a_larger_buffer():
    frame = make().seal(TEXT, PLACE, NONCE)
    view = memoryview(b"before" + frame + b"after")[6 : 6 + len(frame)]
    assert make().open(view, PLACE, len(TEXT)) == TEXT


def test_layout():
    """The frame put together by hand, from the layout in the module's docstring."""
    text = bytes(range(200, 256))
    aad = VOLUME + b"\x03" + b"\x07\0\0\0" + PLACE
    expected = b"\x07\0\0\0" + NONCE + aead.seal(KEYS[KeyId(7)], NONCE, b"\0" + text, aad)
    assert make(kind=Kind.CHUNK).seal(text, PLACE, NONCE) == expected
    assert len(expected) == len(text) + FRAME_OVERHEAD == len(text) + 45


def test_compressed_before_sealed():
    frame = make().seal(bytes(32768), PLACE, NONCE)
    assert len(frame) < 100
    assert make().open(frame, PLACE, 32768) == bytes(32768)


def test_kinds_never_change():
    assert {kind.name: kind.value for kind in Kind} == {
        "META_BLOCK": 1,
        "META_INDEX": 2,
        "CHUNK": 3,
        "CHUNK_DIRECTORY": 4,
        "WAL": 5,
        "MANIFEST": 6,
    }


@pytest.mark.parametrize("kind", Kind)
def test_no_kind_opens_as_another(kind):
    frame = make(kind=kind).seal(TEXT, PLACE, NONCE)
    for other in Kind:
        if other is kind:
            assert make(kind=other).open(frame, PLACE, len(TEXT)) == TEXT
        else:
            with pytest.raises(CorruptionError, match=f"{other.name} frame: .*do not authenticate"):
                make(kind=other).open(frame, PLACE, len(TEXT))


@pytest.mark.parametrize("place", [b"", PLACE[:-1], PLACE + b"\0", b"\0" + PLACE, PLACE[:-1] + b"\x21"])
def test_another_place(place):
    frame = make().seal(TEXT, PLACE, NONCE)
    with pytest.raises(CorruptionError):
        make().open(frame, place, len(TEXT))


def test_an_empty_place_still_binds_volume_kind_and_key():
    frame = make(kind=Kind.CHUNK).seal(TEXT, b"", NONCE)
    assert make(kind=Kind.CHUNK).open(frame, b"", len(TEXT)) == TEXT
    with pytest.raises(CorruptionError):
        make(kind=Kind.CHUNK, volume_id=b"W" * 16).open(frame, b"", len(TEXT))


def test_additional_data_cannot_shift_between_components():
    """The volume id's last byte equals the kind, and so on: moving a byte over must not matter."""
    frame = make(volume_id=b"\x03" * 16, kind=Kind.CHUNK).seal(TEXT, b"\x03", NONCE)
    with pytest.raises(CorruptionError):
        make(volume_id=b"\x03" * 16, kind=Kind.CHUNK).open(frame, b"\x03\x03", len(TEXT))


def test_another_volume():
    frame = make().seal(TEXT, PLACE, NONCE)
    with pytest.raises(CorruptionError):
        make(volume_id=b"V" * 15 + b"W").open(frame, PLACE, len(TEXT))


def test_another_subkey():
    frame = make().seal(TEXT, PLACE, NONCE)
    with pytest.raises(CorruptionError):
        make(subkeys={KeyId(7): bytes(32)}).open(frame, PLACE, len(TEXT))


def test_an_older_generation_still_opens():
    old = make(current=KeyId(1)).seal(TEXT, PLACE, NONCE)
    assert make(current=KeyId(7)).open(old, PLACE, len(TEXT)) == TEXT


def test_a_generation_that_the_keyring_lacks():
    frame = make().seal(TEXT, PLACE, NONCE)
    with pytest.raises(CorruptionError, match="META_BLOCK frame names key generation 7, which the keyring lacks"):
        make(subkeys={KeyId(1): KEYS[KeyId(1)]}, current=KeyId(1)).open(frame, PLACE, len(TEXT))


def test_the_key_id_cannot_be_exchanged():
    """Even when both generations have the same key."""
    twins = {KeyId(1): b"k" * 32, KeyId(2): b"k" * 32}
    frame = make(subkeys=twins, current=KeyId(1)).seal(TEXT, PLACE, NONCE)
    sealer = make(subkeys=twins, current=KeyId(2))
    assert sealer.open(frame, PLACE, len(TEXT)) == TEXT
    with pytest.raises(CorruptionError):
        sealer.open(b"\x02" + frame[1:], PLACE, len(TEXT))


@pytest.mark.parametrize("compression", SETTINGS, ids=str)
@pytest.mark.parametrize("text", [b"", b"short", TEXT])
def test_every_flip_and_every_cut_is_refused(compression, text):
    sealer = make(compression=compression)
    frame = sealer.seal(text, PLACE, NONCE)
    for offset in range(len(frame)):
        for bit in range(8):
            altered = bytearray(frame)
            altered[offset] ^= 1 << bit
            with pytest.raises(CorruptionError):
                sealer.open(altered, PLACE, len(text))
        with pytest.raises(CorruptionError):
            sealer.open(frame[:offset], PLACE, len(text))
    with pytest.raises(CorruptionError):
        sealer.open(frame + b"\0", PLACE, len(text))


@pytest.mark.parametrize("size", [0, 1, 27, 28, 44])
def test_too_short_for_a_frame(size):
    with pytest.raises(CorruptionError, match=f"frame of {size} bytes cut short"):
        make().open(bytes(size), PLACE, 100)
    with pytest.raises(CorruptionError, match="cut short"):
        frame_nonce(bytes(size))


@pytest.mark.parametrize("text", [TEXT, bytes(range(256))])
def test_limit(text):
    frame = make().seal(text, PLACE, NONCE)
    with pytest.raises(CorruptionError, match="at most"):
        make().open(frame, PLACE, len(text) - 1)


def test_an_unknown_codec_that_authenticates():
    aad = VOLUME + b"\x01" + b"\x07\0\0\0" + PLACE
    frame = b"\x07\0\0\0" + NONCE + aead.seal(KEYS[KeyId(7)], NONCE, b"\x09data", aad)
    with pytest.raises(CorruptionError, match="META_BLOCK frame: unknown codec 9"):
        make().open(frame, PLACE, 100)


def test_wrong_sizes_are_bugs():
    with pytest.raises(ValueError, match="volume id"):
        make(volume_id=b"short")
    with pytest.raises(ValueError, match="nonce of 12 bytes"):
        make().seal(TEXT, PLACE, bytes(12))
    with pytest.raises(KeyError):
        make(current=KeyId(2))


def test_no_key_is_written():
    sealer = make()
    shown = repr(sealer) + str(sealer)
    assert shown == "Sealer(META_BLOCK)" * 2
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, lambda held: held.__getstate__()):
        with pytest.raises(TypeError, match="pickled or copied"):
            attempt(sealer)
