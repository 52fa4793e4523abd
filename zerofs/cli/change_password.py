"""`zerofs change-password`: rewrap the key under a new password. No data is read or written; a mount may go on."""

import os
import select
import sys

import trio

from zerofs.cli import console
from zerofs.config.password import is_placeholder, read_password, single_line
from zerofs.config.settings import Settings
from zerofs.crypto.secret import Secret
from zerofs.errors import ConfigError, ZerofsError
from zerofs.keys.password import MAX_PASSWORD_SIZE, check_password
from zerofs.keys.vault import change_password as rewrap
from zerofs.objectstore.open import open_store
from zerofs.telemetry.metrics import Metrics
from zerofs.world import World

_PATIENCE_S = 1.0
"""How long a pipe that has given a line may take to end, or to give another one."""


def change_password(settings: Settings) -> int:
    """Read the old and the new password, rewrap, and return the exit code: every failure is told here and is 1."""
    try:
        if is_placeholder(settings.storage.password):
            raise ConfigError("Current password is still the default. Please update your config file first")
        old = read_password(settings.storage.password, console.ask_secret)
        new = _read_new_password()
        console.note("Changing encryption password...")
        trio.run(_rewrap, settings, old, new)
    except ZerofsError as error:
        return _failed(error)
    except BaseExceptionGroup as group:
        ours, rest = group.split(ZerofsError)
        if ours is None or rest is not None:
            raise
        return _failed(ours)
    console.say("✓ Encryption password changed successfully!")
    console.say("ℹ To use the new password, update your config file or environment variable")  # noqa: RUF001 (its own text)
    console.say("  Copies of the old zerofs.key, in backups or object versions, still open with the old password.")
    return 0


def _failed(error: BaseException) -> int:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    console.note(f"✗ Error: {console.one_line(str(error))}")
    return 1


def _read_new_password() -> Secret:
    """Exactly one line from a pipe, or the terminal's answer given twice."""
    if sys.stdin is not None and sys.stdin.isatty():
        first = console.ask_secret("New password: ")
        checked = check_password(first)
        if console.ask_secret("New password, again: ") != first:
            raise ConfigError("The two passwords are not the same")
        return checked
    console.note("Reading new password from stdin...")
    data = _read_pipe(sys.stdin.fileno()) if sys.stdin is not None else b""
    password = check_password(single_line(data, "standard input"))
    console.note("New password read successfully.")
    return password


def _read_pipe(descriptor: int) -> bytes:
    """The line that a pipe holds, and what follows it, for a password of several lines is a mistake to be refused.

    A pipe that stays open after its line does not keep us waiting for long.
    """
    data = b""
    while len(data) <= 2 * MAX_PASSWORD_SIZE and b"\n" not in data.strip():
        if b"\n" in data and not select.select([descriptor], [], [], _PATIENCE_S)[0]:
            break
        piece = os.read(descriptor, 2 * MAX_PASSWORD_SIZE)
        if not piece:
            break
        data += piece
    return data


async def _rewrap(settings: Settings, old: Secret, new: Secret) -> None:
    world = World()
    store = open_store(settings.storage.url, settings.aws, world, Metrics())
    try:
        await rewrap(store, world, old, new)
    finally:
        with trio.CancelScope(shield=True):
            await store.aclose()
