import pytest
from argon2.exceptions import HashingError
from nacl.pwhash import argon2id as libsodium_argon2id

from zerofs.crypto import kdf
from zerofs.crypto.kdf import DEFAULT_COST, KdfCost, Purpose, argon2id, hkdf_expand, hkdf_extract, hkdf_sha256
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError, ZerofsError

PASSWORD = Secret(b"password")
SALT = b"s" * 16

# RFC 5869, appendix A: key, salt, info, pseudo-random key, output.
HKDF_VECTORS = [
    (
        b"\x0b" * 22,
        bytes(range(13)),
        bytes(range(0xF0, 0xFA)),
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)),
        bytes(range(0x60, 0xB0)),
        bytes(range(0xB0, 0x100)),
        "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8"
        "367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        b"\x0b" * 22,
        b"",
        b"",
        "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.fixture
def argon2_calls(monkeypatch):
    """Stands in for Argon2 and records whether it was reached."""
    calls = []

    def record(*_args, **cost):
        calls.append(cost)
        return bytes(32)

    monkeypatch.setattr(kdf, "hash_secret_raw", record)
    return calls


def test_default_cost():
    cost = DEFAULT_COST
    assert (cost.memory_kib, cost.time_cost, cost.parallelism) == (65536, 3, 4)


def test_argon2id_default_cost_vector():
    # Computed with OpenSSL's Argon2id.
    assert argon2id(PASSWORD, SALT, DEFAULT_COST).hex() == (
        "21a97cf6284deef49292466e39d7d3b0a6842655b5a801f88b9b84ccefc56864"
    )


def test_argon2id_agrees_with_libsodium():
    cost = KdfCost(memory_kib=8192, time_cost=2, parallelism=1)
    other = libsodium_argon2id.kdf(32, b"password", SALT, opslimit=2, memlimit=8192 * 1024)
    assert argon2id(PASSWORD, SALT, cost) == other


@pytest.mark.parametrize(
    "cost",
    [
        KdfCost(memory_kib=8191, time_cost=1, parallelism=1),
        KdfCost(memory_kib=0, time_cost=1, parallelism=1),
        KdfCost(memory_kib=(1 << 20) + 1, time_cost=1, parallelism=1),
        KdfCost(memory_kib=(1 << 32) - 1, time_cost=1, parallelism=1),
        KdfCost(memory_kib=8192, time_cost=0, parallelism=1),
        KdfCost(memory_kib=8192, time_cost=17, parallelism=1),
        KdfCost(memory_kib=8192, time_cost=1, parallelism=0),
        KdfCost(memory_kib=8192, time_cost=1, parallelism=17),
        KdfCost(memory_kib=1 << 20, time_cost=5, parallelism=1),
        KdfCost(memory_kib=(1 << 18) + 1, time_cost=16, parallelism=1),
    ],
    ids=str,
)
def test_limits_hold_before_argon2_runs(cost, argon2_calls):
    with pytest.raises(CorruptionError, match="refused before it ran"):
        argon2id(PASSWORD, SALT, cost)
    assert argon2_calls == []


@pytest.mark.parametrize(
    "cost",
    [
        KdfCost(memory_kib=8192, time_cost=1, parallelism=1),
        KdfCost(memory_kib=1 << 20, time_cost=4, parallelism=16),
        KdfCost(memory_kib=1 << 18, time_cost=16, parallelism=1),
    ],
    ids=str,
)
def test_the_limits_themselves_are_allowed(cost, argon2_calls):
    argon2id(PASSWORD, SALT, cost)
    (call,) = argon2_calls
    assert (call["memory_cost"], call["time_cost"], call["parallelism"]) == (
        cost.memory_kib,
        cost.time_cost,
        cost.parallelism,
    )
    assert call["version"] == 0x13


def test_salt_of_a_wrong_size(argon2_calls):
    with pytest.raises(ValueError, match="salt of 15 bytes"):
        argon2id(PASSWORD, SALT[1:], DEFAULT_COST)
    assert argon2_calls == []


def test_failure_of_argon2_is_translated(monkeypatch):
    def fail(*_args, **_cost):
        raise HashingError("Memory allocation error")

    monkeypatch.setattr(kdf, "hash_secret_raw", fail)
    with pytest.raises(ZerofsError, match=r"Memory allocation error.*64\.0 MiB") as caught:
        argon2id(PASSWORD, SALT, DEFAULT_COST)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(("key", "salt", "info", "extracted", "expanded"), HKDF_VECTORS)
def test_rfc_5869(key, salt, info, extracted, expanded):
    assert hkdf_extract(salt, key).hex() == extracted
    assert hkdf_expand(bytes.fromhex(extracted), info, len(expanded) // 2).hex() == expanded


@pytest.mark.parametrize("size", [0, -1, 255 * 32 + 1])
def test_hkdf_size_limits(size):
    with pytest.raises(ValueError, match="HKDF"):
        hkdf_expand(bytes(32), b"", size)


def test_hkdf_longest():
    assert len(hkdf_expand(bytes(32), b"", 255 * 32)) == 255 * 32


def test_subkeys_differ_by_purpose_and_key():
    labels = [purpose.value for purpose in Purpose]
    assert len(labels) == len(Purpose.__members__)
    subkeys = {hkdf_sha256(key, purpose) for key in (bytes(32), b"\x01" * 32) for purpose in Purpose}
    assert len(subkeys) == 2 * len(labels)


def test_subkey_is_hkdf_with_the_label_as_info():
    expected = hkdf_expand(hkdf_extract(b"", b"k" * 32), b"zerofs/1/chunks", 32)
    assert hkdf_sha256(b"k" * 32, Purpose.CHUNKS) == expected


def test_labels_never_change():
    assert {purpose.name: purpose.value.decode() for purpose in Purpose} == {
        "BLOCKS": "zerofs/1/blocks",
        "CHUNKS": "zerofs/1/chunks",
        "WAL": "zerofs/1/wal",
        "MANIFEST": "zerofs/1/manifest",
        "CACHE": "zerofs/1/cache",
        "AUDIT": "zerofs/1/audit",
        "SIDECAR_MAC": "zerofs/1/sidecar-mac",
        "SIDECAR_KEYRING": "zerofs/1/sidecar-keyring",
    }
