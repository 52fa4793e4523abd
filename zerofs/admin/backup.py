"""A copy of a volume's newest state at another place, which is a volume of its own (decision 0014).

    check      the destination is empty, or holds an earlier state of this volume
    objects    what the state refers to and the destination lacks, as it is: nothing is opened, nothing sealed again
    manifest   of the same id, sealed anew: without checkpoints, because their objects are not there
    key        last, so that what is not complete does not open
    verify     every object listed, with its size; the manifest read back

A crash at any point leaves the destination as it was, with some objects more; the next run goes on from there.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from zerofs.admin.destination import Present, check_history, look_at, referred_ssts, sst_header
from zerofs.admin.examination import Progress
from zerofs.admin.throttle import Throttle
from zerofs.errors import CloneError, CorruptionError, MissingObjectError, PreconditionFailedError, RollbackError
from zerofs.keys.format import MAX_SIDECAR_SIZE, SIDECAR_NAME, decode_sidecar
from zerofs.lsm.audit import list_ssts
from zerofs.lsm.checkpoints import refers_to_sources
from zerofs.lsm.format.header import HEADER_SIZE
from zerofs.lsm.format.manifest import Manifest, WriterInfo
from zerofs.lsm.format.names import SstId, is_manifest_name, manifest_name, sst_name
from zerofs.lsm.format.sst import MAX_OBJECT_SIZE
from zerofs.lsm.manifests import ManifestLost, ManifestStore
from zerofs.lsm.storage import Storage
from zerofs.objectstore import conditional, probe
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.parallel import gather

COPIES_AT_ONCE = 2
"""Each holds one object in memory, up to 64 MiB."""

DEADLINE_S = 60.0


@dataclass(slots=True, kw_only=True)
class Result:
    """What a backup did."""

    manifest_id: int
    volume_id: str
    destination: str
    created_at_ns: int
    objects: int = 0
    size_bytes: int = 0
    copied_objects: int = 0
    copied_bytes: int = 0
    pruned_objects: int = 0

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {name: getattr(self, name) for name in self.__slots__}


def destination_storage(source: Storage, store: ObjectStore) -> Storage:
    """A destination as the source's engine would see it: the same keys, another place."""
    return Storage(
        store=store,
        world=source.world,
        sealers=source.sealers,
        volume_id=source.volume_id,
        metrics=source.metrics,
        cache_memory_bytes=0,
    )


async def prepare(source: Storage, dest: Storage) -> str:
    """Check a destination before anything is done for it. Returns its own bucket id, made now if it has none.

    Raises NoVolumeError (a foreign one), RollbackError, StoreUnsuitableError, CorruptionError, UnavailableError.
    """
    with source.opening(), dest.opening():
        present = await look_at(dest)
        newest = await ManifestStore(source).latest()
        if newest is not None:
            await _check_whole(source, newest)
        if newest is not None and present.newest is not None:
            check_history(dest.store.url, present.newest, newest)
        await probe.probe(dest.store, dest.world)
        own = await probe.adopt_bucket_id(dest.store, dest.world)
        if own == await probe.read_bucket_id(source.store):
            # Copied by hand once: the local cache is named by it, and each volume needs its own.
            await dest.store.delete(probe.BUCKET_ID_NAME)
            own = await probe.adopt_bucket_id(dest.store, dest.world)
    return own


async def backup(
    source: Storage, dest: Storage, manifest_id: int, *, rate_bytes_per_s: float, prune: bool, progress: Progress
) -> Result:
    """Copy the state of a manifest that a checkpoint pins. The destination was prepared. Rate 0: as fast as can be.

    Raises CorruptionError when the source is damaged, RollbackError, NoVolumeError, UnavailableError.
    """
    with source.opening(), dest.opening():
        manifest = await ManifestStore(source).load(manifest_id)
        await _check_whole(source, manifest)
        sidecar = await source.store.get(SIDECAR_NAME, limit_bytes=MAX_SIDECAR_SIZE)
        present = await look_at(dest)
        if present.newest is not None:
            check_history(dest.store.url, present.newest, manifest)
        needed = await _needed(source, manifest)
        result = Result(
            manifest_id=manifest_id,
            volume_id=source.volume_id.hex(),
            destination=dest.store.url,
            created_at_ns=manifest.created_at_ns,
            objects=len(needed),
            size_bytes=sum(needed.values()),
        )
        await _copy_all(source, dest, needed, present, Throttle(rate_bytes_per_s), progress, result)
        dest.world.reached("backup_after_objects_before_manifest")
        if present.sidecar is not None and present.sidecar != sidecar:
            # Before the manifest, which an older keyring might not open; the newer one opens what is there, too.
            await _replace_sidecar(dest, sidecar, present.sidecar_version)
        stored = await _put_manifest(dest, manifest, present)
        dest.world.reached("backup_after_manifest_before_key")
        if present.sidecar is None:
            await _create_sidecar(dest, sidecar)
        await _verify(dest, needed, stored, sidecar)
        if prune:
            result.pruned_objects = await _prune(dest, needed, present, stored)
    return result


async def _check_whole(source: Storage, manifest: Manifest) -> None:
    """A clone's copy would need the source, or all data sealed anew: refused (decision 0016, point 8)."""
    if await refers_to_sources(source, manifest):
        raise CloneError(
            f"this volume is a clone, and still reads {', '.join(it.url for it in manifest.foreign if it.is_read)}: "
            "run `zerofs clone detach` first, then back it up"
        )


async def _needed(source: Storage, manifest: Manifest) -> dict[SstId, int]:
    """Every SST of the state with its size in the source. Raises CorruptionError naming what is missing there."""
    sizes = await list_ssts(source)
    needed = {}
    for sst, told in (await referred_ssts(source, manifest)).items():
        found = sizes.get(sst)
        if found is None:
            raise MissingObjectError(f"{sst_name(sst)}: missing, although the volume refers to it: run `zerofs fsck`")
        if told not in (None, found):
            raise CorruptionError(f"{sst_name(sst)}: {found} bytes instead of {told}: run `zerofs fsck`")
        needed[sst] = found
    return needed


async def _copy_all(
    source: Storage,
    dest: Storage,
    needed: dict[SstId, int],
    present: Present,
    throttle: Throttle,
    progress: Progress,
    result: Result,
) -> None:
    total = sum(needed.values())
    done = 0

    async def one(sst: SstId, size: int) -> None:
        nonlocal done
        name = sst_name(sst)
        if present.ssts.get(sst) != size or (sst not in present.trusted and not await _same(source, dest, name)):
            if sst in present.ssts:
                await dest.store.delete(name)  # of an abandoned history, or cut short by whoever copied it
            await throttle.take(size)
            await _copy(source, dest, name, size)
            result.copied_objects += 1
            result.copied_bytes += size
        done += size
        progress("copying bytes", done, total)

    jobs: list[Callable[[], Awaitable[None]]] = []
    for sst, size in sorted(needed.items()):

        async def job(sst: SstId = sst, size: int = size) -> None:
            await one(sst, size)

        jobs.append(job)
    await gather(jobs, COPIES_AT_ONCE)


async def _same(source: Storage, dest: Storage, name: str) -> bool:
    """Whether both places have the same object of a name, by the random put-id in its header."""
    there = await dest.get_part(name, 0, HEADER_SIZE)
    return there == await source.get_part(name, 0, HEADER_SIZE)


async def _copy(source: Storage, dest: Storage, name: str, size: int) -> None:
    async def read() -> bytes:
        return await source.store.get(name, limit_bytes=MAX_OBJECT_SIZE)

    body = await source.until_it_answers(name, read)
    header = sst_header(body, source, name)
    if len(body) != size or header.object_size != size:
        raise CorruptionError(f"{name}: {len(body)} bytes, its header tells {header.object_size}: run `zerofs fsck`")
    try:
        await dest.create(name, [body], header.put_id)
    except PreconditionFailedError as error:
        if not await _same(source, dest, name):
            raise RollbackError(
                f"{name} in {dest.store.url} was just put there by somebody else: is another backup running?"
            ) from error


async def _put_manifest(dest: Storage, manifest: Manifest, present: Present) -> Manifest:
    """The state's manifest at the destination: there already, or made now."""
    if present.newest is not None and present.newest.manifest_id == manifest.manifest_id:
        return present.newest
    own = replace(
        manifest,
        checkpoints=(),
        foreign=(),
        closed=True,
        writer=WriterInfo(host=socket.gethostname(), pid=os.getpid(), mountpoint=""),
    )
    try:
        # A store that saw no manifest before names no predecessor: there is none that this one was made from.
        return await ManifestStore(dest).create(own)
    except ManifestLost as error:
        raise RollbackError(
            f"{error} in {dest.store.url} was just made by another backup: run this one again"
        ) from None


async def _create_sidecar(dest: Storage, sidecar: bytes) -> None:
    put_id = decode_sidecar(sidecar).put_id
    try:
        await conditional.create(dest.store, dest.world, SIDECAR_NAME, sidecar, put_id, DEADLINE_S)
    except PreconditionFailedError as error:
        raise RollbackError(f"{SIDECAR_NAME} in {dest.store.url} was just made by another backup") from error


async def _replace_sidecar(dest: Storage, sidecar: bytes, version: str) -> None:
    put_id = decode_sidecar(sidecar).put_id
    try:
        await conditional.replace(dest.store, dest.world, SIDECAR_NAME, sidecar, version, put_id, DEADLINE_S)
    except PreconditionFailedError as error:
        raise RollbackError(f"{SIDECAR_NAME} in {dest.store.url} was just changed by somebody else") from error


async def _verify(dest: Storage, needed: dict[SstId, int], stored: Manifest, sidecar: bytes) -> None:
    """Raise CorruptionError unless everything is there. Asks the store, and believes nothing that was done."""
    sizes = await list_ssts(dest)
    for sst, size in needed.items():
        if sizes.get(sst) != size:
            raise MissingObjectError(
                f"{sst_name(sst)}: not in {dest.store.url} with {size} bytes: run the backup again"
            )
    newest = await ManifestStore(dest).latest()
    if newest is None or newest.put_id != stored.put_id:
        raise RollbackError(f"another manifest than that of this backup is the newest one in {dest.store.url}")
    if await dest.store.get(SIDECAR_NAME, limit_bytes=MAX_SIDECAR_SIZE) != sidecar:
        raise CorruptionError(f"{SIDECAR_NAME} in {dest.store.url} is not the one that was copied")


async def _prune(dest: Storage, needed: dict[SstId, int], present: Present, stored: Manifest) -> int:
    """Delete what was there before and the state does not refer to. Returns how many objects that were."""
    ssts = [sst_name(sst) for sst in present.ssts if sst not in needed]
    others = [name for name in present.others if name != manifest_name(stored.manifest_id)]
    if any(map(is_manifest_name, others)):
        # As the collector does: whoever creates one of these ids again learns from the floor that it proves nothing.
        await ManifestStore(dest).floor.raise_to(stored.manifest_id, stored.epoch)
    jobs: list[Callable[[], Awaitable[None]]] = []
    for name in [*ssts, *others]:

        async def job(name: str = name) -> None:
            await dest.store.delete(name)

        jobs.append(job)
    await gather(jobs, COPIES_AT_ONCE)
    return len(jobs)
