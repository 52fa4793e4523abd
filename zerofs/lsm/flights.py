"""Single flight: what somebody is fetching now, so that others wait for it instead of fetching it, too."""

import contextlib
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar, final

import trio

from zerofs.errors import UnavailableError

K = TypeVar("K", bound=Hashable)


@final
class Flight:
    """One fetch, and how it ended."""

    __slots__ = ("_done", "trouble")

    def __init__(self) -> None:
        self._done = trio.Event()
        self.trouble = ""
        """What the store did not answer; the text alone, because an error would keep everything on its way alive."""

    async def ended(self) -> None:
        """Wait for it. What it was for may be in memory then, or not."""
        await self._done.wait()

    def raise_trouble(self) -> None:
        """Raise UnavailableError if the store did not answer: whoever waited has waited long enough."""
        if self.trouble:
            raise UnavailableError(self.trouble)

    def end(self) -> None:
        """Wake those who wait."""
        self._done.set()


class Flights(Generic[K]):
    """By key, the fetches that are under way."""

    def __init__(self) -> None:
        self._coming: dict[K, Flight] = {}

    def __len__(self) -> int:
        """How many keys are being fetched."""
        return len(self._coming)

    def of(self, key: K) -> Flight | None:
        """Who is fetching it."""
        return self._coming.get(key)

    @contextlib.contextmanager
    def fetching(self, keys: Iterable[K], *, unasked: bool = False) -> Iterator[None]:
        """Within the block others find these. `unasked`: nobody wants them yet; who waits then tries himself."""
        flight, keys = Flight(), list(keys)
        self._coming.update(dict.fromkeys(keys, flight))
        try:
            yield
        except UnavailableError as error:
            flight.trouble = "" if unasked else str(error)
            raise
        finally:
            for key in keys:
                if self._coming.get(key) is flight:
                    del self._coming[key]
            flight.end()
