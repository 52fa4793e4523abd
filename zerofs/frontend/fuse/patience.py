"""How long to wait awake for the next request, decided from how earlier waits ended. Pure.

Most of what a small FUSE request costs in Python is the way to sleep and back. A program that uses the filesystem sends
its next request within microseconds of the last reply; so a driver asks for it again and again for a short while before
it sleeps. It must stop at once when nobody comes, when it does not pay, and when somebody else wants the core.

How short the while may be depends on the machine. Where a sleeping core is woken within microseconds, so is the program
that gets a reply. In many virtual machines that takes a hundred, for the program and then for us; then a longer wait
saves most of the time between two requests. Nothing tells but trials: so many requests with the short wait, as many
with the long one. The long one stays if the gaps became much shorter, several times in a row: programs think for times
that vary, too.
"""

from enum import Enum, auto

SHORT_NS = 100_000
"""The longest wait awake as a rule: several times the gap between two requests of a program that does nothing else."""

LONG_NS = 400_000
"""The same where programs are woken slowly."""

LONG_QUICK_NS = 800_000
"""Shorter than that were sleeps of which each half was a wake-up."""

LEAST_NS = 10_000
"""A wait shorter than that gains nothing over sleeping at once."""

QUICK_WAKES = 3
"""So many quick sleeps in a row make it worth waiting awake again."""

DISTURBED_NS = 300_000
"""A poll(2) of zero seconds took longer than that, and the thread lost its core meanwhile: to somebody else who wants
it, or to whoever has the interpreter. If it did not, the whole machine stood still, as virtual ones do."""

REST_NS = 50_000_000
"""So long after a disturbance nobody waits awake."""

PAUSE_NS = 1_000_000
"""After a gap like this nobody was in a hurry: it says nothing about the long wait."""

SAMPLE = 64
"""Requests of which the gaps are added up, to be compared with as many others."""

SLEPT_LEAST = SAMPLE // 4
"""With fewer sleeps among them there is little to gain."""

WORTH = 0.6
"""The long wait must make the gaps that much of what they were."""

WINS = 3
"""So often, one trial after the other."""

LONG_SAMPLES = 256
"""So long the long wait stays before it is compared again."""

APART_MOST = 256
"""Samples between two trials, at most: twice as many after each that was in vain."""


class _Phase(Enum):
    SHORT = auto()
    TRIAL = auto()
    LONG = auto()


class Patience:
    """How long to wait awake, decided from how earlier waits ended. Knows no clock: times come in as arguments.

    A hit gives the full wait back; a wait in vain cuts it to a quarter, so that three at most are the end of it. From
    then on the sleeps are measured: if they turn out so short that waiting would have paid, waiting starts again.

    `gap_ns`, of a request: from when we began to wait for it until it came.
    """

    __slots__ = (
        "_apart",
        "_count",
        "_left",
        "_phase",
        "_quick_wakes",
        "_rest_until_ns",
        "_slept",
        "_sum_ns",
        "_usual_ns",
        "_wins",
        "budget_ns",
        "full_ns",
        "quick_ns",
    )

    def __init__(self) -> None:
        self.full_ns = SHORT_NS
        self.quick_ns = SHORT_NS
        """A sleep shorter than this is quick. Where waking takes so long, so does a quick one."""
        self.budget_ns = SHORT_NS
        self._quick_wakes = 0
        self._rest_until_ns = 0
        self._sum_ns = self._count = self._slept = 0
        self._usual_ns = 0
        """Of the sample before a trial."""
        self._phase = _Phase.SHORT
        self._left = 1
        """Samples until the phase may end."""
        self._apart = 1
        self._wins = 0
        """Trials in a row in which the long wait was worth it."""

    def deadline_ns(self, now_ns: int) -> int:
        """Until when to stay awake; `now_ns` itself for not at all."""
        return now_ns if now_ns < self._rest_until_ns else now_ns + self.budget_ns

    def hit(self, gap_ns: int) -> None:
        """A request came while we were awake."""
        self.budget_ns = self.full_ns
        self._note(gap_ns, slept=False)

    def missed(self) -> None:
        """The while is over and no request has come."""
        self.budget_ns //= 4
        if self.budget_ns < LEAST_NS:
            self.budget_ns = 0
        self._quick_wakes = 0

    def slept(self, gap_ns: int) -> None:
        """We slept until the request came, from the beginning or after a while in vain."""
        if gap_ns >= self.quick_ns:
            self._quick_wakes = 0
        else:
            self._quick_wakes += 1
            if self._quick_wakes >= QUICK_WAKES:
                self.budget_ns = self.full_ns
        self._note(gap_ns, slept=True)

    def disturbed(self, now_ns: int) -> None:
        """Somebody else wants the core."""
        self._rest_until_ns = now_ns + REST_NS
        if self._phase is _Phase.TRIAL:
            self._begin(_Phase.SHORT, 1)  # it would say nothing

    def _note(self, gap_ns: int, *, slept: bool) -> None:
        if gap_ns >= PAUSE_NS:
            return
        self._sum_ns += gap_ns
        self._count += 1
        self._slept += slept
        if self._count >= SAMPLE:
            self._judge()
            self._sum_ns = self._count = self._slept = 0

    def _judge(self) -> None:
        """A sample is complete."""
        if self._phase is _Phase.TRIAL:
            if self._sum_ns > WORTH * self._usual_ns:
                self._wins = 0
                self._begin(_Phase.SHORT, self._apart)
                self._apart = min(2 * self._apart, APART_MOST)
                return
            self._wins += 1
            if self._wins < WINS:
                self._begin(_Phase.SHORT, 1)
            else:
                self._wins, self._apart = 0, 1
                self._begin(_Phase.LONG, LONG_SAMPLES)
        elif self._phase is _Phase.LONG:
            self._left -= 1
            if not self._left:
                self._begin(_Phase.SHORT, 1)
        elif self._slept >= SLEPT_LEAST:
            self._left -= 1
            if not self._left:
                self._usual_ns = self._sum_ns
                self._begin(_Phase.TRIAL, 1)

    def _begin(self, phase: _Phase, samples: int) -> None:
        self._phase, self._left = phase, samples
        self._sum_ns = self._count = self._slept = 0
        is_short = phase is _Phase.SHORT
        self.full_ns = self.budget_ns = SHORT_NS if is_short else LONG_NS
        self.quick_ns = SHORT_NS if is_short else LONG_QUICK_NS
