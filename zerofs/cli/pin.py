"""A checkpoint for the time of a command, so that what it looks at stays whole while the volume is written to."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

from zerofs.admin import checkpoints
from zerofs.admin.control import protocol
from zerofs.cli import console
from zerofs.cli.reach import Reached
from zerofs.errors import CheckpointError, FencedError, ZerofsError
from zerofs.units import NS_PER_S
from zerofs.world import World


def utc_name(prefix: str, world: World) -> str:
    """A name for a checkpoint: the prefix, and the time of now."""
    now_ns = world.now_ns()
    now = datetime.fromtimestamp(now_ns // NS_PER_S, UTC)
    return f"{prefix}{now:%Y-%m-%dT%H:%M:%S}.{now_ns % NS_PER_S // 1_000_000:03d}Z"


@contextlib.contextmanager
def pinned(reached: Reached, prefix: str) -> Iterator[str | None]:
    """The name of a checkpoint of this moment, if this host serves the volume for writing, else None.

    It is deleted afterwards; if that fails, or the command is killed, it stays, and can be deleted by name.
    """
    name = utc_name(prefix, World())
    if not reached.writers or not _create(reached, name):
        yield None
        return
    try:
        yield name
    finally:
        try:
            reached.ask(protocol.CHECKPOINT, {"action": checkpoints.DELETE, "name": name})
        except ZerofsError as error:
            if not isinstance(error, CheckpointError) and getattr(error, "exit_code", 1) != CheckpointError.exit_code:
                console.note(f"the checkpoint {name} could not be deleted ({error}): zerofs checkpoint delete {name}")


def _create(reached: Reached, name: str) -> bool:
    """Whether it was made; not by a mount that was shut out."""
    try:
        with console.progress("storing what was written"):
            reached.ask(protocol.CHECKPOINT, {"action": checkpoints.CREATE, "name": name})
    except protocol.RemoteError as error:
        if error.exit_code == FencedError.exit_code:
            return False
        raise
    return True
