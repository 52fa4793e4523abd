"""The steps of the model of collecting: take over, commit, sync, flush, merge, checkpoint, collect."""

from collections.abc import Iterator

from zerofs.testing.protocol.guards import Guards
from zerofs.testing.protocol.space import (
    Edit,
    Job,
    Kind,
    Owner,
    Pass,
    Point,
    Space,
    Sst,
    Stage,
    Version,
    bit,
    members,
    rows_of,
    with_owner,
    with_sst,
)

Steps = Iterator[tuple[str, Space]]


def take_over(space: Space, i: int, guards: Guards) -> tuple[str, Space]:
    """Claim, fence and replay at once: from here on nobody older can append or create a manifest."""
    newest = space.manifests[-1]
    assert newest
    version = newest._replace(version_id=newest.version_id + 1, epoch=newest.epoch + 1)
    replayed = space.wal[newest.mark :]
    owner = Owner(
        epoch=version.epoch,
        version=version,
        active=replayed[-1] if replayed else 0,
        held=sum(map(bit, replayed)) if guards.replayed_held else 0,
    )
    what = f"takes over with epoch {version.epoch}, manifest {version.version_id}"
    return what, with_owner(space._replace(manifests=(*space.manifests, version)), i, owner)


def own_steps(space: Space, i: int, guards: Guards) -> Steps:
    """What writer `i`, which has the volume or had it, can do next."""
    owner = space.writers[i]
    yield from _store(space, i, guards)
    if owner.edit:
        yield _in_force(space, i, guards)
        if space.left.doubts:
            yield _give_up(space, i, guards)
    elif not owner.fenced:
        yield from _edits(space, i, guards)
    if not owner.fenced:
        yield from _begin(space, i, guards)
    if owner.sweep:
        yield from _sweep(space, i, guards)


def _begin(space: Space, i: int, guards: Guards) -> Steps:
    """Everything that a writer starts in its own memory: a commit, a freeze, a merge, a pass."""
    owner, left = space.writers[i], space.left
    version, sst = owner.version, len(space.ssts) + 1
    assert version
    if left.commits and not owner.unsynced and not owner.uploading:
        begun = space._replace(ssts=(*space.ssts, Sst(owner.epoch, 0)), left=left._replace(commits=left.commits - 1))
        committed = owner._replace(active=sst, unsynced=sst, uploading=sst)
        yield f"commits a value for chunk SST {sst}", with_owner(begun, i, committed)
    if left.flushes and owner.active and not owner.unsynced and not owner.frozen:
        meta = Sst(owner.epoch, bit(owner.active))
        begun = space._replace(ssts=(*space.ssts, meta), left=left._replace(flushes=left.flushes - 1))
        frozen = owner._replace(
            active=0, frozen=owner.active, held=0, held_frozen=owner.held, flush=Job(sst, mark=len(space.wal))
        )
        yield f"freezes its memtable at WAL {len(space.wal)} for meta SST {sst}", with_owner(begun, i, frozen)
    if left.merges and len(version.runs) > 1 and not owner.merge:
        newest = bit(members(rows_of(space, version.runs))[-1])
        meta = Sst(owner.epoch, newest)
        begun = space._replace(ssts=(*space.ssts, meta), left=left._replace(merges=left.merges - 1))
        merging = owner._replace(merge=Job(sst, inputs=version.runs, before=version))
        yield f"begins to merge {_named(version.runs)} into meta SST {sst}", with_owner(begun, i, merging)
    if left.passes and not owner.sweep:
        begun = space._replace(left=left._replace(passes=left.passes - 1))
        if guards.listed_before:
            listed = _listed(space)
            listing = owner._replace(sweep=Pass(Stage.LISTED, listed, version))
            yield f"lists SSTs {_named(members(listed))}", with_owner(begun, i, listing)
        else:
            noting = owner._replace(sweep=Pass(Stage.LISTED, 0, version, _protected(owner, guards)))
            yield f"notes manifest {version.version_id} and the protected names", with_owner(begun, i, noting)


def _store(space: Space, i: int, guards: Guards) -> Steps:
    """SSTs that reach the store, and WAL objects."""
    owner = space.writers[i]
    newest = space.manifests[-1]
    assert newest
    if owner.uploading:
        number = owner.uploading
        after = owner._replace(uploading=0, held=owner.held | bit(number) if guards.held_until_flush else owner.held)
        yield f"stores chunk SST {number}", with_owner(with_sst(space, number, stored=True), i, after)
    for job in (owner.flush, owner.merge):
        if job and not space.ssts[job.sst - 1].stored and not owner.fenced:
            yield f"stores meta SST {job.sst}", with_sst(space, job.sst, stored=True)
    if owner.unsynced and not owner.fenced and not (guards.chunks_before_wal and owner.uploading):
        row = owner.unsynced
        if newest.epoch > owner.epoch:
            yield "is refused its WAL object: it is fenced", with_owner(space, i, _fenced(owner))
        else:
            stored = space._replace(wal=(*space.wal, row), acknowledged=row)
            what = f"appends WAL {len(stored.wal)}, which names chunk SST {row}: acknowledged"
            yield what, with_owner(stored, i, owner._replace(unsynced=0))


def _edits(space: Space, i: int, guards: Guards) -> Steps:
    """Manifests that can be put now. One at a time: the next waits until this one is in force."""
    owner = space.writers[i]
    version = owner.version
    assert version
    if owner.flush and space.ssts[owner.flush.sst - 1].stored:
        runs = (owner.flush.sst, *version.runs)
        yield _put(space, i, version._replace(runs=runs, mark=owner.flush.mark), Kind.FLUSH)
    if owner.merge and space.ssts[owner.merge.sst - 1].stored:
        inputs, before = owner.merge.inputs, owner.merge.before
        assert before
        base = version.runs if guards.edits_on_current else before.runs
        kept = tuple(run for run in base if run not in inputs)
        yield _put(space, i, version._replace(runs=(*kept, owner.merge.sst)), Kind.MERGE)
    if space.left.points:
        spent = space._replace(left=space.left._replace(points=space.left.points - 1))
        point = Point(version.version_id + 1, version.epoch)
        yield _put(spent, i, version._replace(points=(*version.points, point)), Kind.POINT)
    if space.left.forgets:
        spent = space._replace(left=space.left._replace(forgets=space.left.forgets - 1))
        for point in version.points:
            if point in space.points:  # otherwise nobody was told of it yet
                points = tuple(other for other in version.points if other != point)
                forgotten = spent._replace(points=tuple(other for other in spent.points if other != point))
                yield _put(forgotten, i, version._replace(points=points), Kind.FORGET)


def _put(space: Space, i: int, version: Version, kind: Kind) -> tuple[str, Space]:
    owner = space.writers[i]
    wanted = version._replace(version_id=version.version_id + 1)
    what = f"puts manifest {wanted.version_id} ({kind.name.lower()}, runs {_named(wanted.runs)})"
    taken = wanted.version_id <= len(space.manifests) and space.manifests[wanted.version_id - 1]
    if taken:
        return f"{what} and is refused: it is fenced", with_owner(space, i, _fenced(owner))
    manifests = (*space.manifests[: wanted.version_id - 1], wanted, *space.manifests[wanted.version_id :])
    return what, with_owner(space._replace(manifests=manifests), i, owner._replace(edit=Edit(wanted, kind)))


def _in_force(space: Space, i: int, guards: Guards) -> tuple[str, Space]:
    """The put is known to have succeeded: in one instant the version is the current one, and names are let go."""
    owner = space.writers[i]
    assert owner.edit
    version, kind = owner.edit
    if guards.floor_checked and space.floor > version.version_id:
        return "reads the floor: it is fenced", with_owner(space, i, _fenced(owner))
    after = owner._replace(version=version, edit=())
    if kind == Kind.FLUSH:
        after = after._replace(flush=(), frozen=0, held_frozen=0)
    elif kind == Kind.MERGE:
        after = after._replace(merge=())
    elif kind == Kind.POINT:
        space = space._replace(points=(*space.points, version.points[-1]))
    return f"hears that manifest {version.version_id} is stored", with_owner(space, i, after)


def _give_up(space: Space, i: int, guards: Guards) -> tuple[str, Space]:
    """The put went well, but its writer does not learn that: an error or a cancellation came in between."""
    owner = space.writers[i]
    assert owner.edit
    version, kind = owner.edit
    after, job = owner._replace(edit=()), owner.flush if kind == Kind.FLUSH else owner.merge
    if kind == Kind.FLUSH:
        after = after._replace(flush=())
    elif kind == Kind.MERGE:
        after = after._replace(merge=())
    if job and kind in (Kind.FLUSH, Kind.MERGE) and guards.doubt_keeps_names:
        after = after._replace(doubtful=owner.doubtful | bit(job.sst))
    spent = space._replace(left=space.left._replace(doubts=space.left.doubts - 1))
    return f"gives up without knowing whether manifest {version.version_id} is stored", with_owner(spent, i, after)


def _sweep(space: Space, i: int, guards: Guards) -> Steps:
    """The next step of a pass: decide, confirm, delete. Its deletes go on when the writer is fenced."""
    owner = space.writers[i]
    sweep = owner.sweep
    assert sweep
    if sweep.stage == Stage.LISTED:
        if not owner.fenced:
            yield _decide(space, i, guards)
    elif sweep.stage == Stage.DECIDED:
        yield _confirm(space, i, guards)
    else:
        for number in members(sweep.ssts):
            rest = sweep._replace(ssts=sweep.ssts & ~bit(number))
            yield f"deletes SST {number}", with_owner(with_sst(space, number, stored=False), i, _sweeping(owner, rest))
        for number in members(sweep.manifests):
            rest = sweep._replace(manifests=sweep.manifests & ~bit(number))
            manifests = (*space.manifests[: number - 1], (), *space.manifests[number:])
            yield (
                f"deletes manifest {number}",
                with_owner(space._replace(manifests=manifests), i, _sweeping(owner, rest)),
            )


def _decide(space: Space, i: int, guards: Guards) -> tuple[str, Space]:
    """The rule of decision 0010. Version and protected names are those of this instant."""
    owner = space.writers[i]
    sweep = owner.sweep
    assert sweep
    view = owner.version if guards.one_instant else sweep.view
    assert view
    if guards.listed_before:
        listed, protected = sweep.listed, _protected(owner, guards)
    else:
        listed, protected, view = _listed(space), sweep.protected, sweep.view
    ends = with_owner(space, i, owner._replace(sweep=()))
    if guards.newer_epoch_ends_pass and any(space.ssts[number - 1].epoch > owner.epoch for number in members(listed)):
        return "finds an SST of a later epoch: the pass ends", ends
    views = [view]
    if guards.checkpoints_are_views:
        views += [found for point in view.points if (found := space.manifests[point.version_id - 1])]
    referred = 0
    for each in views:
        referred |= sum(map(bit, each.runs))
        if guards.registers_keep:
            referred |= rows_of(space, each.runs)
    pinned = {point.version_id for point in view.points} if guards.checkpoints_pin else set()
    manifests = sum(
        bit(found.version_id)
        for found in space.manifests[: max(0, view.version_id - 2)]
        if found and found.version_id not in pinned
    )
    ssts = listed & ~referred & ~protected
    if not ssts and not manifests:
        return "finds nothing to delete", ends
    decided = sweep._replace(stage=Stage.DECIDED, view=view, ssts=ssts, manifests=manifests)
    what = f"decides by manifest {view.version_id} to delete"
    what += f" SSTs {_named(members(ssts))}" if ssts else ""
    what += f" manifests {_named(members(manifests))}" if manifests else ""
    return what, with_owner(space, i, owner._replace(sweep=decided))


def _confirm(space: Space, i: int, guards: Guards) -> tuple[str, Space]:
    """Read the version back, and raise the floor above the manifests that go."""
    owner = space.writers[i]
    sweep, newest = owner.sweep, space.manifests[-1]
    assert sweep
    assert newest
    stored = space.manifests[sweep.view.version_id - 1]
    if guards.read_back and not (stored == sweep.view and newest.epoch == owner.epoch):
        return "reads another's manifest back: the pass ends", with_owner(space, i, owner._replace(sweep=()))
    what = f"reads manifest {sweep.view.version_id} back" if guards.read_back else "reads nothing back"
    if sweep.manifests:
        space = space._replace(floor=max(space.floor, sweep.view.version_id - 1))
        what += f", raises the floor to {space.floor}"
    return what, with_owner(space, i, owner._replace(sweep=sweep._replace(stage=Stage.CONFIRMED)))


def _listed(space: Space) -> int:
    return sum(bit(number) for number, found in enumerate(space.ssts, 1) if found.stored)


def _protected(owner: Owner, guards: Guards) -> int:
    """What memtable rows point to, what is held, what is in flight."""
    protected = bit(owner.active) | bit(owner.frozen) | owner.held | owner.held_frozen | owner.doubtful
    if guards.in_flight_kept:
        protected |= bit(owner.uploading)
        for job in (owner.flush, owner.merge):
            protected |= bit(job.sst) if job else 0
    return protected


def _sweeping(owner: Owner, rest: Pass) -> Owner:
    return owner._replace(sweep=rest if rest.ssts or rest.manifests else ())


def _fenced(owner: Owner) -> Owner:
    """It starts nothing any more. Uploads and deletes that are under way go on."""
    sweep = owner.sweep if owner.sweep and owner.sweep.stage != Stage.LISTED else ()
    return Owner(epoch=owner.epoch, fenced=True, uploading=owner.uploading, sweep=sweep)


def _named(numbers: tuple[int, ...] | list[int]) -> str:
    return "+".join(map(str, numbers)) or "none"
