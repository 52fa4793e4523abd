"""One chunk on its way from a commit to the store, and what the memtable holds for it.

    queued   data                      waiting for a thread to compress and seal it
    sealed   data, frame               in the open chunk SST, or about to ride in a WAL object
    placed   data, frame, pointer      the SST that holds it is on its way to the store; or it is in a WAL object
    stored   pointer                   in a chunk SST in the store

Data that is lent is given back as soon as the frame is made; then the frame is all there is until the chunk is stored.
The moves are made by `chunkwriter`, the WAL (placed in a WAL object) and the flusher (from there into an SST).
"""

from typing import final

from zerofs.lsm.format.pointer import IN_SST, Pointer

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

    __slots__ = ("data", "dead", "frame", "key", "nonce", "pointer", "queued", "size", "ticket")

    def __init__(self, key: bytes, data: Text) -> None:
        self.key = key
        self.data: Text | None = data
        self.size = len(data)
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
        chunk.size = pointer.size
        chunk.frame = frame
        chunk.nonce = pointer.nonce
        chunk.pointer = pointer
        return chunk

    @property
    def is_gone(self) -> bool:
        """Whether it was overwritten before it was sealed: its key has something else now."""
        return self.data is None and self.frame is None and self.pointer is None

    @property
    def stored(self) -> bool:
        """Whether a chunk SST in the store holds it."""
        return self.frame is None and self.pointer is not None and self.pointer.holder == IN_SST
