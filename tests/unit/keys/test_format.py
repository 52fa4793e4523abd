import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.crypto.kdf import KdfCost
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError, UnsupportedFormatError
from zerofs.ids import KeyId
from zerofs.keys.format import (
    KIND_PASSWORD,
    MAX_GENERATIONS,
    MAX_SEALED_KEYRING_SIZE,
    MAX_SLOTS,
    Generation,
    PasswordProtector,
    Sidecar,
    Slot,
    UnknownProtector,
    decode_keyring,
    decode_sidecar,
    encode_body,
    encode_keyring,
)

CHEAP = KdfCost(memory_kib=8192, time_cost=1, parallelism=1)
MAC = b"m" * 32

costs = st.builds(
    KdfCost, memory_kib=st.integers(8192, 1 << 18), time_cost=st.integers(1, 4), parallelism=st.integers(1, 16)
)
fixed = {size: st.binary(min_size=size, max_size=size) for size in (16, 24, 32, 48)}
password_protectors = st.builds(
    PasswordProtector, cost=costs, salt=fixed[16], nonce=fixed[24], sealed_private_key=fixed[48]
)
labels = st.text(st.characters(codec="utf-8"), max_size=16)
u64 = st.integers(0, (1 << 64) - 1)


def slots(kinds, protectors):
    return st.builds(
        Slot,
        kind=kinds,
        label=labels,
        created_at_ns=u64,
        public_key=fixed[32],
        root_nonce=fixed[24],
        boxed_root=fixed[48],
        protector=protectors,
    )


any_slot = st.one_of(
    slots(st.just(KIND_PASSWORD), password_protectors),
    slots(st.integers(2, (1 << 32) - 1), st.builds(UnknownProtector, data=st.binary(max_size=1024))),
)
sidecars = st.builds(
    Sidecar,
    put_id=fixed[16],
    volume_id=fixed[16],
    authority=fixed[32],
    slots=st.lists(any_slot, min_size=1, max_size=4).map(tuple),
    keyring_nonce=fixed[24],
    sealed_keyring=st.binary(max_size=200),
)


def password_slot(cost=CHEAP, **changes):
    slot = Slot(
        kind=KIND_PASSWORD,
        label="password",
        created_at_ns=7,
        public_key=b"p" * 32,
        root_nonce=b"r" * 24,
        boxed_root=b"b" * 48,
        protector=PasswordProtector(cost=cost, salt=b"s" * 16, nonce=b"n" * 24, sealed_private_key=b"k" * 48),
    )
    return replace(slot, **changes)


def make(*chosen, **changes):
    sidecar = Sidecar(
        put_id=b"i" * 16,
        volume_id=b"v" * 16,
        authority=b"a" * 32,
        slots=chosen or (password_slot(),),
        keyring_nonce=b"N" * 24,
        sealed_keyring=b"K" * 100,
    )
    return encode_body(replace(sidecar, **changes)) + MAC


@given(sidecars, fixed[32])
def test_round_trip(sidecar, mac):
    body = encode_body(sidecar)
    decoded = decode_sidecar(body + mac)
    assert decoded == replace(sidecar, mac=mac, authenticated=body)


def test_begins_with_magic_version_and_put_id():
    assert make().startswith(b"ZEROFKEY" + b"\x01\0\0\0" + b"i" * 16 + b"v" * 16)
    assert len(make()) == 492


def test_every_cut_and_every_tail_is_refused():
    data = make(password_slot(), password_slot(kind=9, protector=UnknownProtector(data=b"xyz")))
    for size in range(len(data)):
        with pytest.raises(CorruptionError, match=r"zerofs\.key"):
            decode_sidecar(data[:size])
    with pytest.raises(CorruptionError, match="1 bytes left over"):
        decode_sidecar(data + b"\0")


@given(st.data())
def test_altered_bytes_give_corruption_or_another_value(data):
    original = make()
    altered = bytearray(original)
    altered[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_sidecar(bytes(altered))
    except (CorruptionError, UnsupportedFormatError):
        return
    assert encode_body(decoded) + decoded.mac == altered


@given(st.binary(max_size=600).filter(lambda data: not data.startswith(b"ZEROFKEY")))
def test_garbage_is_refused(data):
    with pytest.raises(CorruptionError, match="not a zerofs key"):
        decode_sidecar(data)


@given(st.binary(max_size=600))
def test_garbage_behind_the_magic_gives_corruption_only(data):
    try:
        decode_sidecar(b"ZEROFKEY\x01\0\0\0" + data)
    except CorruptionError:
        pass
    else:
        pytest.fail("random bytes decoded")


@pytest.mark.parametrize("version", [0, 2, 1 << 31])
def test_an_unknown_version_is_refused_by_number(version):
    data = bytearray(make())
    struct.pack_into("<I", data, 8, version)
    error = UnsupportedFormatError if version > 1 else CorruptionError
    with pytest.raises(error, match=rf"zerofs\.key has version {version}; this zerofs reads version 1 only"):
        decode_sidecar(bytes(data))


@pytest.mark.parametrize("offset", [76, 88, 216, 352], ids=["slots", "label", "protector", "keyring"])
@pytest.mark.parametrize("value", [1 << 20, 1 << 32, (1 << 64) - 1])
def test_hostile_lengths_are_refused_before_memory_is_allocated(offset, value):
    data = bytearray(make())
    struct.pack_into("<Q", data, offset, value)
    with pytest.raises(CorruptionError, match=rf"zerofs\.key: .*{value}"):
        decode_sidecar(bytes(data))


def test_slot_count_limits():
    cheap = [password_slot()] * MAX_SLOTS
    assert len(decode_sidecar(make(*cheap)).slots) == MAX_SLOTS
    with pytest.raises(CorruptionError, match="17 slots; 1 to 16"):
        decode_sidecar(make(*cheap, password_slot()))
    with pytest.raises(CorruptionError, match="0 slots"):
        decode_sidecar(make(slots=()))


def test_label_limits():
    assert decode_sidecar(make(password_slot(label="x" * 64))).slots[0].label == "x" * 64
    with pytest.raises(CorruptionError, match="length 65 exceeds the limit of 64"):
        decode_sidecar(make(password_slot(label="x" * 65)))
    broken = make().replace(b"password", b"passw\xffrd")
    with pytest.raises(CorruptionError, match="label is not UTF-8"):
        decode_sidecar(broken)


def test_keyring_limit():
    decode_sidecar(make(sealed_keyring=bytes(MAX_SEALED_KEYRING_SIZE)))
    with pytest.raises(CorruptionError, match="exceeds the limit"):
        decode_sidecar(make(sealed_keyring=bytes(MAX_SEALED_KEYRING_SIZE + 1)))


@pytest.mark.parametrize(
    ("memory_kib", "time_cost", "parallelism"),
    [
        (8191, 1, 1),
        (0, 1, 1),
        ((1 << 32) - 1, 1, 1),
        (8192, 0, 1),
        (8192, 17, 1),
        (8192, 1, 0),
        (8192, 1, 17),
        (1 << 20, 5, 1),
    ],
)
def test_kdf_limits(memory_kib, time_cost, parallelism):
    cost = KdfCost(memory_kib=memory_kib, time_cost=time_cost, parallelism=parallelism)
    with pytest.raises(CorruptionError, match="refused before it ran"):
        decode_sidecar(make(password_slot(cost)))


def test_kdf_limit_over_all_slots():
    dear = password_slot(KdfCost(memory_kib=1 << 20, time_cost=4, parallelism=1))
    assert len(decode_sidecar(make(dear, dear, dear, dear)).slots) == 4
    with pytest.raises(CorruptionError, match="slots together ask for 16785408 KiB"):
        decode_sidecar(make(dear, dear, dear, dear, password_slot()))


def test_unknown_kinds_and_unknown_kdfs_are_kept_as_they_are():
    other_kind = password_slot(kind=2, protector=UnknownProtector(data=b"recovery"))
    other_kdf = password_slot(protector=UnknownProtector(data=b"\x02\0\0\0whatever"))
    data = make(other_kind, password_slot(), other_kdf)
    decoded = decode_sidecar(data)
    assert decoded.slots == (other_kind, password_slot(), other_kdf)
    assert encode_body(decoded) + decoded.mac == data


@pytest.mark.parametrize("protector", [b"", b"\x01\0\0", b"\x01\0\0\0" + b"\0\x20\0\0\x01\0\0\0\x01\0\0\0" + bytes(87)])
def test_a_password_protector_cut_short(protector):
    with pytest.raises(CorruptionError, match="password slot: cut short"):
        decode_sidecar(make(password_slot(protector=UnknownProtector(data=protector))))


def test_a_password_protector_with_a_tail():
    protector = b"\x01\0\0\0" + b"\0\x20\0\0\x01\0\0\0\x01\0\0\0" + bytes(89)
    with pytest.raises(CorruptionError, match="password slot: 1 bytes left over"):
        decode_sidecar(make(password_slot(protector=UnknownProtector(data=protector))))


def generation(key_id, created_at_ns=5):
    return Generation(key_id=KeyId(key_id), created_at_ns=created_at_ns, dek=Secret(bytes((key_id % 256,)) * 32))


@given(
    st.binary(min_size=32, max_size=32),
    st.lists(st.tuples(st.integers(1, (1 << 32) - 1), u64), min_size=1, max_size=5, unique_by=lambda pair: pair[0]),
)
def test_keyring_round_trip(authority, chosen):
    generations = tuple(generation(*pair) for pair in sorted(chosen))
    decoded_authority, decoded = decode_keyring(encode_keyring(Secret(authority), generations))
    assert decoded_authority.reveal() == authority
    assert [(one.key_id, one.created_at_ns, one.dek.reveal()) for one in decoded] == [
        (one.key_id, one.created_at_ns, one.dek.reveal()) for one in generations
    ]


@pytest.mark.parametrize("key_ids", [(0,), (2, 1), (1, 1), (1, 3, 2)])
def test_key_ids_must_ascend(key_ids):
    data = encode_keyring(Secret(bytes(32)), tuple(generation(key_id) for key_id in key_ids))
    with pytest.raises(CorruptionError, match="key ids do not ascend"):
        decode_keyring(data)


def test_generation_count_limits():
    data = encode_keyring(Secret(bytes(32)), tuple(generation(key_id) for key_id in range(1, MAX_GENERATIONS + 1)))
    assert len(decode_keyring(data)[1]) == MAX_GENERATIONS
    assert len(data) + 16 <= MAX_SEALED_KEYRING_SIZE
    for count in (0, MAX_GENERATIONS + 1, (1 << 64) - 1):
        with pytest.raises(CorruptionError, match=f"{count} key generations"):
            decode_keyring(data[:32] + struct.pack("<Q", count) + data[40:])


def test_keyring_cuts_and_tails():
    data = encode_keyring(Secret(bytes(32)), (generation(1), generation(2)))
    for size in range(len(data)):
        with pytest.raises(CorruptionError):
            decode_keyring(data[:size])
    with pytest.raises(CorruptionError, match="left over"):
        decode_keyring(data + b"\0")


def test_no_secret_in_a_repr():
    shown = repr(generation(0x41))
    assert "Secret(…)" in shown
    assert "AAAA" not in shown
