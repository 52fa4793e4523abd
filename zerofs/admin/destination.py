"""Where a backup goes: may it go there, and what is there already (decision 0014)."""

from dataclasses import dataclass

from zerofs.errors import (
    CorruptionError,
    NoVolumeError,
    ObjectNotFoundError,
    RollbackError,
    UnsupportedFormatError,
)
from zerofs.keys.format import MAX_SIDECAR_SIZE, SIDECAR_NAME, decode_sidecar
from zerofs.lsm.audit import list_ssts
from zerofs.lsm.format.header import CHUNK_SST_MAGIC, HEADER_SIZE, META_SST_MAGIC, Header, decode_header
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.names import (
    FLOOR_NAME,
    MANIFEST_PREFIX,
    SST_PREFIX,
    WAL_PREFIX,
    SstId,
    is_manifest_name,
    manifest_name,
    parse_sst_name,
    parse_wal_name,
    sst_name,
)
from zerofs.lsm.lineage import Finding, claim_of, find_manifest
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.registers import RegisterView
from zerofs.lsm.storage import Storage
from zerofs.lsm.witness import Seen
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.probe import BUCKET_ID_NAME, PROBE_PREFIX

ELSEWHERE = "choose an empty place"


@dataclass(slots=True, frozen=True, kw_only=True)
class Present:
    """What a destination has. `newest` is the state that a backup left there last."""

    newest: Manifest | None
    sidecar: bytes | None
    sidecar_version: str
    ssts: dict[SstId, int]
    """Size of each."""
    trusted: frozenset[SstId]
    """Those that the newest state refers to: of the same history as the source, so known by their names alone."""
    others: tuple[str, ...]
    """WAL objects and manifests."""


async def look_at(dest: Storage) -> Present:
    """What there is, after making sure that it is nothing, or a backup of this volume. `dest` has the source's keys.

    Raises NoVolumeError for anything else, CorruptionError, UnavailableError.
    """
    store = dest.store
    sidecar, version = await _sidecar(store)
    if sidecar is not None:
        found = decode_sidecar(sidecar).volume_id
        if found != dest.volume_id:
            raise NoVolumeError(
                f"{store.url} holds another volume, {found.hex()}, not a backup of {dest.volume_id.hex()}: {ELSEWHERE}"
            )
    else:
        await _check_unfinished(dest)
    try:
        newest = await ManifestStore(dest).latest()
    except (CorruptionError, UnsupportedFormatError) as error:
        if sidecar is not None:
            raise
        raise NoVolumeError(f"{store.url} is not empty and no backup of this volume ({error}): {ELSEWHERE}") from error
    others = [info.name for prefix in (WAL_PREFIX, MANIFEST_PREFIX) for info in await store.list(prefix)]
    return Present(
        newest=newest,
        sidecar=sidecar,
        sidecar_version=version,
        ssts=await list_ssts(dest),
        trusted=await _referred(dest, newest),
        others=tuple(name for name in others if is_manifest_name(name) or _is_wal_name(name)),
    )


def check_history(dest_url: str, newest: Manifest, source: Manifest) -> None:
    """Raise RollbackError unless the state to be backed up builds on the one that is there, or is the same."""
    there, here = manifest_name(newest.manifest_id), manifest_name(source.manifest_id)
    if newest.manifest_id > source.manifest_id:
        raise RollbackError(
            f"{dest_url} holds {there}, a later state than the {here} to be backed up, or one that somebody wrote "
            f"there: {ELSEWHERE}, or back up the present state"
        )
    seen = Seen(
        # The same id has another put-id there, because a backup seals it anew.
        manifest_id=min(newest.manifest_id, source.manifest_id - 1),
        manifest_put_id=newest.put_id,
        manifest_claim=claim_of(newest),
        wal_id=0,
        wal_put_id=b"",
    )
    if find_manifest(source, seen) is not Finding.INCLUDED:
        raise RollbackError(
            f"{there} in {dest_url} is not a state that the volume came by: it was mounted for writing there, or the "
            f"volume was rolled back since, or it is a backup of very long ago. Nothing was changed; {ELSEWHERE}"
        )


def sst_header(body: bytes, dest: Storage, name: str) -> Header:
    """The header at the start of an SST of either family. Raises CorruptionError."""
    magic = CHUNK_SST_MAGIC if body.startswith(CHUNK_SST_MAGIC) else META_SST_MAGIC
    return decode_header(body, magic=magic, volume_id=dest.volume_id, name=name)


async def _sidecar(store: ObjectStore) -> tuple[bytes | None, str]:
    try:
        return await store.get_versioned(SIDECAR_NAME, limit_bytes=MAX_SIDECAR_SIZE)
    except ObjectNotFoundError:
        return None, ""


async def _check_unfinished(dest: Storage) -> None:
    """Without a key there may be only what a first backup of this volume left that did not finish."""
    store = dest.store
    for info in await store.list(""):
        if info.name in (BUCKET_ID_NAME, FLOOR_NAME) or info.name.startswith(PROBE_PREFIX):
            continue
        if is_manifest_name(info.name):
            continue  # opened in a moment
        if _is_sst_name(info.name) and await _is_ours(dest, info.name):
            continue
        raise NoVolumeError(
            f"{store.url} is not empty and no backup of this volume ({info.name} lies there): {ELSEWHERE}"
        )


async def _is_ours(dest: Storage, name: str) -> bool:
    try:
        sst_header(await dest.get_part(name, 0, HEADER_SIZE), dest, name)
    except CorruptionError:
        return False
    return True


async def _referred(dest: Storage, newest: Manifest | None) -> frozenset[SstId]:
    """The SSTs of a state; none when they cannot be read, for then nothing there is trusted."""
    if newest is None:
        return frozenset()
    try:
        return frozenset(await referred_ssts(dest, newest))
    except CorruptionError:
        return frozenset()


async def referred_ssts(storage: Storage, manifest: Manifest) -> dict[SstId, int | None]:
    """Every SST that a version refers to, with the size of those whose size the manifest tells.

    Raises CorruptionError, UnavailableError.
    """
    found: dict[SstId, int | None] = {
        sst.sst: sst.size_bytes for tree in manifest.trees for run in tree.runs for sst in run.ssts
    }
    async for sst, _ in RegisterView(storage, manifest).all():
        found[sst] = None
    return found


def _is_sst_name(name: str) -> bool:
    try:
        return sst_name(parse_sst_name(name)) == name and name.startswith(SST_PREFIX)
    except CorruptionError:
        return False


def _is_wal_name(name: str) -> bool:
    try:
        parse_wal_name(name)
    except CorruptionError:
        return False
    return True
