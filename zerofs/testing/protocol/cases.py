"""What is searched: the whole protocol, within bounds; and what is left without a guard, in bounds where that shows.

A search without a guard ends at the first complaint, so its bounds only have to be wide enough.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zerofs.testing.protocol.collection import Collection
from zerofs.testing.protocol.guards import Guards
from zerofs.testing.protocol.search import Model, Outcome, explore
from zerofs.testing.protocol.takeover import Takeover


@dataclass(slots=True, frozen=True, kw_only=True)
class Case:
    """One search."""

    model: Callable[[Guards], Model[Any]]
    without: tuple[str, ...] = ()
    states: int = 0
    """Of the whole protocol: how many there are. Fewer would mean that the model had lost some of its steps."""
    complaint: str = ""
    """Without a guard: what is complained about, in part."""
    slow: bool = False

    def search(self) -> Outcome:
        """Run it."""
        return explore(self.model(Guards().without(*self.without)))


def takeover(**bounds: int) -> Callable[[Guards], Model[Any]]:
    """The model of taking over, but for its guards."""
    return lambda guards: Takeover(guards=guards, **bounds)  # type: ignore[arg-type]  # a switch may be a number


def collection(**bounds: int) -> Callable[[Guards], Model[Any]]:
    """The model of collecting, but for its guards."""
    return lambda guards: Collection(guards=guards, **bounds)


WHOLE = {
    # Taking over.
    "two openers": Case(model=takeover(writers=3, appends=3, flushes=1, passes=1), states=93_000),
    "lost answers": Case(model=takeover(writers=2, appends=2, flushes=2, passes=1, faults=1), states=76_640),
    "two openers, a lost answer": Case(
        model=takeover(writers=3, appends=1, flushes=1, passes=1, faults=1), states=79_636, slow=True
    ),
    "a crash": Case(model=takeover(writers=2, appends=2, flushes=1, passes=1, crashes=1), states=21_326),
    "an id left out": Case(model=takeover(writers=2, appends=2, flushes=2, passes=1, jumps=1), states=20_721),
    "two collectors": Case(model=takeover(writers=3, flushes=3, passes=2), states=84_286),
    "slot before claim": Case(
        model=takeover(writers=2, appends=3, flushes=2, passes=1, claim_first=False), states=35_318
    ),
    # Collecting.
    "overwriting": Case(model=collection(heirs=1, runs=1, commits=2, flushes=1, merges=1, passes=1), states=25_444),
    "a checkpoint": Case(model=collection(heirs=1, commits=2, flushes=2, merges=1, points=1, passes=1), states=124_147),
    "a checkpoint deleted": Case(
        model=collection(runs=2, pinned=1, commits=1, flushes=1, merges=1, forgets=1, passes=2), states=35_600
    ),
    "an edit given up": Case(
        model=collection(heirs=1, runs=2, commits=1, flushes=1, merges=1, doubts=1, passes=1), states=23_455
    ),
    # The same, wider.
    "slot before claim, two openers": Case(
        model=takeover(writers=3, appends=2, flushes=1, passes=1, claim_first=False), states=51_405, slow=True
    ),
    "two openers, two flushes": Case(
        model=takeover(writers=3, appends=3, flushes=2, passes=1), states=1_292_566, slow=True
    ),
    "three openers": Case(model=takeover(writers=4, appends=2, flushes=1, passes=1), states=1_095_943, slow=True),
    "two openers, an id left out": Case(
        model=takeover(writers=3, appends=2, flushes=1, passes=1, jumps=1), states=353_572, slow=True
    ),
    "nobody has it": Case(
        model=takeover(writers=3, held=False, appends=2, flushes=1, passes=1), states=198_887, slow=True
    ),
    "two lost answers": Case(
        model=takeover(writers=3, appends=1, flushes=1, passes=1, faults=2), states=454_687, slow=True
    ),
    "two crashes": Case(
        model=takeover(writers=2, appends=1, flushes=2, passes=1, crashes=2), states=508_805, slow=True
    ),
    "two collectors, four flushes": Case(model=takeover(writers=3, flushes=4, passes=2), states=593_602, slow=True),
    "two flushes": Case(
        model=collection(heirs=1, runs=1, commits=2, flushes=2, merges=1, passes=1), states=225_353, slow=True
    ),
    "two merges": Case(model=collection(commits=3, flushes=3, merges=2, points=1, passes=2), states=840_000, slow=True),
    "two heirs": Case(
        model=collection(heirs=2, runs=1, pinned=1, commits=1, flushes=1, merges=1, forgets=1, passes=1),
        states=153_719,
        slow=True,
    ),
    "two passes": Case(
        model=collection(heirs=1, runs=2, pinned=2, merges=1, forgets=2, passes=2), states=712_969, slow=True
    ),
}
"""No complaint anywhere."""

LOST = "was acknowledged and is lost"
UNREADABLE = "the volume cannot be opened"
MISTAKEN = "a writer reports damage"

GUARDS = {
    # Taking over. Each of these is missed alone.
    "fences_kept": Case(model=takeover(writers=2, appends=1, flushes=1, passes=1), complaint=LOST),
    "epoch_rechecked": Case(model=takeover(writers=3, appends=3, flushes=1, passes=1), complaint=LOST),
    "floor_checked": Case(model=takeover(writers=2, flushes=3, passes=1, strict=False), complaint=UNREADABLE),
    "put_id_decides": Case(model=takeover(writers=2, appends=1, faults=1), complaint=LOST),
    "yields_to_newer": Case(model=takeover(writers=2, held=False), complaint=UNREADABLE),
    "asks_before_blaming": Case(model=takeover(writers=3, appends=1, flushes=1, passes=1), complaint=MISTAKEN),
    "sees_deleted_claims": Case(model=takeover(writers=3, appends=1, flushes=2, passes=1), complaint=MISTAKEN),
    "floor_before_deletes": Case(model=takeover(writers=2, flushes=3, passes=1, strict=False), complaint=UNREADABLE),
    "floor_only_rises": Case(model=takeover(writers=3, flushes=3, passes=2, strict=False), complaint=UNREADABLE),
    "jump_raises_floor": Case(
        model=takeover(writers=2, appends=1, flushes=1, passes=1, jumps=1, strict=False), complaint=LOST
    ),
    # Missed only when the slot is looked for before the claim, as SlateDB does.
    "slot_above_mark": Case(
        model=takeover(writers=2, appends=2, flushes=1, passes=1, claim_first=False), complaint=UNREADABLE
    ),
    # Collecting.
    "chunks_before_wal": Case(model=collection(commits=1), complaint="WAL 1, above the mark, names SST 1"),
    "edits_on_current": Case(
        model=collection(runs=2, commits=1, flushes=1, merges=1), complaint="the acknowledged value in SST 5 is lost"
    ),
    "in_flight_kept": Case(
        model=collection(commits=1, flushes=1, passes=1), complaint="manifest 2 refers to meta SST 2"
    ),
    "doubt_keeps_names": Case(
        model=collection(commits=1, flushes=1, doubts=1, passes=1), complaint="manifest 2 refers to meta SST 2"
    ),
    "held_until_flush": Case(model=collection(commits=2, passes=1), complaint="WAL 1, above the mark, names SST 1"),
    "replayed_held": Case(
        model=collection(heirs=1, commits=2, passes=1), complaint="WAL 1, above the mark, names SST 1"
    ),
    "registers_keep": Case(model=collection(runs=1, passes=1), complaint="manifest 1 refers to chunk SST 1"),
    "checkpoints_are_views": Case(
        model=collection(runs=2, pinned=1, merges=1, passes=1), complaint="the checkpoint of manifest 1 refers to"
    ),
    "checkpoints_pin": Case(model=collection(pinned=2, passes=1), complaint="a checkpoint names manifest 1"),
    "one_instant": Case(model=collection(commits=1, flushes=1, passes=1), complaint="manifest 2 refers to chunk SST 1"),
    "listed_before": Case(model=collection(commits=1, passes=1), complaint="WAL 1, above the mark, names SST 1"),
}
"""Without this one guard."""

MORE = {
    "a stalled pass": Case(
        model=collection(heirs=1, commits=1, passes=1),
        without=("read_back", "newer_epoch_ends_pass"),
        complaint="WAL 1, above the mark, names SST 1",
    ),
    "a pass by a manifest that never counted": Case(
        model=collection(heirs=1, runs=2, pinned=2, merges=1, forgets=2, passes=2),
        without=("floor_checked", "read_back"),
        complaint="a checkpoint names manifest 2",
        slow=True,
    ),
    "a checkpoint that nobody will find": Case(
        model=collection(heirs=1, pinned=2, points=1, forgets=2, passes=1),
        without=("floor_checked",),
        complaint="the acknowledged checkpoint of manifest 4 is in no list",
    ),
    "a claim that was collected": Case(
        model=takeover(writers=3, appends=3, flushes=2, passes=1, strict=False),
        without=("sees_deleted_claims",),
        complaint=LOST,
        slow=True,
    ),
    "slot before claim, no check of the epoch": Case(
        model=takeover(writers=3, appends=3, flushes=1, passes=1, claim_first=False),
        without=("epoch_rechecked",),
        complaint=LOST,
        slow=True,
    ),
}
"""What two guards are for that stand in for each other; and where a guard's shortest way is not its worst."""

BACKED = {
    "slot_above_mark": Case(model=takeover(writers=3, appends=2, flushes=1, passes=1), states=28_044),
    "replay_verifies": Case(model=takeover(writers=3, appends=2, flushes=1, passes=1), states=28_044),
    "read_back": Case(model=collection(heirs=1, runs=1, commits=2, flushes=1, merges=1, passes=1), states=25_444),
    "newer_epoch_ends_pass": Case(
        model=collection(heirs=1, runs=1, commits=2, flushes=1, merges=1, passes=1), states=25_444
    ),
}
"""Not missed alone: with the claim first the slot cannot be below the mark; verification is against damage, not against
other writers; of the last two one is enough."""
