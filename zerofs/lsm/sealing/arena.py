"""Memory that a mount and its sealing process share, divided into slots: of texts, and of the frames made of them.

    slot of texts       size       written by
    sizes               4 * n      the mount: of the texts; then the child: of the frames (u32, little-endian)
    nonces              24 * n     the mount
    texts               1 + size   the mount, one after the other; the byte before each is for the child's codec byte

    slot of frames      size       the child, one after the other

A slot belongs to one side at a time; the messages that name it hand it over, and say how large n is. Frames may be used
where they are, without a copy: then their slot is free when nobody has any of them.
"""

import ctypes
import fcntl
import mmap
import os
import struct
import weakref
from collections.abc import Callable, Sequence
from typing import Self, final

from zerofs.crypto.aead import NONCE_SIZE
from zerofs.ids import KeyId
from zerofs.transform.frame import CLEAR_SIZE, CODEC_SIZE, FRAME_OVERHEAD, Sealer, clear_part
from zerofs.units import KIB, MIB

SLOT_SIZE = 2 * MIB + 256 * KIB
"""A batch of 2 MiB and one more chunk, as texts or as frames, and 224 KiB for everything else."""

_SIZE = 4
_OVERHEAD = max(_SIZE + NONCE_SIZE + CODEC_SIZE, FRAME_OVERHEAD)
"""What a chunk takes in a slot besides its text, at most."""


@final
class Arena:
    """Both sides have one of the same memory."""

    __slots__ = ("_map", "_view", "descriptor")

    def __init__(self, descriptor: int) -> None:
        """Map the memory behind a descriptor of `create`'s. The arena owns the descriptor."""
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, 0)
        self._view = memoryview(self._map)

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
        """Whether one slot is large enough for the texts, and another one for any frames of them."""
        return sum(map(len, texts)) + _OVERHEAD * len(texts) <= SLOT_SIZE

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

    def seal(self, slot: int, target: int, count: int, sealer: Sealer) -> None:
        """Make the frames of the `count` texts in a slot, in the slot `target`."""
        view, frames = self._slot(slot), self._slot(target)
        sizes = struct.unpack_from(f"<{count}I", view)
        nonces = bytes(view[_SIZE * count : (_SIZE + NONCE_SIZE) * count])
        start, end = (_SIZE + NONCE_SIZE) * count, 0
        frame_sizes = []
        for number, size in enumerate(sizes):
            nonce = nonces[number * NONCE_SIZE : (number + 1) * NONCE_SIZE]
            room = view[start : start + CODEC_SIZE + size]
            frame_sizes.append(sealer.seal_into(frames[end:], room, b"", nonce))
            start += CODEC_SIZE + size
            end += frame_sizes[-1]
        struct.pack_into(f"<{count}I", view, 0, *frame_sizes)

    def take(
        self,
        slot: int,
        target: int,
        texts: Sequence[bytes],
        nonces: bytes,
        key_id: KeyId,
        returned: Callable[[int], object] | None = None,
    ) -> list[bytes | memoryview]:
        """The frames that were made of `texts`. Raises ValueError when they cannot be frames of these.

        With `returned` they are not copied: it is called, by whatever thread, with `target` when none is in use any
        more. What a frame says in clear is looked at: a slot that nobody has sealed holds none, or others.
        """
        count = len(texts)
        sizes = struct.unpack_from(f"<{count}I", self._slot(slot))
        if any(not 0 < size <= len(text) + FRAME_OVERHEAD for size, text in zip(sizes, texts, strict=True)):
            raise ValueError("frames of impossible sizes")
        view, at = self._slot(target), 0
        for number, size in enumerate(sizes):
            expected = clear_part(key_id, nonces[number * NONCE_SIZE : (number + 1) * NONCE_SIZE])
            if view[at : at + CLEAR_SIZE] != expected:
                raise ValueError("frames of other chunks, or none")
            at += size
        lent = self._slot(target) if returned is None else self._lend(target, returned)
        frames: list[bytes | memoryview] = []
        at = 0
        for size in sizes:
            frame = lent[at : at + size]
            frames.append(bytes(frame) if returned is None else frame)
            at += size
        return frames

    def _slot(self, number: int) -> memoryview:
        return self._view[number * SLOT_SIZE : (number + 1) * SLOT_SIZE]

    def _lend(self, number: int, returned: Callable[[int], object]) -> memoryview:
        """A slot, by an object of its own that every part of it keeps alive."""
        lent = (ctypes.c_char * SLOT_SIZE).from_buffer(self._map, number * SLOT_SIZE)
        weakref.finalize(lent, returned, number).atexit = False
        return memoryview(lent).cast("B").toreadonly()

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last view of it. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
