"""Memory that a mount and its sealing process share, divided into slots of one batch each.

    part      size       written by
    sizes     4 * n      the mount: of the texts; then the child: of the frames (u32, little-endian)
    nonces    24 * n     the mount
    texts     1 + size   the mount, one after the other; the byte before each is the child's, for the codec byte
    frames    size       the child, one after the other

A slot belongs to one side at a time; the messages that name it hand it over, and say how large n is.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Self, final

from zerofs.crypto.aead import NONCE_SIZE
from zerofs.ids import KeyId
from zerofs.transform.frame import CLEAR_SIZE, CODEC_SIZE, FRAME_OVERHEAD, Sealer, clear_part
from zerofs.units import KIB, MIB

SLOT_SIZE = 4 * MIB + 512 * KIB
"""A batch of 2 MiB and one more chunk as texts and as frames, and 448 KiB for everything else."""

_SIZE = 4
_OVERHEAD = _SIZE + NONCE_SIZE + CODEC_SIZE + FRAME_OVERHEAD
"""What a chunk takes in a slot besides its text twice, at most."""


@final
class Arena:
    """Both sides have one of the same memory."""

    __slots__ = ("_slots", "_view", "descriptor")

    def __init__(self, descriptor: int) -> None:
        """Map the memory behind a descriptor of `create`'s. The arena owns the descriptor."""
        self.descriptor = descriptor
        self._view = memoryview(mmap.mmap(descriptor, 0))
        self._slots = len(self._view) // SLOT_SIZE

    @classmethod
    def create(cls, slots: int) -> Self:
        """New memory without a name, which nobody can make smaller under our hands."""
        descriptor = os.memfd_create("zerofs-sealing", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, slots * SLOT_SIZE)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @staticmethod
    def holds(texts: Sequence[bytes]) -> bool:
        """Whether one slot is large enough for the texts and any frames of them."""
        return 2 * sum(map(len, texts)) + _OVERHEAD * len(texts) <= SLOT_SIZE

    def put(self, slot: int, texts: Sequence[bytes], nonces: bytes) -> None:
        """Fill a slot with what is to be sealed, which it `holds`."""
        view = self._view
        at = slot * SLOT_SIZE
        head = struct.pack(f"<{len(texts)}I", *map(len, texts)) + nonces
        view[at : at + len(head)] = head
        at += len(head)
        for text in texts:
            at += CODEC_SIZE
            view[at : at + len(text)] = text
            at += len(text)

    def seal(self, slot: int, count: int, sealer: Sealer) -> None:
        """Make the frames of the `count` texts in a slot."""
        view = self._view[slot * SLOT_SIZE : (slot + 1) * SLOT_SIZE]
        sizes = struct.unpack_from(f"<{count}I", view)
        nonces = bytes(view[_SIZE * count : (_SIZE + NONCE_SIZE) * count])
        start = (_SIZE + NONCE_SIZE) * count
        end = first = start + sum(sizes) + CODEC_SIZE * count
        frame_sizes = []
        for number, size in enumerate(sizes):
            nonce = nonces[number * NONCE_SIZE : (number + 1) * NONCE_SIZE]
            room = view[start : start + CODEC_SIZE + size]
            frame_sizes.append(sealer.seal_into(view[end:], room, b"", nonce))
            start += CODEC_SIZE + size
            end += frame_sizes[-1]
        assert start == first, "the texts end where the frames begin"
        struct.pack_into(f"<{count}I", view, 0, *frame_sizes)

    def take(self, slot: int, texts: Sequence[bytes], nonces: bytes, key_id: KeyId) -> list[bytes]:
        """The frames that were made of `texts`. Raises ValueError when they cannot be frames of these.

        What a frame says in clear is looked at: a slot that nobody has sealed holds none, or those of other nonces.
        """
        count = len(texts)
        view = self._view[slot * SLOT_SIZE : (slot + 1) * SLOT_SIZE]
        sizes = struct.unpack_from(f"<{count}I", view)
        if any(not 0 < size <= len(text) + FRAME_OVERHEAD for size, text in zip(sizes, texts, strict=True)):
            raise ValueError("frames of impossible sizes")
        at = (_SIZE + NONCE_SIZE + CODEC_SIZE) * count + sum(map(len, texts))
        frames = []
        for number, size in enumerate(sizes):
            frame = bytes(view[at : at + size])
            if frame[:CLEAR_SIZE] != clear_part(key_id, nonces[number * NONCE_SIZE : (number + 1) * NONCE_SIZE]):
                raise ValueError("frames of other chunks, or none")
            frames.append(frame)
            at += size
        return frames

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last view of it. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
