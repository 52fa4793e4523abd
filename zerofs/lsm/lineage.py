"""Whether what a host saw lies on the way to what it is shown: the rule of decision 0003, point 11. Pure.

Old manifests are collected, so nobody can walk back from the newest to the one that was seen. But every epoch has one
writer, which makes one line of manifests and one line of WAL objects. Only at a claim can a history fork: when the new
writer is shown less than there was. So a manifest carries, for each earlier epoch, how much of it it builds on.
"""

import enum
from collections.abc import Mapping
from dataclasses import replace

from zerofs.lsm.format.manifest import MAX_ERAS, Era, Manifest
from zerofs.lsm.witness import Claim, Seen


class Finding(enum.Enum):
    """What a manifest says of something that was seen."""

    INCLUDED = enum.auto()
    """It builds on it."""
    ABSENT = enum.auto()
    """It does not: an older state, or another timeline."""
    FORGOTTEN = enum.auto()
    """It builds on more epochs than it remembers, and this one is too old."""


def claim_of(manifest: Manifest) -> Claim:
    """The epoch of a manifest."""
    return Claim(manifest.epoch, manifest.tag)


def find_manifest(newest: Manifest, seen: Seen) -> Finding:
    """Whether the newest manifest is the one that was seen, or builds on it."""
    if seen.manifest_id == newest.manifest_id and seen.manifest_put_id != newest.put_id:
        return Finding.ABSENT
    found = _era(newest, seen.manifest_claim)
    if isinstance(found, Finding):
        return found
    return Finding.INCLUDED if seen.manifest_id <= found.manifest_id else Finding.ABSENT


def find_wal(newest: Manifest, seen: Seen) -> Finding:
    """Whether the newest manifest, whose mark is at or above the WAL object that was seen, holds its rows."""
    found = _era(newest, seen.wal_claim)
    if isinstance(found, Finding):
        return found
    # Not known: then nothing was flushed since, the mark is that epoch's own, and so is what lies below it.
    return Finding.INCLUDED if found.wal_id is None or seen.wal_id <= found.wal_id else Finding.ABSENT


def _era(newest: Manifest, claim: Claim | None) -> Era | Finding:
    assert claim, "what was loaded has its epoch"
    present = Era(epoch=newest.epoch, tag=newest.tag, manifest_id=newest.manifest_id, wal_id=None)
    for era in (*newest.history, present):
        if era.epoch == claim.epoch:
            return era if era.tag == claim.tag else Finding.ABSENT
    is_full = len(newest.history) == MAX_ERAS
    return Finding.FORGOTTEN if is_full and claim.epoch < newest.history[0].epoch else Finding.ABSENT


def continued(newest: Manifest) -> tuple[Era, ...]:
    """The history of a claim that is made from `newest`."""
    last = Era(epoch=newest.epoch, tag=newest.tag, manifest_id=newest.manifest_id, wal_id=None)
    return (*newest.history, last)[-MAX_ERAS:]


def completed(claimed: Manifest, last_wal_ids: Mapping[int, int]) -> tuple[Era, ...]:
    """The history of a claim once its fence is stored.

    `last_wal_ids`: for each epoch that wrote WAL objects above the mark, the last one.
    """

    def end_of(epoch: int) -> int:
        return max([claimed.wal_mark, *(wal_id for other, wal_id in last_wal_ids.items() if other <= epoch)])

    return tuple(replace(era, wal_id=end_of(era.epoch)) if era.wal_id is None else era for era in claimed.history)
