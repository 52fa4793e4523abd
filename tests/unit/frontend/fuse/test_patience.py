"""How long the wait for the next request is awake."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.frontend.fuse.patience import (
    APART_MOST,
    LONG_NS,
    LONG_SAMPLES,
    PAUSE_NS,
    QUICK_WAKES,
    REST_NS,
    SAMPLE,
    SHORT_NS,
    WINS,
    Patience,
)


def test_patience_starts_full_and_gives_up_after_two_vain_waits():
    patience = Patience()
    assert patience.deadline_ns(5) == 5 + SHORT_NS
    patience.missed()
    assert 0 < patience.budget_ns < SHORT_NS
    patience.missed()
    assert patience.deadline_ns(5) == 5


def test_patience_comes_back_when_sleeps_turn_out_short():
    patience = Patience()
    patience.missed()
    patience.missed()
    for _ in range(QUICK_WAKES - 1):
        patience.slept(SHORT_NS // 2)
    patience.slept(SHORT_NS * 50)
    assert patience.budget_ns == 0
    for _ in range(QUICK_WAKES):
        patience.slept(SHORT_NS // 2)
    assert patience.budget_ns == SHORT_NS


def test_patience_rests_after_a_disturbance_whatever_else_happens():
    patience = Patience()
    patience.disturbed(100)
    patience.hit(10)
    assert patience.deadline_ns(101) == 101
    assert patience.deadline_ns(100 + REST_NS) == 100 + REST_NS + SHORT_NS


class Machine:
    """A program that asks again `think_ns` after each answer; whoever sleeps is woken after `wake_ns`."""

    def __init__(self, patience, think_ns, wake_ns):
        self.patience, self.think_ns, self.wake_ns = patience, think_ns, wake_ns
        self.awake_ns = 0
        self.was_slow = True

    def ask(self):
        """One request. A program whose answer comes late is asleep by then, too."""
        patience = self.patience
        think_ns = self.think_ns() if callable(self.think_ns) else self.think_ns
        comes_ns = think_ns + (self.wake_ns if self.was_slow else 0)
        self.was_slow = comes_ns > patience.budget_ns
        self.awake_ns += min(comes_ns, patience.budget_ns)
        if not self.was_slow:
            patience.hit(comes_ns)
            return
        if patience.budget_ns:
            patience.missed()
        patience.slept(comes_ns + self.wake_ns)


def phases(machine, requests):
    """The full wait after each of so many requests, without repetitions."""
    seen = []
    for _ in range(requests):
        machine.ask()
        seen.append(machine.patience.full_ns)
    return [full_ns for full_ns, _ in itertools.groupby(seen)]


def with_pauses(think_ns, every):
    """Now and then it has something else to do."""
    numbers = itertools.count()
    return lambda: 5 * PAUSE_NS if next(numbers) % every == 0 else think_ns


def test_where_waking_is_slow_the_long_wait_is_tried_and_stays():
    machine = Machine(Patience(), think_ns=with_pauses(20_000, every=100), wake_ns=150_000)
    assert phases(machine, 20 * SAMPLE) == [SHORT_NS, *[LONG_NS, SHORT_NS] * (WINS - 1), LONG_NS]
    machine.think_ns, machine.awake_ns = 20_000, 0
    for _ in range(SAMPLE):
        machine.ask()
    assert machine.awake_ns == SAMPLE * 20_000


@pytest.mark.parametrize(
    "think_ns",
    [
        lambda dice: 20_000 if dice.random() < 0.75 else dice.uniform(100_000, 1_000_000),
        lambda dice: 30_000 if dice.random() < 0.7 else dice.expovariate(1 / 500_000),
        lambda dice: dice.expovariate(1 / 200_000),
    ],
    ids=["seldom", "now and then", "always"],
)
def test_a_program_that_thinks_for_times_that_vary_does_not_cause_the_long_wait(think_ns):
    dice = random.Random(7)
    machine = Machine(Patience(), think_ns=lambda: think_ns(dice), wake_ns=5_000)
    long = 0
    for _ in range(200_000):
        machine.ask()
        long += machine.patience.full_ns == LONG_NS
    assert long < 10_000


def test_where_waking_is_fast_the_long_wait_does_not_stay_and_is_tried_ever_more_seldom():
    machine = Machine(Patience(), think_ns=300_000, wake_ns=5_000)
    requests = 4 * APART_MOST * SAMPLE
    found = phases(machine, requests)
    assert found[:4] == [SHORT_NS, LONG_NS, SHORT_NS, LONG_NS]
    assert len(found) < 30
    assert machine.awake_ns < 0.05 * requests * 300_000


def test_a_program_that_asks_at_once_gets_no_trial():
    machine = Machine(Patience(), think_ns=20_000, wake_ns=5_000)
    assert phases(machine, 10 * SAMPLE) == [SHORT_NS]


def test_pauses_between_bursts_do_not_count():
    patience = Patience()
    for _ in range(10 * SAMPLE):
        patience.slept(PAUSE_NS)
    assert patience.full_ns == SHORT_NS


def test_the_long_wait_is_compared_again_after_a_while():
    machine = Machine(Patience(), think_ns=with_pauses(20_000, every=100), wake_ns=150_000)
    phases(machine, 20 * SAMPLE)
    assert machine.patience.full_ns == LONG_NS
    machine.wake_ns, machine.think_ns = 1_000, 350_000  # another program, which thinks
    assert phases(machine, (LONG_SAMPLES + 4) * SAMPLE)[:2] == [LONG_NS, SHORT_NS]


def test_a_trial_that_was_disturbed_says_nothing():
    patience = Patience()
    for _ in range(SAMPLE):
        patience.slept(300_000)
    assert patience.full_ns == LONG_NS
    patience.disturbed(7)
    assert patience.full_ns == SHORT_NS
    for _ in range(SAMPLE):
        patience.slept(300_000)
    assert patience.full_ns == LONG_NS


@given(st.lists(st.sampled_from(["hit", "missed", "short", "long"]), max_size=500))
def test_patience_never_waits_longer_than_the_full_while(events):
    patience = Patience()
    for event in events:
        if event == "short":
            patience.slept(1)
        elif event == "long":
            patience.slept(LONG_NS)
        elif event == "hit":
            patience.hit(SHORT_NS)
        else:
            patience.missed()
        assert 0 <= patience.budget_ns <= patience.full_ns <= LONG_NS
        if event == "hit":
            assert patience.budget_ns == patience.full_ns
