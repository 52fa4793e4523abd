"""Keeping below a rate of bytes: whoever wants to move some waits until those before are paid for."""

import trio


class Throttle:
    """One budget for everybody who asks. `rate_bytes_per_s` 0 lets everything pass."""

    def __init__(self, rate_bytes_per_s: float) -> None:
        self._rate = rate_bytes_per_s
        self._free_at = 0.0

    async def take(self, size_bytes: int) -> None:
        """Return when `size_bytes` may be moved."""
        if self._rate <= 0:
            return
        now = trio.current_time()
        start = max(now, self._free_at)
        self._free_at = start + size_bytes / self._rate
        await trio.sleep(start - now)
