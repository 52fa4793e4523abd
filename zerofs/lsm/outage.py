"""Whether the store answers: since when it does not, and why. Decides nothing; the engine does that.

Two things are an outage: an attempt that failed, until one succeeds; and an attempt that is not answered at all for
longer than a slow line explains, because a frozen server keeps a request for as long as the client waits.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from zerofs.telemetry.metrics import Metrics
from zerofs.units import KIB

SILENCE_S = 5.0
"""A small request that is not answered for so long is an outage."""

SLOW_BYTES_PER_S = 128 * KIB
"""Bodies that are on their way get so much more time: one megabit a second is slow, not silent."""


class Outage:
    """The present one, if there is any. Owned by the storage of one engine; times are trio's, in seconds."""

    __slots__ = ("_answered_s", "_asked", "_failed_s", "_look_at_s", "_metrics", "_reason", "failures")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._reason = ""
        self._failed_s = 0.0
        self._answered_s = -float("inf")
        self._look_at_s = 0.0
        """Nothing that is asked now can be answered too late before that."""
        self._asked: dict[object, tuple[float, int, str]] = {}
        """What is not answered yet: when it was asked, how large its body is, and what it is."""
        self.failures = 0
        """How many attempts have failed so far."""

    @property
    def reason(self) -> str:
        """Why the store does not take our objects; empty when it does."""
        if self._reason:
            return self._reason
        silent = self._silent()
        return "" if silent is None else f"no answer to {silent[1]} for {trio.current_time() - silent[0]:.0f} s"

    @property
    def age_s(self) -> float | None:
        """How long it lasts already; None when there is none."""
        if self._reason:
            return trio.current_time() - self._failed_s
        silent = self._silent()
        return None if silent is None else trio.current_time() - silent[0]

    @property
    def is_quiet(self) -> bool:
        """Whether there is none. Asked for at every change, so it is not looked at before one can have begun."""
        if self._reason:
            return False
        if not self._asked or trio.current_time() < self._look_at_s:
            return True
        oldest_s = min(asked_s for asked_s, _, _ in self._asked.values())
        self._look_at_s = max(oldest_s, self._answered_s) + SILENCE_S
        return self._silent() is None

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt failed: a silence alone has not, yet."""
        return bool(self._reason)

    def _silent(self) -> tuple[float, str] | None:
        """The oldest question that should have been answered: since when the store is silent, and what was asked."""
        if not self._asked:
            return None
        # All bodies share one line.
        patience_s = SILENCE_S + sum(size for _, size, _ in self._asked.values()) / SLOW_BYTES_PER_S
        since_s, what = min((max(asked_s, self._answered_s), what) for asked_s, _, what in self._asked.values())
        return (since_s, what) if trio.current_time() - since_s > patience_s else None

    @contextmanager
    def question(self, what: str, body_size_bytes: int = 0) -> Iterator[None]:
        """Within the block the store is asked, and silent if that takes long."""
        token, now_s = object(), trio.current_time()
        if not self._asked:
            self._look_at_s = now_s + SILENCE_S
        self._asked[token] = (now_s, body_size_bytes, what)
        try:
            yield
        finally:
            del self._asked[token]

    def failed(self, reason: str, asked_s: float, body_size_bytes: int = 0) -> None:
        """An attempt that was begun at `asked_s` failed. The time that its body may take on its way is no outage."""
        self.failures += 1
        if not self._reason:
            sent_s = min(trio.current_time(), asked_s + body_size_bytes // SLOW_BYTES_PER_S)
            self._failed_s = max(sent_s, self._answered_s)
            self._metrics.add("outages_total")
        self._reason = reason

    def ended(self) -> None:
        """The store answers."""
        self._answered_s = trio.current_time()
        self._reason = ""
