"""How long the wait for the next request is awake."""

from hypothesis import given
from hypothesis import strategies as st

from zerofs.frontend.fuse.patience import FULL_NS, QUICK_WAKES, REST_NS, Patience


def test_patience_starts_full_and_gives_up_after_two_vain_waits():
    patience = Patience()
    assert patience.deadline_ns(5) == 5 + FULL_NS
    patience.missed()
    assert 0 < patience.budget_ns < FULL_NS
    patience.missed()
    assert patience.deadline_ns(5) == 5


def test_patience_comes_back_when_sleeps_turn_out_short():
    patience = Patience()
    patience.missed()
    patience.missed()
    for _ in range(QUICK_WAKES - 1):
        patience.slept(FULL_NS // 2)
    patience.slept(FULL_NS * 50)
    assert patience.budget_ns == 0
    for _ in range(QUICK_WAKES):
        patience.slept(FULL_NS // 2)
    assert patience.budget_ns == FULL_NS


def test_patience_rests_after_a_disturbance_whatever_else_happens():
    patience = Patience()
    patience.disturbed(100)
    patience.hit()
    assert patience.deadline_ns(101) == 101
    assert patience.deadline_ns(100 + REST_NS) == 100 + REST_NS + FULL_NS


@given(st.lists(st.sampled_from(["hit", "missed", "short", "long"])))
def test_patience_never_waits_longer_than_the_full_while(events):
    patience = Patience()
    for event in events:
        if event == "short":
            patience.slept(1)
        elif event == "long":
            patience.slept(FULL_NS)
        else:
            getattr(patience, event)()
        assert 0 <= patience.budget_ns <= FULL_NS
        if event == "hit":
            assert patience.budget_ns == FULL_NS
