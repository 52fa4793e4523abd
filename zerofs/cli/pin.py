"""A checkpoint for the time of a command, so that what it looks at stays whole while the volume is written to."""

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from zerofs.admin import checkpoints
from zerofs.admin.control import protocol
from zerofs.cli import console
from zerofs.cli.reach import Reached
from zerofs.errors import CheckpointError, FencedError, ZerofsError
from zerofs.units import NS_PER_S
from zerofs.world import World

_NAME = re.compile(r"(?:fsck|verify)-[0-9T:.-]+Z-(\d+)")


def utc_name(prefix: str, world: World) -> str:
    """A name for a checkpoint: the prefix, and the time of now."""
    now_ns = world.now_ns()
    now = datetime.fromtimestamp(now_ns // NS_PER_S, UTC)
    return f"{prefix}{now:%Y-%m-%dT%H:%M:%S}.{now_ns % NS_PER_S // 1_000_000:03d}Z"


@contextlib.contextmanager
def pinned(reached: Reached, prefix: str) -> Iterator[str | None]:
    """The name of a checkpoint of this moment, if this host serves the volume for writing, else None.

    It is deleted afterwards. That of a command that was killed is deleted by the next command that makes one.
    """
    name = f"{utc_name(prefix, World())}-{os.getpid()}"
    if not reached.writers or not _create(reached, name):
        yield None
        return
    try:
        yield name
    finally:
        _delete(reached, name)


def _create(reached: Reached, name: str) -> bool:
    """Whether it was made; not by a mount that was shut out."""
    try:
        with console.progress("storing what was written"):
            answer = reached.ask(protocol.CHECKPOINT, {"action": checkpoints.CREATE, "name": name})
    except protocol.RemoteError as error:
        if error.exit_code == FencedError.exit_code:
            return False
        raise
    for point in answer["checkpoints"][1:]:
        if is_left_behind(point["name"]):
            _delete(reached, point["name"])
    return True


def is_left_behind(name: str) -> bool:
    """Whether a checkpoint was made for a command on this host that does not run any more."""
    match = _NAME.fullmatch(name)
    return match is not None and not os.path.exists(f"/proc/{match[1]}")


def _delete(reached: Reached, name: str) -> None:
    try:
        reached.ask(protocol.CHECKPOINT, {"action": checkpoints.DELETE, "name": name})
    except ZerofsError as error:
        if error.exit_code != CheckpointError.exit_code:  # else somebody was faster
            console.note(f"the checkpoint {name} could not be deleted ({error}): zerofs checkpoint delete {name}")
