"""Checkpoints: names for manifests, kept in the manifest itself (decision 0011)."""

import contextlib
from collections.abc import Collection
from dataclasses import replace

from zerofs.errors import CheckpointError
from zerofs.ids import CHECKPOINT_ID_SIZE
from zerofs.lsm.format.foreign import last_foreign_epoch
from zerofs.lsm.format.manifest import MAX_CHECKPOINT_NAME_SIZE, MAX_CHECKPOINTS, Checkpoint, Manifest
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.registers import RegisterView
from zerofs.lsm.storage import Storage
from zerofs.lsm.syncer import Syncer
from zerofs.lsm.versions import Versions

BEFORE_RESTORE = "before-restore-"


def check_name(name: str) -> str:
    """The name itself. Raises CheckpointError if a checkpoint may not be called so."""
    if not name or len(name.encode("utf-8", "surrogateescape")) > MAX_CHECKPOINT_NAME_SIZE:
        raise CheckpointError(f"a checkpoint's name has 1 to {MAX_CHECKPOINT_NAME_SIZE} bytes")
    if "/" in name or not name.isprintable():
        raise CheckpointError(f"{name!r} cannot be the name of a checkpoint: no '/', no control characters, only UTF-8")
    return name


def find(manifest: Manifest, name: str) -> Checkpoint:
    """The checkpoint of a name, or of a hexadecimal id. Raises CheckpointError naming those that there are."""
    for checkpoint in manifest.checkpoints:
        if name in (checkpoint.name, checkpoint.checkpoint_id.hex()):
            return checkpoint
    known = ", ".join(checkpoint.name for checkpoint in manifest.checkpoints[-10:]) or "none"
    raise CheckpointError(f"there is no checkpoint {name!r}; there are: {known}")


async def refers_to_sources(storage: Storage, manifest: Manifest) -> bool:
    """Whether a version refers to objects of other volumes. Raises CorruptionError, UnavailableError."""
    last = last_foreign_epoch(manifest.foreign)
    if any(sst.sst[0] <= last for tree in manifest.trees for run in tree.runs for sst in run.ssts):
        return True
    if last:
        async with contextlib.aclosing(RegisterView(storage, manifest).all()) as registers:
            async for sst, _ in registers:
                return sst[0] <= last  # the first one is the oldest
    return False


class Checkpoints:
    """The checkpoints of a volume that is open for writing."""

    def __init__(self, storage: Storage, manifests: ManifestStore, versions: Versions, syncer: Syncer) -> None:
        self._storage = storage
        self._manifests = manifests
        self._versions = versions
        self._syncer = syncer

    def all(self) -> tuple[Checkpoint, ...]:
        """Oldest first."""
        return self._versions.current.checkpoints

    async def create(self, name: str) -> Checkpoint:
        """Pin the volume as it is now: everything committed before the call.

        Raises CheckpointError (a bad name, or one that is taken), UnavailableError, FencedError.
        """
        check_name(name)
        self._require_free(self._versions.current, name)
        await self._syncer.flush()

        async def change(current: Manifest) -> Manifest:
            self._require_free(current, name)
            return replace(current, checkpoints=(*current.checkpoints, self._pin(name, current.manifest_id + 1)))

        return find(await self._versions.edit(change), name)

    async def copy(self, name: str, of: str) -> Checkpoint:
        """Give the state of a checkpoint, by name or id, another name too. Raises CheckpointError, FencedError."""
        check_name(name)

        async def change(current: Manifest) -> Manifest:
            self._require_free(current, name)
            pin = self._pin(name, find(current, of).manifest_id)
            return replace(current, checkpoints=(*current.checkpoints, pin))

        return find(await self._versions.edit(change), name)

    async def of_sources(self) -> list[Checkpoint]:
        """Those whose state refers to objects of a clone's sources. Raises CorruptionError, UnavailableError."""
        found = []
        for point in self.all():
            manifest = await self._manifests.load(point.manifest_id)
            if await refers_to_sources(self._storage, manifest):
                found.append(point)
        return found

    async def forget_pins(self, sources: Collection[bytes]) -> None:
        """Drop what a detached clone remembers of volumes, by id, whose pins are gone. Raises FencedError."""

        async def change(current: Manifest) -> Manifest:
            left = tuple(it for it in current.foreign if it.is_read or it.volume_id not in sources)
            return current if left == current.foreign else replace(current, foreign=left)

        await self._versions.edit(change)

    async def delete(self, name: str) -> Checkpoint:
        """Let a checkpoint go, by name or id; what only it referred to is collected later. Returns what it was."""
        gone: list[Checkpoint] = []

        async def change(current: Manifest) -> Manifest:
            gone.append(find(current, name))
            return replace(current, checkpoints=tuple(point for point in current.checkpoints if point != gone[0]))

        await self._versions.edit(change)
        return gone[0]

    async def restore(self, name: str) -> Checkpoint:
        """Make the volume what it was at a checkpoint; the present is pinned first. Returns that pin.

        For an engine that serves nobody: whatever was read before is of another state. Raises CheckpointError,
        CorruptionError, UnavailableError, FencedError; then the volume is as it was, perhaps with one more pin.
        """
        target = await self._manifests.load(find(self._versions.current, name).manifest_id)
        pin = await self.create(f"{BEFORE_RESTORE}{self._storage.world.entropy(4).hex()}")

        async def change(current: Manifest) -> Manifest:
            return replace(current, trees=target.trees, tokens={**target.tokens, **current.tokens})

        await self._versions.edit(change)
        return pin

    def _pin(self, name: str, manifest_id: int) -> Checkpoint:
        world = self._storage.world
        return Checkpoint(
            name=name,
            checkpoint_id=world.entropy(CHECKPOINT_ID_SIZE),
            manifest_id=manifest_id,
            created_at_ns=world.now_ns(),
        )

    @staticmethod
    def _require_free(manifest: Manifest, name: str) -> None:
        if any(checkpoint.name == name for checkpoint in manifest.checkpoints):
            raise CheckpointError(f"there is a checkpoint {name!r} already; delete it first, or choose another name")
        if len(manifest.checkpoints) >= MAX_CHECKPOINTS:
            raise CheckpointError(f"there are {MAX_CHECKPOINTS} checkpoints; delete one first")
