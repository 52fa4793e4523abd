"""`zerofs checkpoint` and `zerofs collect`: what concerns a volume as a whole, whether it is mounted or not.

Where this host serves the volume for writing, its process is asked; otherwise the volume is opened here, for reading if
that is enough. A restore needs a volume that nobody has mounted for writing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerofs.admin import checkpoints
from zerofs.admin.control import protocol
from zerofs.cli import console
from zerofs.cli.reach import Reached, reach
from zerofs.errors import CheckpointError, FencedError, VolumeInUseError

if TYPE_CHECKING:
    from zerofs.lsm.engine import Engine

_COLUMNS = {"name": "Name", "created_at": "Created", "id": "Id"}


def create(name: str, config: Path | None, *, as_json: bool, verbose: bool) -> None:
    """Pin the volume as it is now. Raises CheckpointError (a bad name, one that is taken)."""
    made = _change(reach(config), checkpoints.CREATE, name, verbose=verbose)
    if as_json:
        console.print_json(made)
    else:
        console.say(f"Checkpoint {made['name']} created, id {made['id']}")


def show_all(config: Path | None, *, as_json: bool, verbose: bool) -> None:
    """Print the checkpoints, oldest first."""
    found = _all(reach(config), verbose=verbose)
    if as_json:
        console.print_json({"checkpoints": found})
    elif found:
        console.print_rows(
            "Checkpoints", list(_COLUMNS.values()), [[point[key] for key in _COLUMNS] for point in found]
        )
    else:
        console.say("There are no checkpoints")


def info(name: str, config: Path | None, *, as_json: bool, verbose: bool) -> None:
    """Print one checkpoint. Raises CheckpointError."""
    found = _all(reach(config), verbose=verbose)
    for point in found:
        if name in (point["name"], point["id"]):
            break
    else:
        known = ", ".join(point["name"] for point in found[-10:]) or "none"
        raise CheckpointError(f"there is no checkpoint {name!r}; there are: {known}")
    if as_json:
        console.print_json(point)
    else:
        console.print_table(point["name"], point)


def delete(name: str, config: Path | None, *, force: bool, as_json: bool, verbose: bool) -> None:
    """Let a checkpoint go; with `force` also one that a clone needs. Raises CheckpointError."""
    action = checkpoints.RELEASE if force else checkpoints.DELETE
    gone = _change(reach(config), action, name, verbose=verbose)
    if as_json:
        console.print_json(gone)
    else:
        console.say(f"Checkpoint {gone['name']} deleted; what only it held is removed from the store")


def restore(name: str, config: Path | None, *, as_json: bool, verbose: bool) -> None:
    """Make the volume what it was at a checkpoint. Raises CheckpointError, VolumeInUseError."""
    reached = reach(config)
    for writer in reached.writers:
        raise VolumeInUseError(
            f"a volume that is mounted cannot be restored: process {writer.pid} serves it at {writer.mountpoint}; "
            f"unmount it with `zerofs umount {writer.mountpoint}`, then restore"
        )

    async def work(engine: "Engine") -> dict[str, Any]:
        target = checkpoints.find(engine, name)
        pin = await engine.restore(name)
        return {"restored": checkpoints.describe(target), "before": checkpoints.describe(pin)}

    done = reached.here(work, read_only=False, verbose=verbose)
    if as_json:
        console.print_json(done)
    else:
        restored, before = done["restored"]["name"], done["before"]["name"]
        console.say(f"The volume is what it was at checkpoint {restored}, made {done['restored']['created_at']}")
        console.say(f"What it was before is kept as checkpoint {before}")


def collect(config: Path | None, *, dry_run: bool, as_json: bool, verbose: bool) -> None:
    """Delete objects that nothing refers to any more, and print how many of each kind they were."""
    reached = reach(config)
    if reached.writers:
        with console.progress("collecting"):
            report = reached.ask(protocol.COLLECT, {"dry_run": dry_run})
    else:

        async def work(engine: "Engine") -> dict[str, Any]:
            return await checkpoints.collect(engine, dry_run=dry_run)

        report = reached.here(work, read_only=False, verbose=verbose)
    if as_json:
        console.print_json(report)
    else:
        console.print_table("Garbage that may be deleted" if dry_run else "Deleted", report)


def _change(reached: Reached, action: str, name: str, *, verbose: bool) -> dict[str, Any]:
    """The checkpoint that was made or deleted."""
    if reached.writers:
        with console.progress("storing what was written"):
            answer = reached.ask(protocol.CHECKPOINT, {"action": action, "name": name})
    else:

        async def work(engine: "Engine") -> dict[str, Any]:
            return await checkpoints.change_alone(engine, action, [name])

        answer = reached.here(work, read_only=False, verbose=verbose)
    concerned: dict[str, Any] = answer["checkpoints"][0]
    return concerned


def _all(reached: Reached, *, verbose: bool) -> list[dict[str, Any]]:
    """Every checkpoint, oldest first; nothing is written to the store."""

    async def work(engine: "Engine") -> dict[str, Any]:
        return await checkpoints.change(engine, checkpoints.LIST, None)

    answer: dict[str, Any] | None = None
    if reached.writers:
        try:
            answer = reached.ask(protocol.CHECKPOINT, {"action": checkpoints.LIST})
        except protocol.RemoteError as error:
            if error.exit_code != FencedError.exit_code:
                raise
    if answer is None:
        answer = reached.here(work, read_only=True, verbose=verbose)
    found: list[dict[str, Any]] = answer["checkpoints"]
    return found
