"""The steps of a writer that takes the volume over: read, claim, look for a WAL slot, fence, check, replay."""

from zerofs.testing.protocol.requests import Fate, Reply, create, newer_epoch, put, replay
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
    with_writer,
)


def open_steps(volume: Volume, i: int, rules: Rules) -> Steps:
    """What writer `i` can do next on its way to an open volume."""
    phase = volume.writers[i].phase
    if phase == Phase.IDLE and rules.jumps:
        floored = volume.writers[i]._replace(phase=Phase.FLOORED, floor=volume.floor)
        yield f"reads floor {volume.floor}", with_writer(volume, i, floored)
        if volume.left.jumps:
            yield _jump(volume, i, rules)
    elif phase in (Phase.IDLE, Phase.FLOORED):
        yield _read(volume, i, rules)
    elif phase == Phase.CLAIMING:
        yield from _claim(volume, i, rules)
    elif phase in (Phase.PROBED, Phase.CLAIMED):
        yield _look_for_slot(volume, i, rules)
    elif phase == Phase.FENCING:
        yield from _fence(volume, i, rules)
    elif phase == Phase.FENCED:
        yield _check_epoch(volume, i, rules)
    elif phase == Phase.CHECKED:
        yield _replay(volume, i, rules)
    elif phase == Phase.TROUBLED:
        yield _explain(volume, i, rules)


def _jump(volume: Volume, i: int, rules: Rules) -> tuple[str, Volume]:
    """A roll-back was accepted: the next manifest id shall be above whatever may have been there."""
    newest = volume.newest
    above = newest.manifest_id + 2
    left = volume.left._replace(jumps=volume.left.jumps - 1)
    if rules.guards.jump_raises_floor:
        return f"raises the floor to {above}", volume._replace(floor=max(volume.floor, above), left=left)
    wanted = newest._replace(manifest_id=above, epoch=newest.epoch + 1, token=0)
    reading = Writer(phase=Phase.CLAIMING, base=newest, wanted=wanted, stage=Stage.PUT)
    what = f"reads manifest {newest.manifest_id} (epoch {newest.epoch}, mark {newest.mark}), will leave one out"
    return what, with_writer(volume._replace(left=left), i, reading)


def _read(volume: Volume, i: int, rules: Rules) -> tuple[str, Volume]:
    newest = volume.newest
    next_id = max(newest.manifest_id + 1, volume.writers[i].floor)
    wanted = newest._replace(manifest_id=next_id, epoch=newest.epoch + 1, token=0)
    slot = volume.writers[i].slot
    reading = Writer(phase=Phase.CLAIMING, base=newest, wanted=wanted, stage=Stage.PUT, slot=slot)
    if not rules.claim_first and not slot:
        reading = reading._replace(phase=Phase.PROBED)
    what = f"reads manifest {newest.manifest_id} (epoch {newest.epoch}, mark {newest.mark})"
    return what, with_writer(volume, i, reading)


def _claim(volume: Volume, i: int, rules: Rules) -> Steps:
    writer = volume.writers[i]
    for what, fate, after in create(volume, i, rules):
        if fate == Fate.CREATED:
            claimed = writer._replace(phase=Phase.CLAIMED, base=writer.wanted, wanted=(), stage=Stage.NONE)
            yield f"{what}: it has claimed epoch {claimed.manifest.epoch}", with_writer(after, i, claimed)
        elif fate == Fate.LOST:
            again = Writer(slot=0 if rules.claim_first else writer.slot)
            yield f"{what}: it has to read again", with_writer(after, i, again)
        else:
            yield what, after


def _look_for_slot(volume: Volume, i: int, rules: Rules) -> tuple[str, Volume]:
    """LIST above the mark, unless there is a slot already that will do."""
    writer = volume.writers[i]
    mark, slot = writer.manifest.mark, writer.slot
    what = f"keeps to WAL {slot}"
    if not slot or (rules.guards.slot_above_mark and slot <= mark):
        slot = max(len(volume.wal), mark) + 1
        what = f"finds WAL {slot} free"
        gap = next((wal_id for wal_id in range(mark + 1, slot) if not at(volume.wal, wal_id)), 0)
        if gap and writer.phase == Phase.PROBED:
            return f"lists the WAL, misses {gap} and reads again", with_writer(volume, i, Writer())
        if gap:
            return _trouble(volume, i, rules, f"lists the WAL and misses {gap}")
    if writer.phase == Phase.PROBED:
        return what, with_writer(volume, i, writer._replace(phase=Phase.CLAIMING, slot=slot))
    return _aim(volume, i, rules, slot, what)


def _aim(volume: Volume, i: int, rules: Rules, slot: int, what: str) -> tuple[str, Volume]:
    """Choose `slot` for the fence, if the object before it does not speak against that."""
    writer = volume.writers[i]
    base = writer.manifest
    follows = base.mark_token
    if slot - 1 > base.mark:
        before = at(volume.wal, slot - 1)
        if rules.guards.yields_to_newer and before and before.epoch > base.epoch:
            what = f"{what}, behind an object of epoch {before.epoch}: it is fenced"
            return what, with_writer(volume, i, Writer(phase=Phase.LOST))
        follows = before.token if before else 0
    aiming = writer._replace(phase=Phase.FENCING, slot=slot, follows=follows, pending=())
    return what, with_writer(volume, i, aiming)


def _fence(volume: Volume, i: int, rules: Rules) -> Steps:
    writer = volume.writers[i]
    base, slot = writer.manifest, writer.slot
    fence = Record(epoch=base.epoch, token=base.token, payload=0, follows=writer.follows)
    phase = Phase.FENCED if rules.guards.epoch_rechecked else Phase.CHECKED
    fenced = writer._replace(phase=phase, follows=base.token, pending=())
    if not writer.pending:
        for reply, after, truth in put(volume, slot, fence):
            if reply == Reply.STORED:
                yield f"puts its fence as WAL {slot}", with_writer(after, i, fenced)
            elif reply == Reply.NONE:
                doubting = with_writer(after, i, writer._replace(pending=fence))
                yield f"puts its fence as WAL {slot} and hears nothing: {truth}", doubting
            elif rules.guards.put_id_decides:
                yield f"is refused WAL {slot}", with_writer(volume, i, writer._replace(pending=fence))
            else:
                yield _aim(volume, i, rules, slot + 1, f"is refused WAL {slot} and turns to {slot + 1}")
        return
    found = at(volume.wal, slot)
    if not found:
        after = arrived(volume, slot, fence)
        yield f"sees no WAL {slot} and puts its fence there again", with_writer(after, i, fenced)
    elif found == fence:
        yield f"sees that WAL {slot} is its own fence", with_writer(volume, i, fenced)
    elif rules.guards.put_id_decides:
        yield _aim(volume, i, rules, slot + 1, f"sees that WAL {slot} is another's and turns to {slot + 1}")
    else:
        yield f"is refused WAL {slot} and takes it for its own fence", with_writer(volume, i, fenced)


def _check_epoch(volume: Volume, i: int, rules: Rules) -> tuple[str, Volume]:
    writer = volume.writers[i]
    newer = newer_epoch(volume, writer.manifest, rules.guards)
    if newer:
        return f"finds epoch {newer}: it is fenced", with_writer(volume, i, Writer(phase=Phase.LOST))
    return "finds no newer epoch", with_writer(volume, i, writer._replace(phase=Phase.CHECKED))


def _replay(volume: Volume, i: int, rules: Rules) -> tuple[str, Volume]:
    writer = volume.writers[i]
    base = writer.manifest
    payloads, wrong = replay(volume, base, writer.slot, rules.guards)
    if wrong:
        return _trouble(volume, i, rules, f"replays the WAL, and {wrong}")
    opened = writer._replace(phase=Phase.OPEN, payloads=base.trees | payloads)
    return f"replays WAL {base.mark + 1} to {writer.slot} and is open", with_writer(volume, i, opened)


def _trouble(volume: Volume, i: int, rules: Rules, what: str) -> tuple[str, Volume]:
    if rules.guards.asks_before_blaming:
        return what, with_writer(volume, i, Writer(phase=Phase.TROUBLED, base=volume.writers[i].base))
    return f"{what}: it reports damage", with_writer(volume, i, Writer(phase=Phase.BLAMING))


def _explain(volume: Volume, i: int, rules: Rules) -> tuple[str, Volume]:
    newer = newer_epoch(volume, volume.writers[i].manifest, rules.guards)
    if newer:
        return f"finds epoch {newer}: it is fenced", with_writer(volume, i, Writer(phase=Phase.LOST))
    return "finds no newer epoch: it reports damage", with_writer(volume, i, Writer(phase=Phase.BLAMING))
