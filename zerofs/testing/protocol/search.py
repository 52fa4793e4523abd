"""Breadth-first search through all states of a model, and the shortest way to one that must not be.

The writers of a model are interchangeable, so two states that differ only in the order of their writers are one. That
is why the names of the writers are worked out again when a way is told.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar


class StateLike(Protocol):
    """A named tuple, hashable; the writers are one part of it and have an order."""

    @property
    def writers(self) -> tuple[Any, ...]:
        """One tuple for each writer."""
        ...

    def _replace(self, *, writers: tuple[Any, ...]) -> Self: ...


State = TypeVar("State", bound=StateLike)


class Model(Protocol[State]):
    """What can happen, and what must not."""

    def start(self) -> State:
        """The first state."""
        ...

    def steps(self, state: State) -> Iterator[tuple[int, str, State]]:
        """Whatever can happen next: to which writer (-1: to none), in words, and the state afterwards."""
        ...

    def complaint(self, state: State) -> str:
        """What is wrong in this state; empty if nothing."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Outcome:
    """Of one search. Without a complaint it visited every state within the model's bounds."""

    states: int
    depth: int
    """Steps to the farthest of them."""
    complaint: str = ""
    trace: tuple[str, ...] = ()
    """The steps from the first state to the one that was complained about."""

    def __str__(self) -> str:
        if not self.complaint:
            return f"{self.states} states, up to {self.depth} steps away: nothing to complain about"
        steps = [f"{number:4} {step}" for number, step in enumerate(self.trace, 1)]
        return "\n".join([f"after {self.states} states, {len(steps)} steps:", *steps, f"  => {self.complaint}"])


def explore(model: Model[State], limit: int = 5_000_000) -> Outcome:
    """Visit every state that can be reached, the nearest first, until one is complained about.

    Raises OverflowError beyond `limit` states: the model's bounds are too wide to search them all.
    """
    level = [_arranged(model.start())]
    came_from: dict[State, State | None] = {level[0]: None}
    depth = 0
    while level:
        following: list[State] = []
        for state in level:
            for _, _, reached in model.steps(state):
                after = _arranged(reached)
                if after in came_from:
                    continue
                came_from[after] = state
                following.append(after)
                complaint = model.complaint(after)
                if complaint:
                    trace = tuple(_told(model, _way_to(after, came_from)))
                    return Outcome(states=len(came_from), depth=depth + 1, complaint=complaint, trace=trace)
        if len(came_from) > limit:
            raise OverflowError(f"more than {limit} states, {depth + 1} steps away")
        depth += bool(following)
        level = following
    return Outcome(states=len(came_from), depth=depth)


def _arranged(state: State) -> State:
    writers = tuple(sorted(state.writers))
    return state if writers == state.writers else state._replace(writers=writers)


def _way_to(state: State, came_from: dict[State, State | None]) -> list[State]:
    way = [state]
    while (before := came_from[way[-1]]) is not None:
        way.append(before)
    return way[::-1]


def _told(model: Model[State], way: list[State]) -> Iterator[str]:
    names = list(range(len(way[0].writers)))
    for before, after in itertools.pairwise(way):
        writer, what, reached = next(step for step in model.steps(before) if _arranged(step[2]) == after)
        yield what if writer < 0 else f"W{names[writer]} {what}"
        names = [names[i] for i in sorted(range(len(names)), key=reached.writers.__getitem__)]
