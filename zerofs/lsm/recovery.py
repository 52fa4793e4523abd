"""Opening a volume: claim, fence, check, replay (decision 0003), or only replay for a reader.

The order is load-bearing. The epoch is claimed before the WAL slot is looked for, so the mark that the slot is compared
with cannot move any more; the fence makes every older writer's next append fail; the epoch check after it catches a
claim that a still newer writer overtook; replay reads exactly what lies between mark and fence.
"""

import logging
from dataclasses import dataclass, replace

from zerofs.errors import (
    CorruptionError,
    FencedError,
    MissingObjectError,
    NoVolumeError,
    PreconditionFailedError,
    RollbackError,
)
from zerofs.ids import EPOCH_TOKEN_SIZE
from zerofs.lsm.checkpoints import find
from zerofs.lsm.format.header import (
    HEADER_SIZE,
    MANIFEST_MAGIC,
    WAL_MAGIC,
    decode_header,
    decode_whole_header,
)
from zerofs.lsm.format.manifest import Manifest, Tree, WriterInfo
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
    wal_name,
)
from zerofs.lsm.format.register import referred_bytes
from zerofs.lsm.format.trees import TREES
from zerofs.lsm.format.wal import FENCE
from zerofs.lsm.manifests import ManifestLost, ManifestStore, fenced
from zerofs.lsm.memtable import Memtable
from zerofs.lsm.storage import Storage
from zerofs.lsm.wal import WalObject, WalWriter, build_wal_object, fence_record, read_wal_object
from zerofs.lsm.witness import Seen

log = logging.getLogger(__name__)

CLAIM_TRIES = 16
FENCE_TRIES = 1024


@dataclass(slots=True, kw_only=True)
class Recovered:
    """An open volume: the version, the rows above it, and where the WAL goes on."""

    manifest: Manifest
    memtable: Memtable
    last_seqno: int
    referred: frozenset[SstId]
    """Chunk SSTs that replayed rows point to, rows that later ones replaced included."""
    wal: WalWriter | None
    """None for a reader."""


async def create_volume(storage: Storage, manifests: ManifestStore, writer: WriterInfo) -> None:
    """Create the first manifest of an empty volume. Losing the race to another creator is fine."""
    token = storage.world.entropy(EPOCH_TOKEN_SIZE)
    first = Manifest(
        manifest_id=1,
        epoch=1,
        token=token,
        put_id=b"",
        created_at_ns=storage.world.now_ns(),
        writer=writer,
        tokens={1: token},
        trees=tuple(Tree(prefix=prefix) for prefix in TREES),
    )
    try:
        await manifests.create(first)
    except ManifestLost:
        log.info("another process created the volume at the same moment")


async def open_writer(
    storage: Storage, manifests: ManifestStore, writer: WriterInfo, seen: Seen | None, *, accept_rollback: bool
) -> Recovered:
    """Take the volume for writing. Raises FencedError, RollbackError, CorruptionError, NoVolumeError."""
    newest = await _latest(manifests)
    await _check_rollback(storage, newest, seen, accepted=accept_rollback)
    claimed = await _claim(storage, manifests, newest, writer, seen if accept_rollback else None)
    storage.world.reached("open_after_claim_before_fence")
    try:
        first, put_fence = await _fence(storage, claimed)
    except MissingObjectError:
        # A newer writer may have collected what our claim still counts on; then that is what to say.
        await _check_epoch(manifests, claimed)
        raise
    await _check_epoch(manifests, claimed)
    storage.world.reached("open_after_fence_before_replay")
    recovered = await _replay(storage, claimed, first)
    wal = WalWriter(storage, epoch=claimed.epoch, token=claimed.token, last_id=first, last_put_id=put_fence)
    if accept_rollback and seen is not None:
        listed = [int(parse_wal_name(info.name)) for info in await storage.store.list(WAL_PREFIX)]
        wal.jump(max(first, seen.wal_id, *listed))
    recovered.wal = wal
    return recovered


async def open_reader(
    storage: Storage, manifests: ManifestStore, seen: Seen | None, *, accept_rollback: bool
) -> Recovered:
    """Read the volume as it is now, writing nothing to the store."""
    newest = await _latest(manifests)
    await _check_rollback(storage, newest, seen, accepted=accept_rollback)
    while True:
        try:
            ids = await _listed_wal_ids(storage, newest.wal_mark)
            return await _replay(storage, newest, ids[-1] if ids else newest.wal_mark)
        except MissingObjectError:
            # The writer may have collected it meanwhile: then there is a newer manifest, which does not need it.
            newer = await _latest(manifests)
            if newer.manifest_id == newest.manifest_id:
                raise
            newest = newer


async def open_checkpoint(storage: Storage, manifests: ManifestStore, name: str) -> Recovered:
    """Read the volume as it was at a checkpoint, by name or id. Writes nothing, and needs no WAL."""
    checkpoint = find(await _latest(manifests), name)
    try:
        pinned = await manifests.load(checkpoint.manifest_id)
    except MissingObjectError:
        # It may have been deleted at this very moment; then that is what to say.
        find(await _latest(manifests), name)
        raise
    return Recovered(manifest=pinned, memtable=Memtable(), last_seqno=pinned.last_seqno, referred=frozenset(), wal=None)


async def _check_epoch(manifests: ManifestStore, claimed: Manifest) -> None:
    overtaken = await manifests.newer_than(claimed)
    if overtaken is not None and overtaken.epoch > claimed.epoch:
        raise fenced(overtaken)


async def _latest(manifests: ManifestStore) -> Manifest:
    newest = await manifests.latest()
    if newest is None:
        raise NoVolumeError("there is no volume here: no manifest was found")
    return newest


async def _check_rollback(storage: Storage, newest: Manifest, seen: Seen | None, *, accepted: bool) -> None:
    """Compare the bucket with what this host remembers of the volume."""
    if seen is None or accepted:
        return
    remedy = "if the bucket was restored from a backup on purpose, start once with --accept-rollback"
    if newest.manifest_id < seen.manifest_id:
        raise RollbackError(
            f"{manifest_name(seen.manifest_id)}, which this host has seen, is missing; the newest one there is "
            f"{manifest_name(newest.manifest_id)}: an older state of the volume; {remedy}"
        )
    name = manifest_name(seen.manifest_id)
    body = await storage.get_or_none(name)
    if body is not None:
        header = decode_header(body, magic=MANIFEST_MAGIC, volume_id=storage.volume_id, name=name)
        if header.put_id != seen.manifest_put_id:
            raise RollbackError(f"{name} is not the one that this host has seen: another timeline; {remedy}")
    if seen.wal_id > newest.wal_mark:
        body = await storage.get_or_none(wal_name(seen.wal_id))
        if body is None:
            raise RollbackError(
                f"{wal_name(seen.wal_id)}, which was acknowledged to this host, is missing from the store; {remedy}"
            )
        name = wal_name(seen.wal_id)
        header = decode_header(body[:HEADER_SIZE], magic=WAL_MAGIC, volume_id=storage.volume_id, name=name)
        if header.put_id != seen.wal_put_id:
            raise RollbackError(f"{name} is not the one that was acknowledged to this host; {remedy}")


async def _claim(
    storage: Storage, manifests: ManifestStore, newest: Manifest, writer: WriterInfo, jump: Seen | None
) -> Manifest:
    """Create the manifest of a new epoch."""
    for _ in range(CLAIM_TRIES):
        manifest_id, epoch = newest.manifest_id + 1, newest.epoch + 1
        if jump is not None:
            manifest_id, epoch = await _above_everything(storage, newest, jump)
        token = storage.world.entropy(EPOCH_TOKEN_SIZE)
        claim = replace(
            newest,
            manifest_id=manifest_id,
            epoch=epoch,
            token=token,
            created_at_ns=storage.world.now_ns(),
            writer=writer,
            closed=False,
            tokens={**newest.tokens, epoch: token},
        )
        try:
            return await manifests.create(claim)
        except ManifestLost:
            newest = await _latest(manifests)
    raise FencedError("other writers keep claiming this volume; stop them, then try again")


async def _above_everything(storage: Storage, newest: Manifest, seen: Seen) -> tuple[int, int]:
    """A manifest id and an epoch that no timeline of this volume can have used."""
    manifest_ids = [
        int(parse_manifest_name(info.name))
        for info in await storage.store.list(MANIFEST_PREFIX)
        if info.name != FLOOR_NAME
    ]
    epochs = [parse_sst_name(info.name)[0] for info in await storage.store.list(SST_PREFIX)]
    return max(newest.manifest_id, seen.manifest_id, *manifest_ids) + 1, max([newest.epoch, *epochs]) + 1000


async def _listed_wal_ids(storage: Storage, mark: int) -> list[int]:
    """The ids of the WAL objects above the mark, by LIST and then by name until one is absent; a gap is corruption."""
    listed = await storage.store.list(WAL_PREFIX, wal_name(mark))
    ids = [int(parse_wal_name(info.name)) for info in listed]
    last = ids[-1] if ids else mark
    while await storage.exists(wal_name(last + 1)):
        last += 1
        ids.append(last)
    missing = set(range(mark + 1, last + 1)) - set(ids)
    if missing:
        raise MissingObjectError(f"{wal_name(min(missing))}: missing, although later WAL objects exist")
    return ids


async def _fence(storage: Storage, claimed: Manifest) -> tuple[int, bytes]:
    """Take the first free WAL id above the mark. Returns it with the put-id of the fence."""
    ids = await _listed_wal_ids(storage, claimed.wal_mark)
    slot = (ids[-1] if ids else claimed.wal_mark) + 1
    for _ in range(FENCE_TRIES):
        # Guard: a fence at or below the mark would never be replayed, nor would what follows it.
        if slot <= claimed.wal_mark:
            raise FencedError("the WAL moved on while this volume was opened")
        previous = claimed.wal_mark_put_id
        if slot - 1 > claimed.wal_mark:
            previous = await _put_id_before_fence(storage, claimed, slot - 1)
        put_id = storage.new_put_id()
        body = await build_wal_object(
            storage,
            wal_id=slot,
            epoch=claimed.epoch,
            token=claimed.token,
            put_id=put_id,
            record=fence_record(previous, claimed.last_seqno),
            frames=[],
        )
        try:
            await storage.create(wal_name(slot), body, put_id)
        except PreconditionFailedError:
            slot += 1
            continue
        return slot, put_id
    raise FencedError("another writer keeps appending to this volume; stop it, then try again")


async def _put_id_before_fence(storage: Storage, claimed: Manifest, wal_id: int) -> bytes:
    """The put-id of the WAL object that a fence follows.

    The object is verified first: a fence that names a damaged put-id would not fit once the object is restored.
    """
    name = wal_name(wal_id)
    body = await storage.store.get(name)
    header = decode_whole_header(body, magic=WAL_MAGIC, volume_id=storage.volume_id, name=name)
    if header.epoch > claimed.epoch:
        return header.put_id  # a newer writer's, if it is true: the epoch check that follows decides
    sealer = storage.sealers.wal
    return read_wal_object(
        body, wal_id=wal_id, tokens=claimed.tokens, volume_id=storage.volume_id, sealer=sealer
    ).put_id


async def _replay(storage: Storage, manifest: Manifest, last_id: int) -> Recovered:
    """The rows of the WAL objects above the mark, up to `last_id`, in a memtable."""
    memtable = Memtable()
    referred: set[SstId] = set()
    previous, epoch, seqno = manifest.wal_mark_put_id, 0, manifest.last_seqno
    for wal_id in range(manifest.wal_mark + 1, last_id + 1):
        name = wal_name(wal_id)
        body = await storage.get_or_none(name)
        if body is None:
            raise MissingObjectError(f"{name}: missing, although later WAL objects exist")
        wal_object = read_wal_object(
            body,
            wal_id=wal_id,
            tokens=manifest.tokens,
            volume_id=storage.volume_id,
            sealer=storage.sealers.wal,
        )
        if wal_object.record.previous_put_id != previous:
            raise CorruptionError(f"{name}: does not follow the WAL object before it")
        if wal_object.epoch < epoch:
            raise CorruptionError(f"{name}: written under an older epoch than the WAL object before it")
        previous, epoch = wal_object.put_id, wal_object.epoch
        seqno = max(seqno, wal_object.record.last_seqno)
        _apply(memtable, wal_object)
        referred.update(referred_bytes(wal_object.record.rows))
    if memtable:
        log.info("replayed %d WAL objects", last_id - manifest.wal_mark)
    return Recovered(manifest=manifest, memtable=memtable, last_seqno=seqno, referred=frozenset(referred), wal=None)


def _apply(memtable: Memtable, wal_object: WalObject) -> None:
    if wal_object.record.kind == FENCE:
        return
    for start, stop in wal_object.record.range_deletes:
        memtable.delete_range(start, stop)
    for row in wal_object.record.rows:
        memtable.put(row[0], wal_object.entry(row))
