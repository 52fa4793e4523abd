"""The frame: the only form in which data leave the process (docs/format/frame.md, decision 0001).

    offset  size  field
    0       4     key id, u32 little-endian, in clear: the DEK generation
    4       24    nonce, in clear: 16 random bytes that a batch shares, 8 that count up
    28      n     ciphertext of: codec byte ‖ compressed bytes        (compression.py)
    28+n    16    Poly1305 tag

    additional data: volume id (16) ‖ kind (1) ‖ key id (4, little-endian) ‖ place (the rest)

XChaCha20-Poly1305 under the subkey of one purpose. The place is what its format says: object name, offset and epoch
token for most; empty for a chunk, whose identity is its nonce. Anything that does not fit is CorruptionError, never
bytes. Which object a frame stood in is for the caller to add: it knows the name.
"""

import enum
import struct
from collections.abc import Mapping
from typing import NoReturn, final

from zerofs.crypto import aead
from zerofs.crypto.aead import Aead, BytesLike
from zerofs.errors import CorruptionError
from zerofs.ids import VOLUME_ID_SIZE, KeyId
from zerofs.transform.compression import Codec, Compression, compress, decompress

KEY_ID_SIZE = 4
CLEAR_SIZE = KEY_ID_SIZE + aead.NONCE_SIZE
CODEC_SIZE = 1

FRAME_OVERHEAD = CLEAR_SIZE + CODEC_SIZE + aead.TAG_SIZE
"""45: most bytes by which a frame exceeds its text, and the least size of a frame."""

_KEY_ID = struct.Struct("<I")
_CODEC_BYTES = tuple(bytes((codec,)) for codec in range(256))


class Kind(enum.IntEnum):
    """What a frame holds: part of the additional data, so one kind never opens as another. Numbers are for ever."""

    META_BLOCK = 1
    META_INDEX = 2
    CHUNK = 3
    CHUNK_DIRECTORY = 4
    WAL = 5
    MANIFEST = 6


def frame_nonce(frame: BytesLike) -> bytes:
    """The nonce of a frame: a chunk frame's identity."""
    return _clear(frame)[KEY_ID_SIZE:]


def clear_part(key_id: KeyId, nonce: bytes) -> bytes:
    """What a frame begins with, in clear."""
    return _KEY_ID.pack(key_id) + nonce


def _clear(frame: BytesLike) -> bytes:
    if len(frame) < FRAME_OVERHEAD:
        raise CorruptionError(f"frame of {len(frame)} bytes cut short: at least {FRAME_OVERHEAD} expected")
    return bytes(frame[:CLEAR_SIZE])


@final
class Sealer:
    """Seals and opens the frames of one volume, one kind and one purpose.

    Holds key material, so it has no telling repr and cannot be pickled. Stateless besides that: any thread may use it.
    """

    __slots__ = ("_compression", "_current", "_keys", "kind", "volume_id")

    def __init__(
        self,
        *,
        volume_id: bytes,
        kind: Kind,
        subkeys: Mapping[KeyId, bytes],
        current: KeyId,
        compression: Compression,
    ) -> None:
        if len(volume_id) != VOLUME_ID_SIZE:
            raise ValueError(f"volume id of {len(volume_id)} bytes; {VOLUME_ID_SIZE} expected")
        self.volume_id = volume_id
        self.kind = kind
        self._compression = compression
        # For each generation: the key id as it stands in the frame, the additional data up to the place, the cipher.
        self._keys = {
            key_id: (packed := _KEY_ID.pack(key_id), volume_id + bytes((kind,)) + packed, Aead(key))
            for key_id, key in subkeys.items()
        }
        self._current = self._keys[current]

    def seal(self, text: BytesLike, place: bytes, nonce: bytes) -> bytes:
        """The frame of `text`, bound to `place`, under the current generation.

        `nonce` is 24 fresh bytes; the same nonce for two frames would reveal both texts. Frames that are sealed one
        after the other are sealed faster when theirs come from `aead.nonces`.
        """
        packed_id, aad, cipher = self._current
        codec, packed = compress(text, self._compression)
        return b"".join((packed_id, nonce, cipher.seal(nonce, _CODEC_BYTES[codec] + packed, aad + place)))

    def seal_into(self, target: memoryview, room: memoryview, place: bytes, nonce: bytes) -> int:
        """As `seal`, written to the start of `target`; returns the frame's length. Copies nothing that does not shrink.

        `room` is a byte to spare, which is overwritten, and then the text. `target` has room for the text and
        FRAME_OVERHEAD, and does not overlap it.
        """
        packed_id, aad, cipher = self._current
        codec, packed = compress(room[CODEC_SIZE:], self._compression)
        if codec == Codec.NONE:
            room[0] = codec
            plain: BytesLike = room
        else:
            plain = _CODEC_BYTES[codec] + packed
        size = CLEAR_SIZE + len(plain) + aead.TAG_SIZE
        target[:CLEAR_SIZE] = packed_id + nonce
        cipher.seal_into(target[CLEAR_SIZE:size], nonce, plain, aad + place)
        return size

    def open(self, frame: BytesLike, place: bytes, limit: int) -> bytes:
        """As `open_text`, as bytes of its own."""
        text = self.open_text(frame, place, limit)
        return text if isinstance(text, bytes) else bytes(text)

    def open_text(self, frame: BytesLike, place: bytes, limit: int) -> bytes | memoryview:
        """The text of `frame`, at most `limit` bytes; a view where it stands behind its codec byte in what was opened.

        Raises:
            CorruptionError: cut, altered, of another volume, kind or place, sealed under a generation that is not in
                the keyring, or larger than `limit` when opened. Nothing of the text is given away then.
        """
        clear = _clear(frame)
        key_id = _KEY_ID.unpack_from(clear)[0]
        found = self._keys.get(key_id)
        if found is None:
            raise CorruptionError(f"{self.kind.name} frame names key generation {key_id}, which the keyring lacks")
        _, aad, cipher = found
        try:
            packed = memoryview(cipher.open(clear[KEY_ID_SIZE:], memoryview(frame)[CLEAR_SIZE:], aad + place))
            return decompress(packed[0], packed[CODEC_SIZE:], limit)
        except CorruptionError as exc:
            raise CorruptionError(f"{self.kind.name} frame: {exc}") from exc

    def __repr__(self) -> str:
        return f"Sealer({self.kind.name})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a sealer holds keys: it cannot be pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a sealer holds keys: it cannot be pickled or copied")
