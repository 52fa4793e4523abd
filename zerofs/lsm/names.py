"""The mint of SST names of one writer, and which SSTs the collector must leave alone though no version lists them.

A name is in flight from the mint until whoever minted it says that it is settled. A chunk SST is held on top of that:
pointers to it may stand in memtables and WAL objects, which no version knows. It is held until a flush has covered
every memtable that was active up to the end of its upload (decision 0010).
"""

from collections.abc import Iterable

from zerofs.lsm.format.names import SstId


class SstNames:
    """Unique names: the epoch is ours, and the counter only grows. Nothing here awaits."""

    def __init__(self, epoch: int, held: Iterable[SstId] = ()) -> None:
        """`held`: chunk SSTs that replayed WAL objects point to; held until the first flush."""
        self.epoch = epoch
        self._next_counter = 1
        self._in_flight: set[SstId] = set()
        self.generation = 0
        """Number of the active memtable."""
        self._held = dict.fromkeys(held, 0)
        """The newest generation whose memtable may point to the SST."""
        self.sizes: dict[SstId, int] = {}
        """Frame bytes of chunk SSTs that have no register yet."""

    def mint(self) -> SstId:
        """A name that was never used; it is in flight."""
        sst = self.epoch, self._next_counter
        self._next_counter += 1
        self._in_flight.add(sst)
        return sst

    def settle(self, ssts: Iterable[SstId]) -> None:
        """A version lists them, or nobody ever will."""
        self._in_flight.difference_update(ssts)

    def stored(self, sst: SstId, size_bytes: int) -> None:
        """A chunk SST is in the store: from in flight to held."""
        self.sizes[sst] = size_bytes
        self.hold(sst)
        self._in_flight.discard(sst)

    def hold(self, sst: SstId) -> None:
        """A row of the active memtable, or of an older one, points into this chunk SST."""
        self._held[sst] = self.generation

    def freeze(self) -> int:
        """The active memtable was frozen: its generation, to be given to `flushed`."""
        self.generation += 1
        return self.generation - 1

    def flushed(self, generation: int) -> None:
        """Whatever the memtables up to this generation point to stands in the current version."""
        for sst in [sst for sst, newest in self._held.items() if newest <= generation]:
            del self._held[sst]
            self.sizes.pop(sst, None)

    def protected(self) -> frozenset[SstId]:
        """The SSTs that are in flight or held now."""
        return frozenset(self._in_flight) | self._held.keys()
