"""Checkpoints and collection as commands ask for them: words in, numbers and text that JSON can hold out.

The same functions answer at the control socket of a mount and in a command that has opened the volume itself.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from zerofs.admin.control.protocol import ControlError
from zerofs.errors import CheckpointError
from zerofs.lsm import checkpoints
from zerofs.lsm.engine import Engine
from zerofs.lsm.format.manifest import Checkpoint
from zerofs.units import NS_PER_S

CREATE = "create"
COPY = "copy"
DELETE = "delete"
RELEASE = "release"
"""As `delete`, also a pin that holds what a clone reads."""
LIST = "list"

STRANGERS_NAMED_MAX = 20


_PIN = re.compile(r"clone-[0-9a-f]{8}")


def pin_name(volume_id: bytes) -> str:
    """What the checkpoint is called that holds a clone's objects in its source."""
    return f"clone-{volume_id.hex()[:8]}"


async def change(engine: Engine, action: object, name: object, of: object = None) -> dict[str, Any]:
    """Do what a request asks of the checkpoint `name`: `create`, `copy` (that of `of`), `delete`, `release`; or `list`.

    Returns {"checkpoints": [...]} as `report` makes it, the one that was made or deleted first. Raises CheckpointError,
    ReadOnlyError, FencedError, UnavailableError; ControlError when it is none of these requests.
    """
    if action == LIST:
        if engine.failure is not None:
            raise engine.failure  # what it knows of the volume may be old
        return report(engine.manifest.checkpoints)
    if action not in (CREATE, COPY, DELETE, RELEASE) or not isinstance(name, str):
        raise ControlError(
            "not a request about checkpoints: 'action' is create, copy, delete, release or list, 'name' is text"
        )
    if action == CREATE:
        concerned = await engine.checkpoints.create(name)
    elif action == COPY:
        concerned = await engine.checkpoints.copy(name, str(of))
    else:
        if action == DELETE and _PIN.fullmatch(find(engine, name).name):
            raise CheckpointError(
                f"the checkpoint {name!r} holds what a clone of this volume reads: run `zerofs clone detach` with the "
                "configuration of the clone; if that clone does not exist any more, delete the checkpoint with --force"
            )
        concerned = await engine.checkpoints.delete(name)
        # What only the checkpoint held goes with the next pass: now, not with whatever is written some day.
        engine.maintenance.want_collection()
    others = [checkpoint for checkpoint in engine.manifest.checkpoints if checkpoint != concerned]
    return report([concerned, *others])


async def change_alone(engine: Engine, action: str, names: Sequence[str], of: str | None = None) -> dict[str, Any]:
    """As `change` for each name, in an engine that is closed afterwards: what a delete made garbage goes at once.

    Returns what the last one gave. Raises as `change` and `collect`.
    """
    answer: dict[str, Any] = report([])
    for name in names:
        answer = await change(engine, action, name, of)
    if action in (DELETE, RELEASE):
        await collect(engine, dry_run=False)
    return answer


def report(checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """The checkpoints as JSON has them, in the order given."""
    return {"checkpoints": [describe(checkpoint) for checkpoint in checkpoints]}


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """One checkpoint: name, id (hexadecimal), manifest id, and when it was made (RFC 3339, UTC)."""
    created = datetime.fromtimestamp(checkpoint.created_at_ns // NS_PER_S, UTC)
    return {
        "name": checkpoint.name,
        "id": checkpoint.checkpoint_id.hex(),
        "manifest_id": checkpoint.manifest_id,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def find(engine: Engine, name: str) -> Checkpoint:
    """The checkpoint of a name, or of a hexadecimal id. Raises CheckpointError."""
    return checkpoints.find(engine.manifest, name)


async def collect(engine: Engine, *, dry_run: bool) -> dict[str, Any]:
    """One pass of the collector: how many objects of each kind were, or with `dry_run` would be, deleted.

    What was committed before the call is stored first, so that what it made dead counts. Raises ReadOnlyError,
    CorruptionError, FencedError, UnavailableError.
    """
    maintenance = engine.maintenance
    await engine.flush()
    doomed = await maintenance.collect(dry_run=dry_run)
    return {
        "dry_run": dry_run,
        "objects": {"sst": len(doomed.ssts), "wal": len(doomed.wal), "manifest": len(doomed.manifests)},
        "size_bytes": doomed.size_bytes,
        "strangers": len(doomed.strangers),
        "stranger_names": list(doomed.strangers[:STRANGERS_NAMED_MAX]),
    }
