"""`zerofs status`, `flush` and `clear-data-lost`: what a running mount is asked and told."""

from pathlib import Path

from zerofs.admin.control import client, protocol
from zerofs.cli import console
from zerofs.cli.locate import locate
from zerofs.config.paths import process_environment

_STATUS_TIMEOUT_S = 10.0


def status(mountpoint: str | None, config: Path | None, *, as_json: bool) -> None:
    """Print what the mount says of itself. Raises MountpointError when nobody answers."""
    mount = locate(mountpoint, config, process_environment())
    with client.Connection(mount.socket) as connection:
        answer = connection.ask(protocol.STATUS, timeout_s=_STATUS_TIMEOUT_S)
    if as_json:
        console.print_json(answer)
    else:
        console.print_table(mount.mountpoint, answer)


def flush(mountpoint: str | None, config: Path | None) -> None:
    """Return when everything is in the store. Raises RemoteError when something cannot be stored."""
    mount = locate(mountpoint, config, process_environment())
    with client.Connection(mount.socket) as connection, console.progress("storing what was written"):
        connection.ask(protocol.FLUSH)
    console.say("Flush completed successfully")


def clear_data_lost(mountpoint: str | None, config: Path | None) -> None:
    """Let the mount forget that a write was lost, and say what that means. Raises MountpointError."""
    mount = locate(mountpoint, config, process_environment())
    with client.Connection(mount.socket) as connection:
        answer = connection.ask(protocol.CLEAR_DATA_LOST, timeout_s=_STATUS_TIMEOUT_S)
    if answer.get("was_lost"):
        console.say(f"Cleared: fsync and close succeed again at {mount.mountpoint}; what was refused stays lost")
    else:
        console.say(f"No write was lost at {mount.mountpoint}: there is nothing to clear")
