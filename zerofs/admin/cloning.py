"""A clone: a new volume whose first manifest has the trees of another one's checkpoint (decision 0016).

    check      the destination is empty
    manifest   of a new volume, with the foreign table
    pin        a checkpoint in the source, so that it keeps what the clone reads
    key        last, so that what is not complete does not open

An error takes all of it back. A crash leaves a place that nobody can open; the next attempt says what to delete.
"""

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import trio

from zerofs.admin.checkpoints import pin_name
from zerofs.errors import CheckpointError, NoVolumeError, ZerofsError
from zerofs.ids import EPOCH_TOKEN_SIZE
from zerofs.keys import vault
from zerofs.keys.format import MAX_SIDECAR_SIZE, SIDECAR_NAME
from zerofs.lsm.checkpoints import find
from zerofs.lsm.format.foreign import MAX_SOURCES, Foreign
from zerofs.lsm.format.header import HEADER_SIZE, MANIFEST_MAGIC
from zerofs.lsm.format.manifest import Checkpoint, Manifest, WriterInfo
from zerofs.lsm.format.names import MAX_EPOCH, manifest_name
from zerofs.lsm.format.wal import NO_PUT_ID
from zerofs.lsm.manifests import MAX_MANIFEST_OBJECT_SIZE, ManifestLost, ManifestStore, newest_manifest
from zerofs.lsm.storage import Storage
from zerofs.lsm.versions import needed_tokens
from zerofs.objectstore import probe
from zerofs.objectstore.api import ObjectStore

log = logging.getLogger(__name__)

FIRST_MANIFEST = manifest_name(1)

GIVE_UP_S = 20.0
"""How long it may take to take back what was done."""

Pin = Callable[[str, str], Awaitable[Mapping[str, Any]]]
"""Makes a checkpoint in the source: its name, and the id of the one whose state it is to have. Returns its JSON."""

Unpin = Callable[[str], Awaitable[None]]
"""Deletes a checkpoint in the source."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Hands:
    """What happens in the source, which somebody may have mounted."""

    pin: Pin
    unpin: Unpin


async def prepare(store: ObjectStore, dest: Storage) -> None:
    """Make sure that there is nothing, that the store is fit for a volume, and that it has an id.

    Raises NoVolumeError, StoreUnsuitableError, UnavailableError.
    """
    with dest.opening():
        names = [
            info.name
            for info in await store.list("")
            if info.name != probe.BUCKET_ID_NAME and not info.name.startswith(probe.PROBE_PREFIX)
        ]
        if names:
            raise NoVolumeError(f"{store.url} is not empty: {await _what_is_there(store, names)}")
        await probe.probe(store, dest.world)
        await probe.adopt_bucket_id(store, dest.world)


async def _what_is_there(store: ObjectStore, names: list[str]) -> str:
    if names != [FIRST_MANIFEST]:
        return f"{names[0]} lies there; a clone needs a place of its own"
    head = await store.get(FIRST_MANIFEST, limit_bytes=MAX_MANIFEST_OBJECT_SIZE)
    pin = f" {pin_name(head[32:48])}" if head[:4] == MANIFEST_MAGIC and len(head) > HEADER_SIZE else ""
    return (
        f"{FIRST_MANIFEST} lies there without a {SIDECAR_NAME}. If a clone was cut off there, delete that object, and "
        f"the checkpoint{pin} of the source (with --force) if there is one; then try again"
    )


async def read_state(source: Storage, name: str) -> tuple[Checkpoint, Manifest]:
    """A checkpoint by name or id, and its manifest. Raises NoVolumeError, CheckpointError, CorruptionError."""
    with source.opening():
        point = find(await newest_manifest(source), name)
        return point, await ManifestStore(source).load(point.manifest_id)


def first_manifest(state: Manifest, source: Foreign, pin: str, token: bytes, now_ns: int) -> Manifest:
    """The manifest that a clone begins with. Raises NoVolumeError when it would have too many sources."""
    further = [replace(it, pin="") for it in state.foreign if it.is_read]  # held by the pin of the source itself
    if len(further) >= MAX_SOURCES or state.epoch >= MAX_EPOCH:
        raise NoVolumeError("this is a clone of a clone of a clone, and so on: detach one of them first")
    epoch = state.epoch + 1
    first = Manifest(
        manifest_id=1,
        epoch=epoch,
        token=token,
        put_id=NO_PUT_ID,
        created_at_ns=now_ns,
        writer=WriterInfo(host=socket.gethostname(), pid=os.getpid(), mountpoint=""),
        closed=True,
        last_seqno=state.last_seqno,
        tokens={**state.tokens, epoch: token},
        trees=state.trees,
        foreign=(*further, replace(source, last_epoch=state.epoch, pin=pin)),
    )
    return replace(first, tokens=needed_tokens(first))


async def make(
    state: tuple[Checkpoint, Manifest], source: Foreign, dest: Storage, made: vault.Made, hands: Hands
) -> dict[str, Any]:
    """Make the clone at a destination that was prepared. `dest` has the keys that were `made`.

    Raises CheckpointError when the checkpoint goes meanwhile, NoVolumeError when somebody else makes a volume there,
    UnavailableError and whatever pinning raises; then everything was taken back, or the log says what could not be.
    """
    point, manifest = state
    pin = pin_name(dest.volume_id)
    world = dest.world
    first = first_manifest(manifest, source, pin, world.entropy(EPOCH_TOKEN_SIZE), world.now_ns())
    with dest.opening():
        try:
            await ManifestStore(dest).create(first)
        except ManifestLost as error:
            raise NoVolumeError(f"somebody else just made a volume at {dest.store.url}") from error
        try:
            world.reached("clone_after_manifest_before_pin")
            pinned = await hands.pin(pin, point.checkpoint_id.hex())
            if pinned["manifest_id"] != point.manifest_id:
                raise CheckpointError(f"the checkpoint {point.name!r} was exchanged meanwhile: try again")
            world.reached("clone_after_pin_before_key")
            await vault.store_made(dest.store, world, made)
        except BaseException:
            await _take_back(dest, made, pin, hands.unpin)
            raise
    return {
        "volume_id": dest.volume_id.hex(),
        "destination": dest.store.url,
        "source": source.url,
        "checkpoint": point.name,
        "pin": pin,
    }


async def _take_back(dest: Storage, made: vault.Made, pin: str, unpin: Unpin) -> None:
    """In the opposite order, and the pin only once nobody can open what it holds."""
    with trio.move_on_after(GIVE_UP_S, shield=True) as scope:
        try:
            if await dest.get_or_none(SIDECAR_NAME, MAX_SIDECAR_SIZE) == made.body:  # else somebody else's
                await dest.store.delete(SIDECAR_NAME)
            await dest.store.delete(FIRST_MANIFEST)
            await unpin(pin)
        except (ZerofsError, BaseExceptionGroup) as error:
            log.warning("what a failed clone left could not be deleted: %s", error)
            scope.cancel()
    if scope.cancelled_caught or scope.cancel_called:
        log.warning(
            "delete %s and %s in %s, then the checkpoint %s of the source, if they are there",
            SIDECAR_NAME,
            FIRST_MANIFEST,
            dest.store.url,
            pin,
        )
