"""A frame's cost over the bare libraries: seal and open of one 32 KiB chunk.

Bare: compress, then ChaCha20-Poly1305 under a key that was derived before; nothing is joined. Napkin: that takes 45 µs
(random bytes) to 80 µs (text) for 32 KiB; a frame adds two joins, a derived key's look-up and some fifteen Python
calls, about 6 µs, and a sample that saves most of the compressor's time where nothing shrinks (decision 0015).

Run: python -m benches.bench_frame
"""

import os
import random
import timeit

import lz4.block
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from zerofs.ids import KeyId
from zerofs.transform.compression import Compression
from zerofs.transform.frame import Kind, Sealer
from zerofs.units import CHUNK_SIZE

ROUNDS = 2000
REPEATS = 9


def best_of(pair):
    """Microseconds of both functions, measured in turns so that a busy machine hits both alike."""
    best = [float("inf")] * len(pair)
    for _ in range(REPEATS):
        for index, function in enumerate(pair):
            best[index] = min(best[index], timeit.timeit(function, number=ROUNDS) / ROUNDS * 1e6)
    return best


def make_text():
    """Compressible to about a quarter, as source code is."""
    rng = random.Random(1)
    words = [rng.randbytes(rng.randint(3, 9)).hex().encode() for _ in range(400)]
    return b" ".join(rng.choice(words) for _ in range(8000))[:CHUNK_SIZE]


def measure(setting, data):
    """The four functions: seal bare, seal a frame, open bare, open a frame."""
    key, nonce, volume_id = os.urandom(32), os.urandom(24), os.urandom(16)
    place = b"compacted/0000000001-0000000001.sst" + bytes(24)
    aad = volume_id + b"\x03\x01\0\0\0" + place
    sealer = Sealer(
        volume_id=volume_id,
        kind=Kind.CHUNK,
        subkeys={KeyId(1): key},
        current=KeyId(1),
        compression=Compression.parse(setting),
    )
    if setting == "lz4":
        pack, unpack = lz4.block.compress, lz4.block.decompress
    else:
        pack, unpack = zstandard.ZstdCompressor(level=3).compress, zstandard.ZstdDecompressor().decompress
    shrinks = len(pack(data)) < len(data)
    frame = sealer.seal(data, place, nonce)
    packed = pack(data) if shrinks else data
    cipher, inner_nonce = ChaCha20Poly1305(key), nonce[:12]
    sealed = cipher.encrypt(inner_nonce, packed, aad)

    def bare_seal():
        packed = pack(data)
        cipher.encrypt(inner_nonce, packed if shrinks else data, aad)

    def bare_open():
        text = cipher.decrypt(inner_nonce, sealed, aad)
        return unpack(text) if shrinks else text

    assert bare_open() == data == sealer.open(frame, place, CHUNK_SIZE)
    return (
        ("seal", bare_seal, lambda: sealer.seal(data, place, nonce)),
        ("open", bare_open, lambda: sealer.open(frame, place, CHUNK_SIZE)),
    )


def main():
    print(f"{'':19} {'bare µs':>8} {'frame µs':>9} {'ratio':>6}")
    for setting in ("zstd-3", "lz4"):
        for name, data in (("text", make_text()), ("random", random.Random(1).randbytes(CHUNK_SIZE))):
            for verb, *pair in measure(setting, data):
                bare, ours = best_of(pair)
                print(f"{setting:6} {name:6} {verb:5} {bare:8.1f} {ours:9.1f} {ours / bare:6.2f}")


if __name__ == "__main__":
    main()
