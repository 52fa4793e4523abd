"""The wait for the next request, with a clock and a poll(2) of our own: what ends it, and what it teaches."""

import types

import pytest

from tests.unit.frontend.fuse.native.kernel import Kernel
from zerofs.frontend.fuse.native.server import Server
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.frontend.fuse.patience import DISTURBED_NS, SHORT_NS, Patience
from zerofs.world import World


class Clock(World):
    """Moves by `step_ns` whenever it is read."""

    def __init__(self, step_ns):
        super().__init__()
        self.now_, self.step_ns, self.switched, self.is_busy = 1_000_000_000, step_ns, 0, False

    def monotonic_ns(self):
        self.now_ += self.step_ns
        return self.now_

    def switches(self):
        self.switched += self.is_busy
        return self.switched


class Noting(Patience):
    """Tells what it was told."""

    def __init__(self):
        super().__init__()
        self.learned = []

    def hit(self, gap_ns):
        self.learned.append(("hit", gap_ns))

    def missed(self):
        self.learned.append(("missed",))

    def disturbed(self, now_ns):
        self.learned.append(("disturbed",))


@pytest.fixture
def make():
    kernels = []

    def made(clock, comes_after):
        """A server that begins to wait; the request comes at a later poll."""
        kernels.append(Kernel())
        server = Server(None, kernels[-1].descriptor, FuseOptions(), clock)
        polls = iter(range(1_000_000))
        server._poll = types.SimpleNamespace(poll=lambda _: next(polls) >= comes_after)
        server._began_ns = clock.now_
        server._patience = Noting()
        return server, server._patience.learned

    yield made
    for kernel in kernels:
        kernel.close()


async def test_a_request_that_comes_is_a_hit_and_its_gap_is_known(make):
    clock = Clock(step_ns=1_000)
    server, learned = make(clock, comes_after=40)
    began_ns = clock.now_
    assert await server._awake()
    ((what, gap_ns),) = learned
    assert what == "hit"
    assert 0 < gap_ns <= clock.now_ - began_ns


async def test_nobody_comes(make):
    clock = Clock(step_ns=1_000)
    server, learned = make(clock, comes_after=1_000_000)
    began_ns = clock.now_
    assert not await server._awake()
    assert learned == [("missed",)]
    assert clock.now_ - began_ns < 2 * SHORT_NS


async def test_nobody_comes_while_somebody_waits_for_us(make):
    server, learned = make(Clock(step_ns=1_000), comes_after=1_000_000)
    server._waiting = 1
    assert not await server._awake()
    assert learned == [("missed",)]


async def test_a_request_that_comes_while_others_have_their_turn_is_seen(make):
    clock = Clock(step_ns=1_000)
    server, learned = make(clock, comes_after=4)
    server._yield_at_ns = 0

    async def take_long():
        clock.now_ += 10 * SHORT_NS

    server._yield = take_long
    assert await server._awake()
    assert learned[0][0] == "hit"


async def test_who_was_answered_meanwhile_is_waited_for_anew(make):
    clock = Clock(step_ns=1_000)
    server, learned = make(clock, comes_after=200)
    server._waiting = 1
    turns = []

    async def answer_somebody():
        turns.append(clock.now_)
        server._began_ns = clock.now_ = clock.now_ + SHORT_NS // 2

    server._yield = answer_somebody
    assert await server._awake()
    assert len(turns) > 10  # far more than one wait is long
    assert learned[0][0] == "hit"
    assert learned[0][1] < SHORT_NS // 2


@pytest.mark.parametrize("is_busy", [True, False])
async def test_a_poll_that_takes_long_ends_the_wait_only_if_somebody_else_had_the_core(make, is_busy):
    clock = Clock(step_ns=DISTURBED_NS + 1)
    clock.is_busy = is_busy
    server, learned = make(clock, comes_after=6)
    server._yield_at_ns = clock.now_ * 2
    server._switched = clock.switched
    assert await server._awake() is not is_busy
    assert [what for what, *_ in learned] == (["disturbed"] if is_busy else ["hit"])
