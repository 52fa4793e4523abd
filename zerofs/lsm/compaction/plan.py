"""Which SSTs of some runs to merge with each other, and which to take over as they are. Pure (decision 0008, point 2).

SSTs whose key ranges overlap form a cluster. A large one that overlaps nothing, and from which no newer run hides
anything, is *moved*: the new run lists the same object. So the cost of a merge follows the overlap, not the tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from zerofs.lsm.compaction.cuts import cuts_of, is_large
from zerofs.lsm.compaction.hiding import Hiding
from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.lsm.ranges import KeyRanges


@dataclass(slots=True, frozen=True, kw_only=True)
class Cluster:
    """SSTs that share a stretch of keys with no other cluster."""

    sources: tuple[tuple[SstInfo, ...], ...]
    """For each run, newest first, its SSTs here in key order; empty for a run that has none."""
    moved: bool
    """Whether the one SST is taken over as it is."""

    @property
    def ssts(self) -> tuple[SstInfo, ...]:
        """All of them, those of newer runs first."""
        return tuple(sst for source in self.sources for sst in source)


@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """How some runs become one."""

    clusters: tuple[Cluster, ...]
    """In key order. SSTs without rows are in none."""
    hiding: tuple[Hiding, ...]
    """For each run, newest first: what the newer ones hide from it."""
    range_deletes: KeyRanges
    """What the new run hides from older ones: all that the runs hid, as none of it hides rows of its own run."""
    cuts: tuple[bytes, ...] = ()
    """Keys behind which merged rows go into another SST, ascending."""

    @property
    def names_least(self) -> int:
        """Names without which it cannot be carried out: one for each merge and cut, one for an SST of range deletes."""
        return 1 + sum(not cluster.moved for cluster in self.clusters) + len(self.cuts)


def make_plan(
    runs: Sequence[Run],
    range_deletes: Sequence[KeyRanges],
    target_size_bytes: int,
    *,
    drop_deletes: bool,
    rewrite_up_to: int = 0,
) -> Plan:
    """Plan the merge of `runs`, newest first, with the range deletes of each.

    `drop_deletes`: nothing older is left in the tree that the new run would have to hide anything from.
    `rewrite_up_to`: nothing is moved that was made under this epoch or an earlier one.
    """
    hiding: list[Hiding] = []
    union = KeyRanges()
    for ranges in range_deletes:
        hiding.append(Hiding(union))
        union.update(ranges)
    return Plan(
        clusters=tuple(
            _as_cluster(group, len(runs), moved=moved)
            for moved, group in _groups(runs, hiding, target_size_bytes, rewrite_up_to, drop_deletes=drop_deletes)
        ),
        hiding=tuple(hiding),
        range_deletes=KeyRanges() if drop_deletes else union,
        cuts=cuts_of(runs, target_size_bytes),
    )


_Placed = tuple[int, SstInfo]
"""An SST and the number of its run."""


def _groups(
    runs: Sequence[Run],
    hiding: Sequence[Hiding],
    target_size_bytes: int,
    rewrite_up_to: int,
    *,
    drop_deletes: bool,
) -> list[tuple[bool, list[_Placed]]]:
    """Clusters in key order, and whether each is a move. Merges that are neighbours become one: fuller SSTs."""
    groups: list[tuple[bool, list[_Placed]]] = []
    for overlapping in _overlapping(runs):
        run, sst = overlapping[0]
        # By its rows alone, an SST of deletes would look large, and keep them for ever. The oldest run has none.
        by_rows = not drop_deletes or run == len(runs) - 1
        moved = (
            len(overlapping) == 1
            and is_large(sst, target_size_bytes, by_rows=by_rows)
            and sst.sst[0] > rewrite_up_to
            and not hiding[run].touches(sst.first_key, sst.last_key)
        )
        if groups and not moved and not groups[-1][0]:
            groups[-1][1].extend(overlapping)
        else:
            groups.append((moved, overlapping))
    return groups


def _overlapping(runs: Sequence[Run]) -> list[list[_Placed]]:
    """The SSTs with rows, in the order of their first keys, divided wherever no key range spans the gap."""
    placed = [(number, sst) for number, run in enumerate(runs) for sst in run.ssts if sst.row_count]
    placed.sort(key=lambda item: item[1].first_key)
    divided: list[list[_Placed]] = []
    last_key = b""
    for item in placed:
        if divided and item[1].first_key <= last_key:
            divided[-1].append(item)
            last_key = max(last_key, item[1].last_key)
        else:
            divided.append([item])
            last_key = item[1].last_key
    return divided


def _as_cluster(group: Sequence[_Placed], run_count: int, *, moved: bool) -> Cluster:
    sources: list[list[SstInfo]] = [[] for _ in range(run_count)]
    for number, sst in group:
        sources[number].append(sst)
    return Cluster(sources=tuple(map(tuple, sources)), moved=moved)
