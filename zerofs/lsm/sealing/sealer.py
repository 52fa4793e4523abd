"""Who seals batches of chunks: the port, and the threads that always can."""

from collections.abc import Sequence
from typing import Protocol

from zerofs.lsm.chunk import Frame, Text
from zerofs.lsm.sealing.work import seal_chunks
from zerofs.transform.frame import Sealer
from zerofs.world import Lane, World


class ChunkSealer(Protocol):
    """Makes frames of chunks, for any number of callers at a time."""

    async def seal(self, texts: Sequence[Text], nonces: bytes) -> Sequence[Frame]:
        """A frame for each of `texts`, in their order. `nonces`: as many fresh nonces, joined."""
        ...

    def lend(self, size_bytes: int) -> memoryview | None:
        """Memory of at least that size, to be filled, whose parts are sealed without a copy; None when there is none.

        Whoever has filled it must not change it any more. It is used again when nobody has any part of it.
        """
        ...


class ThreadSealer:
    """Seals in the threads of its world."""

    def __init__(self, world: World, sealer: Sealer) -> None:
        self._world = world
        self._sealer = sealer

    async def seal(self, texts: Sequence[Text], nonces: bytes) -> Sequence[Frame]:
        """See ChunkSealer."""
        return await self._world.offload(Lane.CPU, seal_chunks, self._sealer, texts, nonces)

    def lend(self, size_bytes: int) -> memoryview | None:
        """See ChunkSealer. A thread seals nothing where it is."""
        del size_bytes
        return None
