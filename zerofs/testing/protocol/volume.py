"""The states of the model of taking over: store, writers, network, and what users were promised.

A payload is a bit of a set; a token is a number, 1 that of the first claim. An object's put-id is its id together with
the token of its writer, because no writer puts two different objects under one id. What is absent is ().
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeVar

from zerofs.testing.protocol.guards import Guards

Nothing = tuple[()]

Object = TypeVar("Object")


class Record(NamedTuple):
    """A WAL object; without a payload, a fence. `follows`: the token of the object before it."""

    epoch: int
    token: int
    payload: int
    follows: int


class Manifest(NamedTuple):
    """A version."""

    manifest_id: int
    epoch: int
    token: int
    mark: int
    mark_token: int
    trees: int
    """The payloads in them."""
    tokens: int
    """Those that it knows, as bits."""
    line: tuple[int, ...]
    """By id, the tokens of all manifests from the first up to this one; 0 for an id that was left out."""


class Phase(IntEnum):
    """How far a writer is on the way to an open volume, or how it ended."""

    IDLE = 0
    FLOORED = 1
    PROBED = 2
    CLAIMING = 3
    CLAIMED = 4
    FENCING = 5
    FENCED = 6
    CHECKED = 7
    TROUBLED = 8
    OPEN = 9
    LOST = 10
    BLAMING = 11


class Stage(IntEnum):
    """How far the creation of a manifest is."""

    NONE = 0
    PUT = 1
    DOUBT = 2
    FLOOR = 3


class Writer(NamedTuple):
    """One writer, with its flush and its collector."""

    phase: Phase = Phase.IDLE
    base: Manifest | Nothing = ()
    """The manifest that it read; from its claim on, the newest of its own."""
    slot: int = 0
    """Until its fence is stored, the WAL id for it; from then on, the newest WAL object of its own."""
    follows: int = 0
    """The token of the WAL object before the next one of its own."""
    payloads: int = 0
    """In the trees, replayed or appended."""
    pending: Record | Nothing = ()
    """A WAL object of which it does not know whether it is stored."""
    wanted: Manifest | Nothing = ()
    """The manifest that it is creating. A claim gets its token with the put."""
    stage: Stage = Stage.NONE
    doomed_wal: int = 0
    """What its pass has still to delete: ids as bits."""
    doomed_manifests: int = 0
    floor: int = 0
    """Of an opener, the floor that it read; then, what its pass has still to raise it to."""

    @property
    def manifest(self) -> Manifest:
        """`base`, of a writer that has one."""
        assert self.base
        return self.base

    @property
    def sweeping(self) -> bool:
        """Whether a pass is under way."""
        return bool(self.doomed_wal or self.doomed_manifests or self.floor)


class Left(NamedTuple):
    """How many more times these may happen."""

    appends: int
    flushes: int
    passes: int
    faults: int
    crashes: int
    jumps: int


class Volume(NamedTuple):
    """One state."""

    wal: tuple[Record | Nothing, ...]
    manifests: tuple[Manifest | Nothing, ...]
    floor: int
    writers: tuple[Writer, ...]
    acknowledged: int
    """Payloads."""
    late: tuple[tuple[int, Record | Manifest], ...]
    """Puts without an answer that may still arrive, with their ids."""
    payloads: int
    """How many there were so far."""
    tokens: int
    left: Left

    @property
    def newest(self) -> Manifest:
        """The newest manifest, as a LIST shows it."""
        newest = self.manifests[-1]
        assert newest
        return newest


@dataclass(slots=True, frozen=True, kw_only=True)
class Rules:
    """Guards, and order: ours claims the epoch before it looks for a WAL slot, SlateDB's looks before it claims."""

    guards: Guards
    claim_first: bool = True
    jumps: bool = False
    """Whether openers may leave manifest ids out, as after an accepted roll-back."""


Steps = Iterator[tuple[str, Volume]]
"""What a writer can do next, in words, and the state afterwards."""


def at(objects: tuple[Object | Nothing, ...], object_id: int) -> Object | Nothing:
    """The object under an id."""
    return objects[object_id - 1] if 0 < object_id <= len(objects) else ()


def placed(
    objects: tuple[Object | Nothing, ...], object_id: int, thing: Object | Nothing
) -> tuple[Object | Nothing, ...]:
    """The objects with `thing` under an id. Absent ones at the end are cut off, so that equal stores are equal."""
    filled = objects + ((),) * (object_id - len(objects))
    after = (*filled[: object_id - 1], thing, *filled[object_id:])
    while after and not after[-1]:
        after = after[:-1]
    return after


def arrived(volume: Volume, object_id: int, thing: Record | Manifest) -> Volume:
    """A conditional put reaches the store; the same state when the id is taken."""
    if isinstance(thing, Record):
        if at(volume.wal, object_id):
            return volume
        return volume._replace(wal=placed(volume.wal, object_id, thing))
    if at(volume.manifests, object_id):
        return volume
    return volume._replace(manifests=placed(volume.manifests, object_id, thing))


def with_writer(volume: Volume, i: int, writer: Writer) -> Volume:
    """The state after writer `i` became `writer`."""
    return volume._replace(writers=(*volume.writers[:i], writer, *volume.writers[i + 1 :]))


def members(bits: int) -> list[int]:
    """The numbers in a set of bits."""
    return [number for number in range(bits.bit_length()) if bits >> number & 1]
