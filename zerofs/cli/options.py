"""Options that several commands have, and what they set for the wrapper around all of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from zerofs import __version__


@dataclass(slots=True)
class Globals:
    """What every command may set and the wrapper around them reads."""

    verbose: bool = False


def _set_verbose(context: typer.Context, value: bool) -> bool:
    if value:
        context.find_root().ensure_object(Globals).verbose = True
    return value


def show_version(value: bool) -> None:
    """Print the version and end, if it was asked for."""
    if value:
        typer.echo(f"zerofs {__version__}")
        raise typer.Exit


Verbose = Annotated[
    bool,
    typer.Option(
        "-v",
        "--verbose",
        callback=_set_verbose,
        help="More log lines, and the traceback of an internal error.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        metavar="FILE",
        help="Configuration file. Else $ZEROFS_CONFIG, ./zerofs.toml, the user's zerofs/zerofs.toml,"
        " /etc/zerofs/zerofs.toml.",
    ),
]
Mountpoint = Annotated[
    str | None, typer.Argument(metavar="MOUNTPOINT", show_default=False, help="Instead of a configuration file.")
]
ReadOnly = Annotated[
    bool, typer.Option("--read-only", help="Follow the writer, and change nothing, here or in the store.")
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", metavar="NAME", help="Show the volume as it was at a checkpoint (name or id), read-only."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON: sizes in bytes, durations in seconds.")]
TakeOver = Annotated[
    bool,
    typer.Option("--take-over", help="Mount although this host serves the volume already; that mount is shut out."),
]
AcceptRollback = Annotated[
    bool,
    typer.Option(
        "--accept-rollback", help="Open a store that is older, or emptier, than what this host has seen of it."
    ),
]
