"""One chunk on its way from a commit to the store, and what the memtable holds for it.

    patched  patch                     waiting for what the patch lies on
    queued   data                      waiting for a thread to compress and seal it
    sealed   data, frame               in the open chunk SST, or about to ride in a WAL object
    placed   data, frame, pointer      the SST that holds it is on its way to the store; or it is in a WAL object
    stored   pointer                   in a chunk SST in the store

Data that is lent is given back as soon as the frame is made; then the frame is all there is until the chunk is stored.
The moves are made by `patcher`, `chunkwriter`, the WAL (placed in a WAL object) and the flusher (from there into an
SST). A chunk whose patch cannot be laid over anything is stored as what was there before.
"""

from typing import final

from zerofs.lsm.format.pointer import IN_SST, Pointer
from zerofs.lsm.patch import Patch

Text = bytes | memoryview
"""The data of a chunk; a view is into memory that the engine has lent (`Engine.lend`), or into what was opened."""

Frame = bytes | memoryview
"""A sealed chunk; some stay where they were made, or in what they were fetched with."""


@final
class Shared:
    """A value for a chunk key: the frame that another key points to. Made by `Engine.shareable`."""

    __slots__ = ("pointer",)

    def __init__(self, pointer: Pointer) -> None:
        self.pointer = pointer


@final
class Chunk:
    """The latest value of one chunk key. Owned by the engine's trio thread."""

    __slots__ = ("data", "dead", "frame", "key", "nonce", "patch", "pointer", "queued", "size", "ticket")

    def __init__(self, key: bytes, data: Text) -> None:
        self.key = key
        self.data: Text | None = data
        self.size = len(data)
        self.patch: Patch | None = None
        """Does not change any more."""
        self.frame: Frame | None = None
        self.nonce = b""
        self.pointer: Pointer | None = None
        self.ticket = 0
        """Position in the chunk writer's queue."""
        self.queued = False
        """In the chunk writer's queue."""
        self.dead = False
        """Overwritten before any cut took it: need not be stored at all."""

    @classmethod
    def at(cls, key: bytes, pointer: Pointer, frame: Frame | None = None) -> "Chunk":
        """A chunk that is in the store already: found in a WAL object at replay."""
        chunk = cls(key, b"")
        chunk.data = None
        chunk.frame = frame
        chunk.point_to(pointer)
        return chunk

    @classmethod
    def patched(cls, key: bytes, patch: Patch) -> "Chunk":
        """A chunk of which only some parts are known; `patch` is its own."""
        chunk = cls(key, b"")
        chunk.data = None
        chunk.size = patch.size
        chunk.patch = patch
        return chunk

    def point_to(self, pointer: Pointer) -> None:
        """It is what the pointer leads to."""
        self.pointer, self.nonce, self.size = pointer, pointer.nonce, pointer.size

    @property
    def is_gone(self) -> bool:
        """Whether it was overwritten before it was sealed: its key has something else now."""
        return self.data is None and self.frame is None and self.pointer is None and self.patch is None

    @property
    def stored(self) -> bool:
        """Whether a chunk SST in the store holds it."""
        return self.frame is None and self.pointer is not None and self.pointer.holder == IN_SST
