"""The mint of SST names of one writer: unique because the epoch is ours and the counter only grows."""

from zerofs.lsm.format.names import SstId


class SstNames:
    """Names for new SSTs of both families, and which of them are not in a manifest or WAL object yet."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._next_counter = 1

    def mint(self) -> SstId:
        """A name that was never used."""
        counter = self._next_counter
        self._next_counter += 1
        return self.epoch, counter
