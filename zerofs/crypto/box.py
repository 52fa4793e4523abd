"""X25519 boxes: a short secret from one known key pair to another.

The recipient learns that the sender made it (or the recipient itself did: a box convinces nobody else). A *sealed box*
without a sender would let anybody who sees a public key put secrets of their own choice in its owner's way; decision
0007 says why that must not be.

Source: NaCl's crypto_box (X25519, XSalsa20-Poly1305); RFC 7748.
"""

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from zerofs.errors import CorruptionError

KEY_SIZE = 32
NONCE_SIZE = 24
OVERHEAD = 16


def public_key(private_key: bytes) -> bytes:
    """The 32-byte public key of a private one (any 32 random bytes)."""
    return bytes(PrivateKey(private_key).public_key)


def seal(text: bytes, nonce: bytes, *, recipient: bytes, sender_private: bytes) -> bytes:
    """`text` for the holder of the public key `recipient`, from the holder of `sender_private`: 16 bytes longer.

    `nonce` is 24 random bytes and is not part of the result.
    """
    return Box(PrivateKey(sender_private), PublicKey(recipient)).encrypt(text, nonce).ciphertext


def open_(sealed: bytes, nonce: bytes, *, recipient_private: bytes, sender: bytes) -> bytes:
    """The text of a box.

    Raises:
        CorruptionError: it is not from the holder of the key pair of `sender`, not for this recipient, or altered.
    """
    try:
        return Box(PrivateKey(recipient_private), PublicKey(sender)).decrypt(sealed, nonce)
    except CryptoError as exc:
        raise CorruptionError("a boxed key does not open: altered, or not made by the volume's authority") from exc
