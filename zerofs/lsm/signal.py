"""A broadcast: everybody who waits at the moment wakes; whoever waits later waits for the next one."""

import trio


class Signal:
    """Waiters re-check their condition after each wake-up, so a spare notification costs little and harms nothing."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        """Wake everybody who waits now."""
        event, self._event = self._event, trio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait for the next notification."""
        await self._event.wait()
