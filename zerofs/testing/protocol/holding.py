"""The steps of a writer that has the volume, or thinks so: append, flush, collect; and of what outlives its loss."""

from zerofs.testing.protocol.requests import Fate, Reply, create, put
from zerofs.testing.protocol.volume import (
    Phase,
    Record,
    Rules,
    Stage,
    Steps,
    Volume,
    Writer,
    arrived,
    at,
    members,
    placed,
    with_writer,
)


def hold_steps(volume: Volume, i: int, rules: Rules) -> Steps:
    """What writer `i` can do next. One that is fenced begins nothing; its flush and its pass go on."""
    writer = volume.writers[i]
    if writer.phase == Phase.OPEN:
        if writer.pending:
            yield _resolve(volume, i, rules)
        elif volume.left.appends:
            yield from _append(volume, i, rules)
        if not writer.wanted and volume.left.flushes:
            yield _freeze(volume, i)
        if not writer.sweeping and volume.left.passes:
            yield from _decide(volume, i, rules)
    if writer.wanted:
        yield from _flush(volume, i, rules)
    if writer.sweeping:
        yield from _delete(volume, i, rules)


def named(payloads: int) -> str:
    """Payloads as letters."""
    return "".join(chr(ord("a") + number) for number in members(payloads))


def _append(volume: Volume, i: int, rules: Rules) -> Steps:
    writer = volume.writers[i]
    base, wal_id = writer.manifest, writer.slot + 1
    record = Record(epoch=base.epoch, token=base.token, payload=1 << volume.payloads, follows=writer.follows)
    left = volume.left._replace(appends=volume.left.appends - 1)
    issued = volume._replace(payloads=volume.payloads + 1, left=left)
    what = f"appends payload {named(record.payload)} as WAL {wal_id}"
    for reply, after, truth in put(issued, wal_id, record):
        if reply == Reply.STORED:
            yield f"{what}: acknowledged", _acknowledged(after, i, record)
        elif reply == Reply.NONE:
            yield f"{what} and hears nothing: {truth}", with_writer(after, i, writer._replace(pending=record))
        elif rules.guards.put_id_decides:
            yield f"{what} and is refused", with_writer(after, i, writer._replace(pending=record))
        else:
            yield f"{what} and is refused: it is fenced", with_writer(after, i, _fenced(writer))


def _resolve(volume: Volume, i: int, rules: Rules) -> tuple[str, Volume]:
    """An append in doubt: the object that is there decides."""
    writer = volume.writers[i]
    record, wal_id = writer.pending, writer.slot + 1
    assert record
    found = at(volume.wal, wal_id)
    if not found:
        after = _acknowledged(arrived(volume, wal_id, record), i, record)
        return f"sees no WAL {wal_id} and puts it again: acknowledged", after
    if found == record:
        return f"sees that WAL {wal_id} is its own: acknowledged", _acknowledged(volume, i, record)
    if rules.guards.put_id_decides:
        return f"sees that WAL {wal_id} is another's: it is fenced", with_writer(volume, i, _fenced(writer))
    return f"is refused WAL {wal_id} and takes it for its own: acknowledged", _acknowledged(volume, i, record)


def _acknowledged(volume: Volume, i: int, record: Record) -> Volume:
    writer = volume.writers[i]
    payloads = writer.payloads | record.payload
    stored = writer._replace(slot=writer.slot + 1, follows=record.token, payloads=payloads, pending=())
    return with_writer(volume._replace(acknowledged=volume.acknowledged | record.payload), i, stored)


def _freeze(volume: Volume, i: int) -> tuple[str, Volume]:
    """What the WAL holds now will be in the trees of the next manifest, and the mark will stand here."""
    writer = volume.writers[i]
    base = writer.manifest
    wanted = base._replace(
        manifest_id=base.manifest_id + 1,
        mark=writer.slot,
        mark_token=writer.follows,
        trees=writer.payloads,
        tokens=1 << base.token,
        line=(*base.line, base.token),
    )
    left = volume.left._replace(flushes=volume.left.flushes - 1)
    freezing = writer._replace(wanted=wanted, stage=Stage.PUT)
    return f"freezes its memtable at WAL {writer.slot}", with_writer(volume._replace(left=left), i, freezing)


def _flush(volume: Volume, i: int, rules: Rules) -> Steps:
    writer = volume.writers[i]
    for what, fate, after in create(volume, i, rules):
        if fate == Fate.CREATED:
            flushed = writer._replace(base=writer.wanted, wanted=(), stage=Stage.NONE)
            yield f"{what}: flushed", with_writer(after, i, flushed)
        elif fate == Fate.LOST:
            lost = _fenced(writer)._replace(wanted=(), stage=Stage.NONE)
            yield f"{what}: it is fenced", with_writer(after, i, lost)
        else:
            yield what, after


def _decide(volume: Volume, i: int, rules: Rules) -> Steps:
    """A pass over WAL and manifests. It goes by the version in memory and asks nobody: for these two that is enough."""
    writer = volume.writers[i]
    base = writer.manifest
    wal = sum(
        1 << wal_id
        for wal_id, record in enumerate(volume.wal[: base.mark], 1)
        if record and (record.payload or not rules.guards.fences_kept)
    )
    old = volume.manifests[: max(0, base.manifest_id - 2)]
    manifests = sum(1 << manifest.manifest_id for manifest in old if manifest)
    if wal or manifests:
        floor = base.manifest_id - 1 if manifests else 0
        deciding = writer._replace(doomed_wal=wal, doomed_manifests=manifests, floor=floor)
        left = volume.left._replace(passes=volume.left.passes - 1)
        doomed = " and ".join(filter(None, (_listed("WAL", wal), _listed("manifest", manifests))))
        what = f"decides by manifest {base.manifest_id} to delete {doomed}"
        yield what, with_writer(volume._replace(left=left), i, deciding)


def _delete(volume: Volume, i: int, rules: Rules) -> Steps:
    writer = volume.writers[i]
    for wal_id in members(writer.doomed_wal):
        rest = writer._replace(doomed_wal=writer.doomed_wal & ~(1 << wal_id))
        yield f"deletes WAL {wal_id}", with_writer(volume._replace(wal=placed(volume.wal, wal_id, ())), i, rest)
    if writer.floor:
        floor = max(writer.floor, volume.floor) if rules.guards.floor_only_rises else writer.floor
        what = f"raises the floor to {floor}" if floor >= volume.floor else f"lowers the floor to {floor}"
        yield what, with_writer(volume._replace(floor=floor), i, writer._replace(floor=0))
    if not writer.floor or not rules.guards.floor_before_deletes:
        for manifest_id in members(writer.doomed_manifests):
            rest = writer._replace(doomed_manifests=writer.doomed_manifests & ~(1 << manifest_id))
            manifests = placed(volume.manifests, manifest_id, ())
            yield f"deletes manifest {manifest_id}", with_writer(volume._replace(manifests=manifests), i, rest)


def _fenced(writer: Writer) -> Writer:
    return writer._replace(phase=Phase.LOST, slot=0, follows=0, payloads=0, pending=())


def _listed(what: str, ids: int) -> str:
    return f"{what} {', '.join(map(str, members(ids)))}" if ids else ""
