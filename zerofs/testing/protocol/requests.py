"""What the writers of the model of taking over ask of the store, and every answer that they may get."""

from collections.abc import Iterator
from enum import IntEnum

from zerofs.testing.protocol.guards import Guards
from zerofs.testing.protocol.volume import (
    Manifest,
    Nothing,
    Record,
    Rules,
    Stage,
    Volume,
    arrived,
    at,
    with_writer,
)


class Reply(IntEnum):
    """What a writer hears of its put."""

    STORED = 0
    TAKEN = 1
    NONE = 2


class Fate(IntEnum):
    """What became of the manifest that a writer wants to create."""

    OPEN = 0
    CREATED = 1
    LOST = 2


def put(volume: Volume, object_id: int, thing: Record | Manifest) -> Iterator[tuple[Reply, Volume, str]]:
    """A conditional put with each of its fates; the last is told in words when the writer hears nothing."""
    after = arrived(volume, object_id, thing)
    effect = after is not volume
    yield (Reply.STORED if effect else Reply.TAKEN), after, ""
    if volume.left.faults:
        left = volume.left._replace(faults=volume.left.faults - 1)
        yield Reply.NONE, after._replace(left=left), "it was stored" if effect else "it was refused"
        if effect:
            late = tuple(sorted((*volume.late, (object_id, thing))))
            yield Reply.NONE, volume._replace(left=left, late=late), "it is still on its way"


def create(volume: Volume, i: int, rules: Rules) -> Iterator[tuple[str, Fate, Volume]]:
    """The next request of writer `i` for the manifest that it wants. What comes after that is the caller's business."""
    writer = volume.writers[i]
    wanted = writer.wanted
    assert wanted
    name = f"manifest {wanted.manifest_id}"
    if writer.stage == Stage.FLOOR:
        if rules.guards.floor_checked and volume.floor > wanted.manifest_id:
            yield f"reads floor {volume.floor}, so {name} proves nothing", Fate.LOST, volume
        else:
            yield f"finds {name} not below the floor", Fate.CREATED, volume
        return
    found = at(volume.manifests, wanted.manifest_id)
    if not wanted.token:
        token = volume.tokens + 1
        left_out = (0,) * (wanted.manifest_id - len(wanted.line) - 1)
        wanted = wanted._replace(token=token, tokens=wanted.tokens | 1 << token, line=(*wanted.line, *left_out, token))
    issued = volume._replace(tokens=max(volume.tokens, wanted.token))
    stored = writer._replace(wanted=wanted, stage=Stage.FLOOR)
    if writer.stage == Stage.PUT:
        for reply, after, truth in put(issued, wanted.manifest_id, wanted):
            if reply == Reply.STORED:
                what = f"creates {name} (epoch {wanted.epoch}, mark {wanted.mark})"
                yield what, Fate.OPEN, with_writer(after, i, stored)
            elif reply == Reply.NONE:
                doubting = with_writer(after, i, writer._replace(wanted=wanted, stage=Stage.DOUBT))
                yield f"puts {name} and hears nothing: {truth}", Fate.OPEN, doubting
            elif rules.guards.put_id_decides:
                yield f"is refused {name}", Fate.OPEN, with_writer(volume, i, writer._replace(stage=Stage.DOUBT))
            else:
                yield f"is refused {name}", Fate.LOST, volume
    elif not found:
        after = arrived(issued, wanted.manifest_id, wanted)
        yield f"sees no {name} and puts it again", Fate.OPEN, with_writer(after, i, stored)
    elif found.token == wanted.token:
        yield f"sees that {name} is its own", Fate.OPEN, with_writer(volume, i, stored)
    elif rules.guards.put_id_decides:
        yield f"sees that {name} is another's", Fate.LOST, volume
    else:
        yield f"is refused {name} and takes it for its own", Fate.OPEN, with_writer(issued, i, stored)


def newer_epoch(volume: Volume, base: Manifest, guards: Guards) -> int:
    """The epoch of the newest manifest above `base`, found by name, then, when the floor says so, by LIST; or 0."""
    newest: Manifest | Nothing = ()
    while found := at(volume.manifests, (newest or base).manifest_id + 1):
        newest = found
    if not newest and guards.sees_deleted_claims and volume.floor > base.manifest_id:
        newest = volume.newest
    return newest.epoch if newest and newest.epoch > base.epoch else 0


def replay(volume: Volume, manifest: Manifest, stop: int, guards: Guards) -> tuple[int, str]:
    """The payloads above the mark of a manifest up to a WAL id; and what is wrong there, empty if nothing."""
    payloads, epoch, token = 0, 0, manifest.mark_token
    for wal_id in range(manifest.mark + 1, stop + 1):
        record = at(volume.wal, wal_id)
        if not record:
            return payloads, f"WAL {wal_id} is missing"
        if guards.replay_verifies:
            if not manifest.tokens >> record.token & 1:
                return payloads, f"WAL {wal_id} is of an epoch that manifest {manifest.manifest_id} does not know"
            if record.follows != token:
                return payloads, f"WAL {wal_id} does not follow the object before it"
            if record.epoch < epoch:
                return payloads, f"WAL {wal_id} is of an older epoch than the object before it"
        payloads, epoch, token = payloads | record.payload, record.epoch, record.token
    return payloads, ""
