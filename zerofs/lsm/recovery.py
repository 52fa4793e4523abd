"""Opening a volume: claim, fence, check, replay (decision 0003), or only replay for a reader.

The order is load-bearing. The epoch is claimed before the WAL slot is looked for, so the mark that the slot is compared
with cannot move any more; the fence makes every older writer's next append fail; the epoch check after it catches a
claim that a still newer writer overtook; replay reads exactly what lies between mark and fence.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

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
from zerofs.lsm.format.manifest import Manifest, Tree, WriterInfo, tag_of
from zerofs.lsm.format.names import (
    MANIFEST_PREFIX,
    MAX_EPOCH,
    SST_PREFIX,
    WAL_PREFIX,
    SstId,
    parse_manifest_name,
    parse_sst_name,
    parse_wal_name,
    sst_name,
    wal_name,
)
from zerofs.lsm.format.trees import TREES
from zerofs.lsm.lineage import claim_of, completed, continued
from zerofs.lsm.manifests import ManifestLost, ManifestStore, fenced
from zerofs.lsm.memtable import Memtable
from zerofs.lsm.replay import Replay, UnknownEpochError, read_wal
from zerofs.lsm.rollback import check_rollback
from zerofs.lsm.storage import Storage
from zerofs.lsm.wal import WalObject, WalWriter, build_wal_object, fence_record, read_wal_object
from zerofs.lsm.witness import Claim, Seen

log = logging.getLogger(__name__)

T = TypeVar("T")

RELOAD_TRIES = 8
"""How often an opening starts over with a newer manifest, each time because a writer was faster."""

CLAIM_TRIES = 16
FENCE_TRIES = 1024

ROLLBACK_EPOCHS = 1000
"""How far an accepted roll-back jumps above every epoch that is to be seen."""


@dataclass(slots=True, kw_only=True)
class Recovered:
    """An open volume: the version, the rows above it, and where the WAL goes on."""

    manifest: Manifest
    memtable: Memtable
    last_seqno: int
    referred: frozenset[SstId] = frozenset()
    """Chunk SSTs that replayed rows point to, rows that later ones replaced included."""
    wal: WalWriter | None = None
    """None for a reader."""
    seen: Seen
    """What was verified: for a reader to remember."""
    replay: Replay | None = None
    """What the memtable was made by; None for a checkpoint."""


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

    async def checked(newest: Manifest) -> Manifest:
        await check_rollback(storage, newest, None if accept_rollback else seen)
        # Before the claim: an opening that must end in an error should leave the volume as it was. A writer that ended
        # cleanly left nothing above its mark, so there is nothing to be wrong with.
        if not newest.closed:
            ids = await _wal_ids(storage, newest.wal_mark)
            if ids:
                await read_wal(storage, newest, ids[-1])
        return newest

    newest = await _of_newest(manifests, checked, manifests.take_loaded())
    claimed = await _claim(storage, manifests, newest, writer, seen if accept_rollback else None)
    storage.world.reached("open_after_claim_before_fence")
    try:
        fence_id, fence = await _fence(storage, manifests, claimed)
        await _check_epoch(manifests, claimed)
        storage.world.reached("open_after_fence_before_replay")
        recovered = await _replay(storage, claimed, fence_id - 1, fence)
    except CorruptionError:
        # A newer writer may have collected what our claim still counts on; then that is what to say.
        await _check_epoch(manifests, claimed)
        raise
    assert recovered.replay is not None, "it was replayed"
    recovered.manifest = replace(claimed, history=completed(claimed, recovered.replay.last_wal_ids))
    wal = WalWriter(storage, epoch=claimed.epoch, token=claimed.token, last_id=fence_id, last_put_id=fence.put_id)
    if accept_rollback and seen is not None:
        wal.jump(max([fence_id, seen.wal_id, *await storage.list_ids(WAL_PREFIX, parse_wal_name)]))
    recovered.wal = wal
    return recovered


async def open_reader(
    storage: Storage, manifests: ManifestStore, seen: Seen | None, *, accept_rollback: bool
) -> Recovered:
    """Read the volume as it is now, writing nothing to the store."""

    async def replayed(newest: Manifest) -> Recovered:
        await check_rollback(storage, newest, None if accept_rollback else seen)
        ids = await _wal_ids(storage, newest.wal_mark)
        return await _replay(storage, newest, ids[-1] if ids else newest.wal_mark)

    return await _of_newest(manifests, replayed)


async def open_checkpoint(
    storage: Storage, manifests: ManifestStore, name: str, seen: Seen | None, *, accept_rollback: bool
) -> Recovered:
    """Read the volume as it was at a checkpoint, by name or id. Writes nothing, and needs no WAL."""

    async def pinned(newest: Manifest) -> Recovered:
        await check_rollback(storage, newest, None if accept_rollback else seen)
        # Missing when the checkpoint was deleted at this very moment; then the newer manifest says so.
        manifest = await manifests.load(find(newest, name).manifest_id)
        return Recovered(manifest=manifest, memtable=Memtable(), last_seqno=manifest.last_seqno, seen=_seen(newest))

    return await _of_newest(manifests, pinned)


async def _of_newest(
    manifests: ManifestStore, attempt: Callable[[Manifest], Awaitable[T]], loaded: Manifest | None = None
) -> T:
    """What `attempt` makes of the newest manifest, or of the one that was loaded just now.

    A writer may move on meanwhile: claim an epoch that this manifest does not know, or collect what it refers to. Then
    there is a newer manifest, and another attempt.
    """
    newest = loaded or await _latest(manifests)
    for _ in range(RELOAD_TRIES):
        try:
            return await attempt(newest)
        except (MissingObjectError, UnknownEpochError, RollbackError):
            newer = await _latest(manifests)
            if newer.manifest_id == newest.manifest_id:
                raise
            newest = newer
    return await attempt(newest)


async def _check_epoch(manifests: ManifestStore, claimed: Manifest) -> None:
    overtaken = await manifests.newer_than(claimed)
    if overtaken is not None and overtaken.epoch > claimed.epoch:
        raise fenced(overtaken)


async def _latest(manifests: ManifestStore) -> Manifest:
    newest = await manifests.latest()
    if newest is None:
        raise NoVolumeError("there is no volume here: no manifest was found")
    return newest


async def _claim(
    storage: Storage, manifests: ManifestStore, newest: Manifest, writer: WriterInfo, jump: Seen | None
) -> Manifest:
    """Create the manifest of a new epoch."""
    for _ in range(CLAIM_TRIES):
        manifest_id, epoch = newest.manifest_id + 1, newest.epoch + 1
        if jump is not None:
            manifest_id, epoch = await _above_everything(storage, newest, jump)
            # Whoever still writes at the ids in between must not succeed there: nobody would look for a gap.
            await manifests.floor.raise_to(manifest_id, epoch)
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
            history=continued(newest),
        )
        try:
            return await manifests.create(claim)
        except ManifestLost:
            newest = await _latest(manifests)
    raise FencedError("other writers keep claiming this volume; stop them, then try again")


async def _above_everything(storage: Storage, newest: Manifest, seen: Seen) -> tuple[int, int]:
    """A manifest id and an epoch that no timeline of this volume can have used."""
    manifest_ids = await storage.list_ids(MANIFEST_PREFIX, parse_manifest_name)
    ssts = await storage.list_ids(SST_PREFIX, parse_sst_name)
    epoch = max([newest.epoch, *(sst[0] for sst in ssts)]) + ROLLBACK_EPOCHS
    if epoch > MAX_EPOCH:
        raise CorruptionError(f"{sst_name(max(ssts))}: of an epoch that no zerofs came to; delete it, and try again")
    return max(newest.manifest_id, seen.manifest_id, *manifest_ids) + 1, epoch


async def _wal_ids(storage: Storage, mark: int) -> list[int]:
    """The ids of the WAL objects above the mark, by LIST and then by name until one is absent; a gap is corruption."""
    ids = await _listed_wal_ids(storage, mark)
    last = mark + len(ids)
    while await storage.exists(wal_name(last + 1)):
        last += 1
        ids.append(last)
    return ids


async def _listed_wal_ids(storage: Storage, mark: int) -> list[int]:
    """The ids of the WAL objects above the mark as far as a LIST knows; a gap is corruption."""
    ids = [int(wal_id) for wal_id in await storage.list_ids(WAL_PREFIX, parse_wal_name, wal_name(mark))]
    # The ids are what somebody may have made up: nothing is done once for each id in between.
    for expected, wal_id in enumerate(ids, start=mark + 1):
        if wal_id != expected:
            raise MissingObjectError(f"{wal_name(expected)}: missing, although later WAL objects exist")
    return ids


async def _fence(storage: Storage, manifests: ManifestStore, claimed: Manifest) -> tuple[int, WalObject]:
    """Take the first free WAL id above the mark. Returns it with the fence, as any reader would read it."""
    # What a LIST does not know yet, the attempt to take its id finds.
    ids = await _listed_wal_ids(storage, claimed.wal_mark)
    slot = (ids[-1] if ids else claimed.wal_mark) + 1
    # Above the mark, so it will be replayed. The mark cannot pass it any more, because the claim came before the look:
    # in the other order this would have to be compared again (0013).
    for _ in range(FENCE_TRIES):
        previous = claimed.wal_mark_put_id
        if slot - 1 > claimed.wal_mark:
            previous = await _put_id_before_fence(storage, manifests, claimed, slot - 1)
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
        fence = read_wal_object(
            b"".join(body),
            wal_id=slot,
            tokens=claimed.tokens,
            volume_id=storage.volume_id,
            sealer=storage.sealers.wal,
        )
        return slot, fence
    raise FencedError("another writer keeps appending to this volume; stop it, then try again")


async def _put_id_before_fence(storage: Storage, manifests: ManifestStore, claimed: Manifest, wal_id: int) -> bytes:
    """The put-id of the WAL object that a fence follows.

    The object is verified first: a fence above one that is not the volume's would be cut off with it. Raises
    FencedError for one of a newer writer.
    """
    try:
        return (await read_wal(storage, claimed, wal_id)).put_id
    except UnknownEpochError:
        await _check_epoch(manifests, claimed)
        raise


async def _replay(storage: Storage, manifest: Manifest, last_id: int, fence: WalObject | None = None) -> Recovered:
    """The rows of the WAL objects above the mark, up to `last_id`, in a memtable; then `fence`, if we made one."""
    replay = Replay(manifest)
    for wal_id in range(manifest.wal_mark + 1, last_id + 1):
        replay.add(await read_wal(storage, manifest, wal_id))
    if fence is not None:
        replay.add(fence)
    if replay.memtable:
        log.info("replayed %d WAL objects", last_id - manifest.wal_mark)
    seen, epoch = _seen(manifest), replay.epoch
    if epoch:
        claim = Claim(epoch, tag_of(manifest.tokens[epoch]))
        seen = replace(seen, wal_id=replay.last_id, wal_put_id=replay.last_put_id, wal_claim=claim)
    return Recovered(
        manifest=manifest,
        memtable=replay.memtable,
        last_seqno=replay.seqno,
        referred=frozenset(replay.referred),
        seen=seen,
        replay=replay,
    )


def _seen(manifest: Manifest) -> Seen:
    """What a host has seen that looked at this manifest, and at nothing above its mark."""
    claim = claim_of(manifest)
    return Seen(
        manifest_id=manifest.manifest_id,
        manifest_put_id=manifest.put_id,
        manifest_claim=claim,
        wal_id=manifest.wal_mark,
        wal_put_id=manifest.wal_mark_put_id,
        wal_claim=claim,
    )
