"""The current version of the volume, and the one way to the next (decisions 0003, 0008).

Flushes, compactions and checkpoints all end in an edit of the version. Edits go one after the other; each is one
manifest, and is in force in the instant in which that manifest is known to be stored.
"""

import contextlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

import trio

from zerofs.errors import FencedError, ZerofsError
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.names import SstId
from zerofs.lsm.manifests import ManifestLost, ManifestStore, fenced
from zerofs.lsm.names import SstNames
from zerofs.lsm.signal import Signal
from zerofs.lsm.storage import Storage

Change = Callable[[Manifest], Awaitable[Manifest]]
"""From the current version to the next: ids, times and tokens are not its business. May read and write SSTs."""


class Versions:
    """Owned by the one writer of the volume."""

    def __init__(self, storage: Storage, manifests: ManifestStore, current: Manifest, names: SstNames) -> None:
        self._storage = storage
        self._names = names
        self._doubt: Callable[[Manifest], None] | None = None
        """What makes the version current whose manifest may or may not be stored."""
        self._manifests = manifests
        self.current = current
        """The newest version that is stored."""
        self.changed = Signal()
        self.published: Callable[[], None] | None = None
        """Called after each change of the current version."""
        self._turn = trio.Lock()

    async def edit(
        self,
        change: Change,
        *,
        minted: Collection[SstId] = (),
        closed: bool = False,
        in_force: Callable[[Manifest], None] | None = None,
    ) -> Manifest:
        """Replace the current version by what `change` makes of it, and return that.

        `minted`: the names that the new version commits, filled by `change` at the latest; they are settled when it is
        in force, or when `change` fails. `in_force` is called in the instant in which the new version becomes the
        current one. Nothing happens when `change` returns its argument. Raises FencedError when another writer's
        manifest came first; whatever `change` raises leaves everything as it was.
        """
        async with self._turn:
            await self._resolve_doubt()
            before = self.current
            try:
                after = await change(before)
            except BaseException:
                self._names.settle(minted)
                raise
            if after is before:
                self._names.settle(minted)
                return before
            successor = replace(
                after,
                manifest_id=before.manifest_id + 1,
                created_at_ns=self._storage.world.now_ns(),
                closed=closed,
                tokens=needed_tokens(after) if after.wal_mark > before.wal_mark else after.tokens,
            )
            self._storage.world.reached("edit_before_manifest")

            def enter(stored: Manifest) -> None:
                # atomic: no await until whatever belongs to the new version is done
                self.current = stored
                self._names.settle(minted)
                if in_force is not None:
                    in_force(stored)
                if self.published is not None:
                    self.published()
                self.changed.notify()

            # Until the outcome is known the names stay in flight: the manifest may be stored.
            self._doubt = enter
            try:
                stored = await self._manifests.create(successor)
            except ManifestLost as error:
                self._doubt = None
                raise FencedError(f"another writer took over this volume: {error}") from error
            self._doubt = None
            enter(stored)
            return stored

    async def _resolve_doubt(self) -> None:
        """Find out what became of an edit that was cut off while its manifest was on the way."""
        if self._doubt is not None:
            newer = await self._manifests.newer_than(self.current)
            enter, self._doubt = self._doubt, None
            if newer is not None and newer.token == self.current.token:
                enter(newer)

    async def between_edits(self, action: Callable[[], None]) -> None:
        """Call `action` at a moment when no edit is under way: one that is cut off may or may not have happened."""
        async with self._turn:
            action()

    async def name_winner(self) -> FencedError | None:
        """The error that tells who took the volume over, if the store still knows."""
        with contextlib.suppress(ZerofsError):
            winner = await self._manifests.newer_than(self.current)
            if winner is not None and winner.token != self.current.token:
                return fenced(winner)
        return None


def needed_tokens(manifest: Manifest) -> dict[int, bytes]:
    """The tokens of every epoch that made a live meta SST, and of this writer's own.

    Only for a version that moved the mark: WAL objects above a mark that stands still may be of any older epoch.
    """
    ssts = (sst.sst for tree in manifest.trees for run in tree.runs for sst in run.ssts)
    return {epoch: manifest.tokens[epoch] for epoch in {epoch for epoch, _ in ssts} | {manifest.epoch}}
