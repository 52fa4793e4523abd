"""How long to wait awake for the next request, decided from how earlier waits ended. Pure.

Most of what a small FUSE request costs in Python is the way to sleep and back. A program that uses the filesystem sends
its next request within microseconds of the last reply; so a driver asks for it again and again for a short while before
it sleeps. It must stop at once when nobody comes, when it does not pay, and when somebody else wants the core.
"""

FULL_NS = 100_000
"""The longest wait awake: several times the gap between two requests of a program that does nothing else."""

LEAST_NS = 10_000
"""A wait shorter than that gains nothing over sleeping at once."""

QUICK_WAKES = 3
"""So many sleeps in a row that turned out shorter than the full wait make it worth waiting awake again."""

DISTURBED_NS = 300_000
"""A poll(2) of zero seconds that took longer than that: the core, or the interpreter, was wanted by somebody else."""

REST_NS = 50_000_000
"""So long after a disturbance nobody waits awake."""


class Patience:
    """How long to wait awake, decided from how earlier waits ended. Knows no clock: times come in as arguments.

    A hit gives the full wait back; a wait in vain cuts it to a quarter, so two of them are the end of it. From then on
    the sleeps are measured: if they turn out so short that waiting would have paid, waiting starts again.
    """

    __slots__ = ("_quick_wakes", "_rest_until_ns", "budget_ns")

    def __init__(self) -> None:
        self.budget_ns = FULL_NS
        self._quick_wakes = 0
        self._rest_until_ns = 0

    def deadline_ns(self, now_ns: int) -> int:
        """Until when to stay awake; `now_ns` itself for not at all."""
        return now_ns if now_ns < self._rest_until_ns else now_ns + self.budget_ns

    def hit(self) -> None:
        """A request came while we were awake."""
        self.budget_ns = FULL_NS

    def missed(self) -> None:
        """The while is over and no request has come."""
        self.budget_ns //= 4
        if self.budget_ns < LEAST_NS:
            self.budget_ns = 0
        self._quick_wakes = 0

    def slept(self, duration_ns: int) -> None:
        """We slept at once, and this long."""
        if duration_ns >= FULL_NS:
            self._quick_wakes = 0
            return
        self._quick_wakes += 1
        if self._quick_wakes >= QUICK_WAKES:
            self.budget_ns = FULL_NS

    def disturbed(self, now_ns: int) -> None:
        """Somebody else wants the core."""
        self._rest_until_ns = now_ns + REST_NS
