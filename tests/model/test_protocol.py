"""The protocol holds in every order of its steps, within bounds; and without any of its guards it does not."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import NamedTuple

import pytest

from zerofs.testing.protocol.__main__ import main
from zerofs.testing.protocol.cases import BACKED, GUARDS, MORE, WHOLE
from zerofs.testing.protocol.guards import Guards
from zerofs.testing.protocol.search import explore


def each(cases):
    return [pytest.param(case, id=name, marks=pytest.mark.slow if case.slow else ()) for name, case in cases.items()]


@pytest.mark.parametrize("case", each(WHOLE))
def test_the_protocol_holds(case):
    outcome = case.search()
    assert not outcome.complaint, str(outcome)
    assert outcome.states >= case.states, "the model lost some of its steps"


@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_is_missed(guard):
    outcome = replace(GUARDS[guard], without=(guard,)).search()
    assert GUARDS[guard].complaint in outcome.complaint, str(outcome)
    assert 2 <= len(outcome.trace) <= 25


@pytest.mark.parametrize("case", each(MORE))
def test_guards_are_missed_together_or_in_worse_ways(case):
    outcome = case.search()
    assert case.complaint in outcome.complaint, str(outcome)


@pytest.mark.parametrize("guard", BACKED)
def test_a_guard_that_another_one_backs(guard):
    case = BACKED[guard]
    outcome = replace(case, without=(guard,)).search()
    assert not outcome.complaint, str(outcome)
    assert outcome.states >= case.states


def test_no_guard_is_forgotten():
    assert {field.name for field in fields(Guards)} == GUARDS.keys() | BACKED.keys()


def test_the_ways_can_be_printed(capsys):
    main(["put_id_decides"])
    assert capsys.readouterr().out == (
        "without put_id_decides: after 69 states, 7 steps:\n"
        "   1 W0 reads manifest 1 (epoch 1, mark 0)\n"
        "   2 W0 creates manifest 2 (epoch 2, mark 0)\n"
        "   3 W0 finds manifest 2 not below the floor: it has claimed epoch 2\n"
        "   4 W0 finds WAL 2 free\n"
        "   5 W0 puts its fence as WAL 2\n"
        "   6 W1 appends payload a as WAL 2 and hears nothing: it was refused\n"
        "   7 W1 is refused WAL 2 and takes it for its own: acknowledged\n"
        "  => payload a was acknowledged and is lost\n\n"
    )


# --- the search itself ----------------------------------------------------------------------------------------------


class Counter(NamedTuple):
    value: int
    writers: tuple[tuple[int, int], ...]
    """What each writer read, and how often it wrote."""


class Increments:
    """Writers that read a counter and write one more: an update is lost when two of them read the same."""

    def __init__(self, writers: int, limit: int) -> None:
        self.writers, self.limit = writers, limit

    def start(self) -> Counter:
        return Counter(0, ((-1, 0),) * self.writers)

    def steps(self, state: Counter) -> Iterator[tuple[int, str, Counter]]:
        for i, (read, wrote) in enumerate(state.writers):
            if read < 0 and wrote < self.limit:
                after = (*state.writers[:i], (state.value, wrote), *state.writers[i + 1 :])
                yield i, f"reads {state.value}", Counter(state.value, after)
            elif read >= 0:
                after = (*state.writers[:i], (-1, wrote + 1), *state.writers[i + 1 :])
                yield i, f"writes {read + 1}", Counter(read + 1, after)

    def complaint(self, state: Counter) -> str:
        wrote = sum(wrote for _, wrote in state.writers)
        return "" if wrote == state.value else f"{wrote} writes made {state.value}"


def test_the_shortest_way_is_found_and_names_each_writer_by_one_name():
    outcome = explore(Increments(writers=2, limit=2))
    assert outcome.complaint == "2 writes made 1"
    readers, writers = outcome.trace[:2], outcome.trace[2:]
    assert sorted(readers) == ["W0 reads 0", "W1 reads 0"]
    assert sorted(writers) == ["W0 writes 1", "W1 writes 1"]


def test_a_search_without_complaint_is_complete():
    outcome = explore(Increments(writers=1, limit=3))
    assert (outcome.states, outcome.depth, outcome.complaint) == (7, 6, "")


def test_a_search_that_is_too_wide_says_so():
    with pytest.raises(OverflowError):
        explore(Increments(writers=1, limit=100), limit=50)
