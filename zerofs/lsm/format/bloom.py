"""A bloom filter over whole keys: "surely absent" or "perhaps there".

    size  field
    1     probes, u8
    rest  bits, a multiple of 8, bit i of the filter is bit i % 8 of byte i // 8

The two 32-bit hashes of double hashing are the halves of BLAKE2b-64 of the key, little-endian: fast in C, the same in
every process (Python's own hash is seeded) and, since the filter is sealed, of no use to anybody without the key.
Source: Kirsch and Mitzenmacher, "Less hashing, same performance" (2006).
"""

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain

from zerofs.errors import CorruptionError

BITS_PER_KEY = 10
PROBES = 5
"""`build_bloom` is written out for so many. Two more would let 0.82 % through instead of 0.94 %, for a third more time.
Filters with other numbers are read as well."""

MAX_FILTER_SIZE = 1 << 24

_HASH_SIZE = 8
_HALVES = struct.Struct("<II")


def hash_key(key: bytes) -> int:
    """The 64 bits that all filters are asked with; compute once per lookup."""
    return int.from_bytes(blake2b(key, digest_size=_HASH_SIZE).digest(), "little")


def hash_keys(keys: Iterable[bytes]) -> bytes:
    """The hashes of many keys, joined: what `build_bloom` takes."""
    return b"".join([blake2b(key, digest_size=_HASH_SIZE).digest() for key in keys])


def build_bloom(hashes: Sequence[bytes]) -> bytes:
    """A filter for the keys with these hashes, in parts as `hash_keys` made them; under 1 % false positives."""
    count = sum(map(len, hashes)) // _HASH_SIZE
    bits = max(64, count * BITS_PER_KEY)
    size = min((bits + 7) // 8, MAX_FILTER_SIZE)
    bits = size * 8
    # One digit a bit, one conversion at the end, no loop over the probes, and numbers below 2^30, with which the
    # interpreter is fast: half the time of setting bits one by one.
    digits = bytearray(b"0") * bits
    one = ord("1")
    for start, stride in chain.from_iterable(map(_HALVES.iter_unpack, hashes)):
        a, step = start % bits, (stride | 1) % bits
        b = a + step
        c = b + step
        d = c + step
        digits[a] = digits[b % bits] = digits[c % bits] = digits[d % bits] = digits[(d + step) % bits] = one
    digits.reverse()
    return bytes((PROBES,)) + int(digits, 2).to_bytes(size, "little")


def check_bloom(bloom: bytes, what: str) -> None:
    """Raise CorruptionError naming `what` unless `bloom` is a filter."""
    if not 9 <= len(bloom) <= MAX_FILTER_SIZE + 1 or not 0 < bloom[0] <= 30:
        raise CorruptionError(f"{what}: malformed bloom filter")


def may_contain(bloom: bytes, key_hash: int) -> bool:
    """False only when the key is surely not among those the filter was built from."""
    bits = (len(bloom) - 1) * 8
    position, step = (key_hash & 0xFFFFFFFF) % bits, ((key_hash >> 32) | 1) % bits
    for _ in range(bloom[0]):
        bit = position % bits
        if not bloom[1 + (bit >> 3)] >> (bit & 7) & 1:
            return False
        position += step
    return True
