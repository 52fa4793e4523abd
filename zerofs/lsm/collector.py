"""Deleting objects that nothing can refer to any more: the rule of decision 0010, and the pass that applies it.

The rule is the pure functions `doomed_…`. The pass gathers what they need, from the store and not from memory wherever
that matters, and ends without deleting anything when something does not fit.
"""

import contextlib
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import trio

from zerofs.errors import CorruptionError, ZerofsError
from zerofs.lsm.format.foreign import last_foreign_epoch
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.names import (
    FLOOR_NAME,
    MANIFEST_PREFIX,
    SST_PREFIX,
    WAL_PREFIX,
    SstId,
    manifest_name,
    parse_manifest_name,
    parse_sst_name,
    parse_wal_name,
    sst_name,
    wal_name,
)
from zerofs.lsm.format.wal import FENCE_OBJECT_MAX_SIZE
from zerofs.lsm.manifests import ManifestStore, fenced
from zerofs.lsm.names import SstNames
from zerofs.lsm.registers import RegisterView
from zerofs.lsm.storage import Storage
from zerofs.lsm.versions import Versions

log = logging.getLogger(__name__)

DELETES_AT_ONCE = 8


@dataclass(slots=True, frozen=True, kw_only=True)
class Doomed:
    """What a pass found to be garbage, by name, and what it could make nothing of."""

    ssts: tuple[str, ...] = ()
    wal: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    size_bytes: int = 0
    strangers: tuple[str, ...] = ()
    """Objects below the engine's prefixes whose names it does not understand. They stay."""

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that may be deleted."""
        return self.ssts + self.wal + self.manifests


def doomed_ssts(
    listed: Iterable[SstId], *, epoch: int, referred: AbstractSet[SstId], protected: AbstractSet[SstId]
) -> list[SstId]:
    """The SSTs that may be deleted.

    `epoch`: ours. `referred`: listed in a tree of some view, or with a register there. `protected`: in flight or held
    at the moment of the view. Raises CorruptionError for an SST of a later epoch: somebody may be at work that we do
    not understand.
    """
    doomed = []
    for sst in listed:
        if sst[0] > epoch:
            raise CorruptionError(f"{sst_name(sst)}: made under a later epoch than that of this writer, {epoch}")
        if sst not in referred and sst not in protected:
            doomed.append(sst)
    return doomed


def doomed_wal(listed: Iterable[tuple[int, int]], *, mark: int) -> list[int]:
    """The WAL objects, of (id, size in bytes), that may be deleted: below the mark, and too large for a fence.

    Fences stay for ever: the id after the last append of a writer that sleeps is always a fence. They are small.
    """
    return [wal_id for wal_id, size in listed if wal_id <= mark and size > FENCE_OBJECT_MAX_SIZE]


def doomed_manifests(listed: Iterable[int], *, current: int, kept: Collection[int]) -> list[int]:
    """The manifests that may be deleted: neither the current one, nor the one before it, nor `kept` by a checkpoint."""
    return [manifest_id for manifest_id in listed if manifest_id < current - 1 and manifest_id not in kept]


@dataclass(slots=True, kw_only=True)
class _Listing:
    ssts: dict[SstId, int] = field(default_factory=dict)
    wal: dict[int, int] = field(default_factory=dict)
    manifests: dict[int, int] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)


class Collector:
    """Owned by the one writer of the volume. One pass at a time."""

    def __init__(self, storage: Storage, manifests: ManifestStore, versions: Versions, names: SstNames) -> None:
        self._storage = storage
        self._manifests = manifests
        self._versions = versions
        self._names = names
        self._pinned: dict[int, Manifest] = {}
        """Manifests of checkpoints, by id: they never change."""

    async def collect(self, *, dry_run: bool = False) -> Doomed:
        """One pass: delete what the rule allows. Returns what that was, or with `dry_run` would be.

        Raises FencedError, CorruptionError, UnavailableError; before any delete when the views do not fit, later only
        UnavailableError: what was not deleted then is garbage still.
        """
        # The order matters. What was listed existed before this instant, so each of it is in the version of this
        # instant, or protected in this instant, or dead; and what is dead never comes to life again.
        listing = await self._list()
        current, protected = self._versions.current, self._names.protected()
        await self._read_back(current)
        views = [current, *[await self._pinned_manifest(point.manifest_id) for point in current.checkpoints]]
        in_trees = {sst.sst for view in views for tree in view.trees for run in tree.runs for sst in run.ssts}
        candidates = doomed_ssts(listing.ssts, epoch=current.epoch, referred=in_trees, protected=protected)
        registered = await self._registered(candidates, views)
        ssts = doomed_ssts(candidates, epoch=current.epoch, referred=registered, protected=protected)
        wal = doomed_wal(listing.wal.items(), mark=current.wal_mark)
        kept = {point.manifest_id for point in current.checkpoints}
        manifests = doomed_manifests(listing.manifests, current=current.manifest_id, kept=kept)
        doomed = Doomed(
            ssts=tuple(map(sst_name, ssts)),
            wal=tuple(map(wal_name, wal)),
            manifests=tuple(map(manifest_name, manifests)),
            size_bytes=sum(listing.ssts[sst] for sst in ssts)
            + sum(listing.wal[wal_id] for wal_id in wal)
            + sum(listing.manifests[manifest_id] for manifest_id in manifests),
            strangers=tuple(listing.strangers),
        )
        if not dry_run and doomed.names:
            await self._delete(doomed, current, manifests)
        return doomed

    async def _read_back(self, version: Manifest) -> None:
        """Raise FencedError unless the store has this very version, and no newer one of another writer."""
        stored = await self._manifests.load(version.manifest_id)
        if stored.put_id != version.put_id:
            raise fenced(stored)
        newer = await self._manifests.newer_than(version)
        if newer is not None and newer.epoch != version.epoch:
            raise fenced(newer)

    async def _pinned_manifest(self, manifest_id: int) -> Manifest:
        if manifest_id not in self._pinned:
            self._pinned[manifest_id] = await self._manifests.load(manifest_id)
        return self._pinned[manifest_id]

    async def _list(self) -> _Listing:
        listing = _Listing()
        foreign = last_foreign_epoch(self._versions.current.foreign)
        for info in await self._storage.store.list(SST_PREFIX):
            with _stranger(listing, info.name):
                sst = parse_sst_name(info.name)
                if sst[0] > foreign:
                    listing.ssts[sst] = info.size_bytes
                else:
                    listing.strangers.append(info.name)  # the source's lie in its own store: nobody wrote this one
        for info in await self._storage.store.list(WAL_PREFIX):
            with _stranger(listing, info.name):
                listing.wal[parse_wal_name(info.name)] = info.size_bytes
        for info in await self._storage.store.list(MANIFEST_PREFIX):
            if info.name != FLOOR_NAME:
                with _stranger(listing, info.name):
                    listing.manifests[parse_manifest_name(info.name)] = info.size_bytes
        return listing

    async def _registered(self, ssts: Sequence[SstId], views: Sequence[Manifest]) -> set[SstId]:
        """Those of the SSTs that the chunk tree of some view refers to."""
        registered: set[SstId] = set()
        for view in views:
            registered.update([sst async for sst, _ in RegisterView(self._storage, view).all()])
        return registered.intersection(ssts)

    async def _delete(self, doomed: Doomed, current: Manifest, manifests: Sequence[int]) -> None:
        if manifests:
            # Read back, by `raise_to`, before the first of them goes.
            await self._manifests.floor.raise_to(current.manifest_id - 1, current.epoch)
        self._storage.world.reached("collect_after_floor_before_deletes")
        limit = trio.CapacityLimiter(DELETES_AT_ONCE)

        async def delete(name: str) -> None:
            async with limit:
                await self._storage.store.delete(name)
                self._storage.metrics.add("collected_objects")

        try:
            async with trio.open_nursery() as nursery:
                for name in doomed.names:
                    nursery.start_soon(delete, name)
        except BaseExceptionGroup as group:
            for error in group.exceptions:
                if isinstance(error, ZerofsError):
                    raise error from group
            raise
        self._storage.metrics.add("collected_bytes", doomed.size_bytes)
        log.info("collected %d objects, %d bytes", len(doomed.names), doomed.size_bytes)


@contextlib.contextmanager
def _stranger(listing: _Listing, name: str) -> Iterator[None]:
    """Note the name if it turns out not to be understood."""
    try:
        yield
    except CorruptionError:
        listing.strangers.append(name)
