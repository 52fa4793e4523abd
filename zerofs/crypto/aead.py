"""XChaCha20-Poly1305: sealing bytes under a key, a nonce and additional data.

libsodium is called through the cffi module that PyNaCl ships, because PyNaCl's own wrapper takes `bytes` only, and
copies. Calls release the interpreter lock, keep no state, and may come from any thread. Where the nonce comes from is
the caller's duty: 24 random bytes for each message.

Source: draft-irtf-cfrg-xchacha-03.
"""

from nacl import _sodium

from zerofs.errors import CorruptionError

BytesLike = bytes | bytearray | memoryview
"""What can be sealed or opened without a copy; memoryviews must be contiguous."""

KEY_SIZE = 32
NONCE_SIZE = 24
TAG_SIZE = 16

_TAG_ROOM = bytes(TAG_SIZE)

_ffi = _sodium.ffi
_lib = _sodium.lib
_NULL = _ffi.NULL
_encrypt = _lib.crypto_aead_xchacha20poly1305_ietf_encrypt
_decrypt = _lib.crypto_aead_xchacha20poly1305_ietf_decrypt
_from_buffer = _ffi.from_buffer

# Chooses the implementation for this processor. Idempotent: 0 the first time, 1 afterwards.
if _lib.sodium_init() < 0:
    raise ImportError("libsodium cannot be initialised")


def _check(key: bytes, nonce: BytesLike) -> None:
    # C reads these without knowing their lengths.
    if len(key) != KEY_SIZE:
        raise ValueError(f"key of {len(key)} bytes; {KEY_SIZE} expected")
    if len(nonce) != NONCE_SIZE:
        raise ValueError(f"nonce of {len(nonce)} bytes; {NONCE_SIZE} expected")


def seal(key: bytes, nonce: BytesLike, text: BytesLike, aad: BytesLike) -> bytes:
    """Ciphertext ‖ 16-byte tag.

    Raises:
        ValueError: key or nonce of a wrong size (a bug of the caller).
    """
    return seal_pieces(b"", key, nonce, (text,), aad)


def seal_pieces(clear: BytesLike, key: bytes, nonce: BytesLike, pieces: tuple[BytesLike, ...], aad: BytesLike) -> bytes:
    """`clear`, then the ciphertext of the joined `pieces`, then the tag: one buffer, sealed in place.

    `clear` is not authenticated by itself: what matters of it belongs into `aad` too.

    Raises:
        ValueError: key or nonce of a wrong size (a bug of the caller).
    """
    _check(key, nonce)
    # A bytearray, because bytes must not change once they exist; the copy at the end costs 0.5 µs per 32 KiB.
    out = bytearray().join((clear, *pieces, _TAG_ROOM))
    size = len(out) - len(clear) - TAG_SIZE
    view = _from_buffer(out)
    start = view + len(clear)
    # libsodium fails here only for messages beyond 2**38 bytes, which no buffer of ours reaches.
    result = _encrypt(start, _NULL, start, size, _from_buffer(aad), len(aad), _NULL, _from_buffer(nonce), key)
    assert result == 0, "libsodium refused to encrypt"
    return bytes(out)


def open_(key: bytes, nonce: BytesLike, ciphertext: BytesLike, aad: BytesLike) -> bytes:
    """The text of a ciphertext ‖ tag.

    Raises:
        CorruptionError: too short, or the tag does not fit key, nonce, ciphertext and additional data. Nothing of the
            text is given away then.
        ValueError: key or nonce of a wrong size (a bug of the caller).
    """
    return bytes(open_buffer(key, nonce, ciphertext, aad))


def open_buffer(key: bytes, nonce: BytesLike, ciphertext: BytesLike, aad: BytesLike) -> bytearray:
    """As `open_`, but the text in the buffer it was written to, without the last copy."""
    _check(key, nonce)
    size = len(ciphertext)
    if size < TAG_SIZE:
        raise CorruptionError(f"sealed bytes cut short: {size}, at least {TAG_SIZE} expected")
    out = bytearray(size - TAG_SIZE)
    if _decrypt(
        _from_buffer(out), _NULL, _NULL, _from_buffer(ciphertext), size, _from_buffer(aad), len(aad),
        _from_buffer(nonce), key,
    ):  # fmt: skip
        raise CorruptionError("sealed bytes do not authenticate: altered, misplaced, or sealed with another key")
    return out
