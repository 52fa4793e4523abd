"""Key derivation: Argon2id for passwords, HKDF-SHA256 for subkeys, and the registry of subkey labels.

Not for choosing salts (they come in) and not for storing parameters (that is `keys.format`). The limits below hold for
every cost, whoever it comes from: a cost read from a store may be hostile, and is refused before Argon2 runs.

Source: RFC 9106 (Argon2), RFC 5869 (HKDF).
"""

import enum
import hashlib
import hmac
from dataclasses import dataclass

from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw

from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError, ZerofsError
from zerofs.units import GIB, KIB, MIB, format_size

KEY_SIZE = 32
SALT_SIZE = 16

_ARGON2_VERSION = 0x13

MIN_MEMORY_KIB = 8 * MIB // KIB
MAX_MEMORY_KIB = GIB // KIB
MAX_TIME_COST = 16
MAX_PARALLELISM = 16
MAX_WORK_KIB = 4 * GIB // KIB
"""Most memory times passes of one derivation: a few seconds of one core."""


@dataclass(slots=True, frozen=True, kw_only=True)
class KdfCost:
    """What one Argon2id derivation costs: memory in KiB, passes over it, lanes."""

    memory_kib: int = 64 * MIB // KIB
    time_cost: int = 3
    parallelism: int = 4

    @property
    def work_kib(self) -> int:
        """Memory times passes: what the time grows with."""
        return self.memory_kib * self.time_cost

    def check(self) -> None:
        """Raise CorruptionError if the cost is outside the limits of this module."""
        if not (
            MIN_MEMORY_KIB <= self.memory_kib <= MAX_MEMORY_KIB
            and 1 <= self.time_cost <= MAX_TIME_COST
            and 1 <= self.parallelism <= MAX_PARALLELISM
            and self.work_kib <= MAX_WORK_KIB
        ):
            raise CorruptionError(
                f"key derivation refused before it ran: memory {self.memory_kib} KiB, {self.time_cost} passes,"
                f" {self.parallelism} lanes; allowed are {format_size(MIN_MEMORY_KIB * KIB)} to"
                f" {format_size(MAX_MEMORY_KIB * KIB)}, 1 to {MAX_TIME_COST} passes, 1 to {MAX_PARALLELISM} lanes,"
                f" and at most {format_size(MAX_WORK_KIB * KIB)} over all passes"
            )


DEFAULT_COST = KdfCost()
"""64 MiB, 3 passes, 4 lanes: the second choice of RFC 9106, about 0.1 s."""


class Purpose(enum.Enum):
    """The registry of HKDF labels: one purpose, one key. A label is never used for anything else."""

    BLOCKS = b"zerofs/1/blocks"
    CHUNKS = b"zerofs/1/chunks"
    WAL = b"zerofs/1/wal"
    MANIFEST = b"zerofs/1/manifest"
    CACHE = b"zerofs/1/cache"
    AUDIT = b"zerofs/1/audit"
    SIDECAR_MAC = b"zerofs/1/sidecar-mac"
    """Under the root key, not under a DEK."""
    SIDECAR_KEYRING = b"zerofs/1/sidecar-keyring"
    """Under the root key, not under a DEK."""


def argon2id(password: Secret, salt: bytes, cost: KdfCost) -> bytes:
    """A 32-byte key from a password. Blocks for as long as `cost` says: call it in a thread.

    Raises:
        CorruptionError: the cost is outside the limits; nothing was computed.
        ValueError: the salt is not 16 bytes (a bug of the caller).
        ZerofsError: the memory could not be had.
    """
    cost.check()
    if len(salt) != SALT_SIZE:
        raise ValueError(f"salt of {len(salt)} bytes; {SALT_SIZE} expected")
    try:
        return hash_secret_raw(
            password.reveal(),
            salt,
            time_cost=cost.time_cost,
            memory_cost=cost.memory_kib,
            parallelism=cost.parallelism,
            hash_len=KEY_SIZE,
            type=Type.ID,
            version=_ARGON2_VERSION,
        )
    except HashingError as exc:
        raise ZerofsError(
            f"key derivation failed: {exc}; it needs {format_size(cost.memory_kib * KIB)} of free memory"
        ) from exc


def hkdf_extract(salt: bytes, key: bytes) -> bytes:
    """The pseudo-random key of RFC 5869, section 2.2."""
    return hmac.digest(salt or bytes(hashlib.sha256().digest_size), key, "sha256")


def hkdf_expand(pseudo_random_key: bytes, info: bytes, size: int) -> bytes:
    """`size` bytes of RFC 5869, section 2.3; at most 8160."""
    if not 0 < size <= 255 * 32:
        raise ValueError(f"HKDF cannot give {size} bytes")
    out = block = b""
    counter = 0
    while len(out) < size:
        counter += 1
        block = hmac.digest(pseudo_random_key, block + info + bytes((counter,)), "sha256")
        out += block
    return out[:size]


def hkdf_sha256(key: bytes, label: Purpose, size: int = KEY_SIZE) -> bytes:
    """The subkey of `key` for one purpose. No salt: `key` is uniformly random already."""
    return hkdf_expand(hkdf_extract(b"", key), label.value, size)
