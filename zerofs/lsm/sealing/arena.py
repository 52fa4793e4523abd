"""Memory that a mount and its sealing process share: slots of texts, slots of the frames made of them, and blocks.

    slot of texts       size       written by
    sizes               4 * n      the mount: of the texts; then the child: of the frames (u32, little-endian)
    starts              4 * n      the mount: where in the arena each text begins (u32)
    nonces              24 * n     the mount
    texts               1 + size   the mount, one after the other; the byte before each is for the child's codec byte

    slot of frames      size       the child, one after the other

    block               whoever it is lent to fills it; texts in it are sealed where they are

A slot belongs to one side at a time; the messages that name it hand it over, and say how large n is. Frames may be used
where they are, without a copy: then their slot is free when nobody has any of them. So is a block when nobody has any
part of it.
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
from zerofs.lsm.chunk import Text
from zerofs.transform.frame import CLEAR_SIZE, CODEC_SIZE, FRAME_OVERHEAD, Sealer, clear_part
from zerofs.units import CHUNK_SIZE, KIB, MIB

LAYOUT = 2
"""Counts changes of what stands above."""

SLOT_SIZE = 2 * MIB + 256 * KIB
"""A batch of 2 MiB and one more chunk, as texts or as frames, and 224 KiB for everything else."""

BLOCK_SIZE = MIB + 4 * KIB
"""The largest request of a kernel, with what stands before its data."""

_SIZE = 4
_HEAD = 2 * _SIZE + NONCE_SIZE
_OVERHEAD = max(_HEAD + CODEC_SIZE, FRAME_OVERHEAD)
"""What a chunk takes in a slot besides its text, at most."""

_Slot = ctypes.c_char * SLOT_SIZE
_Block = ctypes.c_char * BLOCK_SIZE


def is_lent(view: memoryview) -> bool:
    """Whether it is part of a block, so that its bytes stay as they are as long as anybody has it."""
    return type(view.obj) is _Block


@final
class Arena:
    """Both sides have one of the same memory."""

    __slots__ = ("_address", "_blocks_at", "_map", "_scratch", "_view", "descriptor")

    def __init__(self, descriptor: int, slots: int = 0) -> None:
        """Map the memory behind a descriptor of `create`'s. The arena owns the descriptor.

        `slots`: how many come before the blocks; only who lends blocks has to know.
        """
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, 0)
        self._view = memoryview(self._map)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._blocks_at = slots * SLOT_SIZE
        self._scratch = memoryview(bytearray(CODEC_SIZE + CHUNK_SIZE))

    @classmethod
    def create(cls, slots: int, blocks: int = 0) -> Self:
        """New memory without a name, which nobody can make smaller under our hands."""
        descriptor = os.memfd_create("zerofs-sealing", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, slots * SLOT_SIZE + blocks * BLOCK_SIZE)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(descriptor, slots)
        except BaseException:
            os.close(descriptor)
            raise

    @staticmethod
    def holds(texts: Sequence[Text]) -> bool:
        """Whether one slot is large enough for the texts, and another one for any frames of them."""
        return sum(map(len, texts)) + _OVERHEAD * len(texts) <= SLOT_SIZE

    def put(self, slot: int, texts: Sequence[Text], nonces: bytes) -> None:
        """Fill a slot with what is to be sealed, which it `holds`. What is in a block of this arena is not copied."""
        view, count = self._view, len(texts)
        begin = slot * SLOT_SIZE
        at = begin + _HEAD * count
        sizes, starts = [], []
        for text in texts:
            size = len(text)
            start = self._position(text) if isinstance(text, memoryview) else -1
            if start < 0:
                start = at + CODEC_SIZE
                at = start + size
                view[start:at] = text
            sizes.append(size)
            starts.append(start)
        head = struct.pack(f"<{2 * count}I", *sizes, *starts) + nonces
        view[begin : begin + len(head)] = head

    def seal(self, slot: int, target: int, count: int, sealer: Sealer) -> None:
        """Make the frames of the `count` texts of a slot, in the slot `target`."""
        view, frames, memory, scratch = self._slot(slot), self._slot(target), self._view, self._scratch
        numbers = struct.unpack_from(f"<{2 * count}I", view)
        nonces = bytes(view[2 * _SIZE * count : _HEAD * count])
        own, beyond = slot * SLOT_SIZE, (slot + 1) * SLOT_SIZE
        end, frame_sizes = 0, []
        for number in range(count):
            size, start = numbers[number], numbers[count + number]
            if own <= start < beyond:
                room = memory[start - CODEC_SIZE : start + size]
            else:  # what stands before it in its block is somebody else's
                room = scratch[: CODEC_SIZE + size]
                room[CODEC_SIZE:] = memory[start : start + size]
            nonce = nonces[number * NONCE_SIZE : (number + 1) * NONCE_SIZE]
            frame_sizes.append(sealer.seal_into(frames[end:], room, b"", nonce))
            end += frame_sizes[-1]
        struct.pack_into(f"<{count}I", view, 0, *frame_sizes)

    def take(
        self,
        slot: int,
        target: int,
        texts: Sequence[Text],
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
        lent = self._slot(target) if returned is None else self._lend(_Slot, target * SLOT_SIZE, target, returned)
        lent = lent.toreadonly()
        frames: list[bytes | memoryview] = []
        at = 0
        for size in sizes:
            frame = lent[at : at + size]
            frames.append(bytes(frame) if returned is None else frame)
            at += size
        return frames

    def block(self, number: int, returned: Callable[[int], object]) -> memoryview:
        """A block to be filled. `returned` is called, by whatever thread, with `number` when nobody has any part."""
        return self._lend(_Block, self._blocks_at + number * BLOCK_SIZE, number, returned)

    def _slot(self, number: int) -> memoryview:
        return self._view[number * SLOT_SIZE : (number + 1) * SLOT_SIZE]

    def _position(self, text: memoryview) -> int:
        """Where in this arena a text begins that is in one of its blocks; negative for any other."""
        if not text or not is_lent(text):
            return -1
        position = ctypes.addressof(ctypes.c_char.from_buffer(text)) - self._address
        return position if position < len(self._view) else -1

    def _lend(
        self, kind: type[ctypes.Array[ctypes.c_char]], start: int, number: int, returned: Callable[[int], object]
    ) -> memoryview:
        """Part of the memory, by an object of its own that every part of that keeps alive."""
        lent = kind.from_buffer(self._map, start)
        weakref.finalize(lent, returned, number).atexit = False
        return memoryview(lent).cast("B")

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last view of it. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
