"""Comparing a volume with what this host remembers of it, before anything is made of it (decision 0003, point 11)."""

import logging

from zerofs.errors import ObjectNotFoundError, RangeError, RollbackError
from zerofs.lsm.format.header import HEADER_SIZE, WAL_MAGIC, decode_header
from zerofs.lsm.format.manifest import MAX_ERAS, Manifest
from zerofs.lsm.format.names import manifest_name, wal_name
from zerofs.lsm.format.wal import NO_PUT_ID
from zerofs.lsm.lineage import Finding, find_manifest, find_wal
from zerofs.lsm.storage import Storage
from zerofs.lsm.witness import Seen

log = logging.getLogger(__name__)

REMEDY = "if the bucket was restored from a backup on purpose, start once with --accept-rollback"


async def check_rollback(storage: Storage, newest: Manifest, seen: Seen | None) -> None:
    """Raise RollbackError unless the newest manifest and the WAL above it hold everything that this host has seen.

    Requests: one, if the WAL object that was seen last is above the mark.
    """
    if seen is None:
        return
    _check_manifest(newest, seen)
    if seen.wal_put_id == NO_PUT_ID:
        return  # nothing was seen of the WAL, or only the gap that an accepted roll-back left
    if seen.wal_id > newest.wal_mark:
        await _check_wal_object(storage, seen)
    elif find_wal(newest, seen) is Finding.ABSENT:
        raise RollbackError(
            f"{wal_name(seen.wal_id)}, which was acknowledged to this host, is not part of what "
            f"{manifest_name(newest.manifest_id)} builds on: another timeline; {REMEDY}"
        )


def _check_manifest(newest: Manifest, seen: Seen) -> None:
    name, found = manifest_name(seen.manifest_id), manifest_name(newest.manifest_id)
    if newest.manifest_id < seen.manifest_id:
        raise RollbackError(
            f"{name}, which this host has seen, is missing; the newest one there is {found}: an older state of the "
            f"volume; {REMEDY}"
        )
    finding = find_manifest(newest, seen)
    if finding is Finding.ABSENT:
        raise RollbackError(f"{found} does not build on the {name} that this host has seen: another timeline; {REMEDY}")
    if finding is Finding.FORGOTTEN:
        log.warning(
            "this host saw the volume last before its latest %d openings for writing: that it is shown the same "
            "history cannot be checked any more, only that it is not an older state",
            MAX_ERAS,
        )


async def _check_wal_object(storage: Storage, seen: Seen) -> None:
    name = wal_name(seen.wal_id)
    try:
        head = await storage.store.get(name, 0, HEADER_SIZE)
    except (ObjectNotFoundError, RangeError) as error:
        raise RollbackError(
            f"{name}, which was acknowledged to this host, is missing from the store, or cut short; {REMEDY}"
        ) from error
    # Not authenticated here. Whatever opens the volume verifies this object with all others above the mark.
    header = decode_header(head, magic=WAL_MAGIC, volume_id=storage.volume_id, name=name)
    if header.put_id != seen.wal_put_id:
        raise RollbackError(f"{name} is not the one that was acknowledged to this host; {REMEDY}")
