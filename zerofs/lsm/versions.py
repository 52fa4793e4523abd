"""The current version of the volume, and the one way to the next (decisions 0003, 0008).

Flushes, compactions and checkpoints all end in an edit of the version. Edits go one after the other; each is one
manifest, and is in force in the instant in which that manifest is known to be stored.
"""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from zerofs.errors import FencedError, ZerofsError
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.manifests import ManifestLost, ManifestStore, fenced
from zerofs.lsm.signal import Signal
from zerofs.lsm.storage import Storage

Change = Callable[[Manifest], Awaitable[Manifest]]
"""From the current version to the next: ids, times and tokens are not its business. May read and write SSTs."""


class Versions:
    """Owned by the one writer of the volume."""

    def __init__(self, storage: Storage, manifests: ManifestStore, current: Manifest) -> None:
        self._storage = storage
        self._manifests = manifests
        self.current = current
        """The newest version that is stored."""
        self.changed = Signal()
        self.published: Callable[[], None] | None = None
        """Called after each change of the current version."""
        self._turn = trio.Lock()

    async def edit(
        self, change: Change, *, closed: bool = False, in_force: Callable[[Manifest], None] | None = None
    ) -> Manifest:
        """Replace the current version by what `change` makes of it, and return that.

        `in_force` is called in the same instant in which the new version becomes the current one. Nothing happens when
        `change` returns its argument. Raises FencedError when another writer's manifest came first; whatever `change`
        raises leaves everything as it was.
        """
        async with self._turn:
            before = self.current
            after = await change(before)
            if after is before:
                return before
            successor = replace(
                after,
                manifest_id=before.manifest_id + 1,
                created_at_ns=self._storage.world.now_ns(),
                closed=closed,
                tokens=_needed_tokens(after) if after.wal_mark > before.wal_mark else after.tokens,
            )
            self._storage.world.reached("edit_before_manifest")
            try:
                stored = await self._manifests.create(successor)
            except ManifestLost as error:
                raise FencedError(f"another writer took over this volume: {error}") from error
            # atomic: no await until whatever belongs to the new version is done
            self.current = stored
            if in_force is not None:
                in_force(stored)
            if self.published is not None:
                self.published()
            self.changed.notify()
            return stored

    async def between_edits(self, action: Callable[[], None]) -> None:
        """Call `action` at a moment when no edit is under way: one that is cut off may or may not have happened."""
        async with self._turn:
            action()

    async def name_winner(self) -> FencedError | None:
        """The error that tells who took the volume over, if the store still knows."""
        with contextlib.suppress(ZerofsError):
            winner = await self._manifests.newer_than(self.current)
            if winner is not None:
                return fenced(winner)
        return None


def _needed_tokens(manifest: Manifest) -> dict[int, bytes]:
    """The tokens of every epoch that made a live meta SST, and of this writer's own.

    Only for a version that moved the mark: WAL objects above a mark that stands still may be of any older epoch.
    """
    ssts = (sst.sst for tree in manifest.trees for run in tree.runs for sst in run.ssts)
    return {epoch: manifest.tokens[epoch] for epoch in {epoch for epoch, _ in ssts} | {manifest.epoch}}
