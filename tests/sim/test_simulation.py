"""The simulated life of a volume: a fixed set of seeds, a few fresh ones, and that a run is a function of its seed."""

import os
import random
import re
from pathlib import Path

import pytest

import zerofs.lsm
from zerofs.testing.history import History, SimulationError
from zerofs.testing.simulation import POINTS, live, simulate

FIXED = range(1, 13)

FRESH = int(os.environ.get("ZEROFS_FRESH_SEEDS", "64"))
FRESH_PARTS = 8
"""Tests that share them, so that they run side by side."""

ENGINE = Path(zerofs.lsm.__path__[0])


@pytest.mark.parametrize("seed", FIXED)
def test_a_fixed_seed(seed):
    simulate(seed)


def test_every_named_crash_window_of_the_engine_is_simulated():
    named = re.findall(r'reached\("(\w+)"', "".join(path.read_text() for path in ENGINE.rglob("*.py")))
    assert sorted(named) == sorted(POINTS)


@pytest.mark.parametrize("point", POINTS)
def test_a_life_that_ends_at_a_named_point(point):
    """Whether a seed comes to the point changes with the code; that a few of them do, must not."""
    died_at = []
    for seed in range(1, 21):
        died_at += live(seed, point=point)[1]
        if len(died_at) >= 3:
            break
    assert set(died_at) == {point}


@pytest.mark.parametrize("part", range(FRESH_PARTS))
def test_fresh_seeds(part):
    for seed in [random.SystemRandom().randrange(2**31) for _ in range(part, FRESH, FRESH_PARTS)]:
        try:
            simulate(seed, operations=100)
        except BaseException:
            print(f"replay with: python -m zerofs.testing.simulation --seed {seed} --operations 100")
            raise


def test_the_same_seed_is_the_same_run():
    assert simulate(3) == simulate(3)
    assert simulate(3) != simulate(4)


def test_the_oracle_notices_loss_and_invention():
    history = History(states=[{}, {b"a": b"1"}, {b"a": b"2"}], acknowledged=1)
    with pytest.raises(SimulationError, match="older state"):
        history.settle({})
    with pytest.raises(SimulationError, match="never was"):
        history.settle({b"a": b"3"})
    history.settle({b"a": b"1"})
    assert history.states == [{b"a": b"1"}]
