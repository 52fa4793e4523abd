"""The commands that look at a volume or copy it: fsck, verify, debug, backup. Their options; the work is elsewhere."""

from typing import Annotated, Any

import typer

from zerofs.cli.options import AcceptRollback, AsJson, Config, Verbose

ExaminedCheckpoint = Annotated[
    str | None,
    typer.Option("--checkpoint", metavar="NAME", help="Look at a checkpoint (name or id) instead of the present."),
]


def fsck(
    config: Config = None,
    checkpoint: ExaminedCheckpoint = None,
    accept_rollback: AcceptRollback = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check the structure of the volume, and change nothing. It has exit codes of its own.

    Reads all metadata and no file's contents: that is `verify`. Works while the volume is mounted.
    """
    from zerofs.cli import inspect as work

    look = work.Look(
        config=config, checkpoint=checkpoint, accept_rollback=accept_rollback, as_json=as_json, verbose=verbose
    )
    raise typer.Exit(work.fsck(look))


Rate = Annotated[
    float, typer.Option("--rate", metavar="MIB_PER_S", min=0, show_default=False, help="At most so fast; 0: no limit.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Do not go on where an interrupted run stopped.")]


def verify(
    full: Annotated[
        bool, typer.Option("--full", help="Open every frame, instead of comparing names and sizes.")
    ] = False,
    rate: Rate = 0.0,
    restart: Restart = False,
    config: Config = None,
    checkpoint: ExaminedCheckpoint = None,
    accept_rollback: AcceptRollback = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check that what the volume and its checkpoints refer to is in the store, and change nothing.

    With --full every stored byte is read and authenticated; damaged files are named. One that was interrupted goes on.
    """
    from zerofs.cli import inspect as work

    look = work.Look(
        config=config, checkpoint=checkpoint, accept_rollback=accept_rollback, as_json=as_json, verbose=verbose
    )
    raise typer.Exit(work.verify(look, full=full, rate_mib_per_s=rate, restart=restart))


def debug(
    objects: Annotated[
        list[str],
        typer.Argument(
            metavar="OBJECT...", show_default=False, help="Names of objects, or files that end in such names."
        ),
    ],
    clear: Annotated[
        bool, typer.Option("--clear", help="Only what is not encrypted; no password is needed, for files no store.")
    ] = False,
    rows: Annotated[bool, typer.Option("--rows", help="Every row, without file contents.")] = False,
    values: Annotated[
        bool,
        typer.Option("--values", help="Every row, with file contents, link targets and attributes, in hexadecimal."),
    ] = False,
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Decode objects of the volume, as JSON. Changes nothing, shows no key, disturbs no mount.

    Objects: zerofs.key, manifest/ID.manifest, manifest/floor, wal/ID.sst, compacted/EPOCH-COUNTER.sst.
    """
    from zerofs.cli import debug as work

    question = work.Question(objects=tuple(objects), clear=clear, rows=rows, values=values)
    work.debug(question, config, verbose=verbose)


class _WithDefault(typer.core.TyperGroup):
    """A group whose first command may be left out: `zerofs backup DEST` is `zerofs backup create DEST`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


backup_app = typer.Typer(
    name="backup",
    cls=_WithDefault,
    help="A copy of the volume at another place. `zerofs backup DEST` is `zerofs backup create DEST`.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
Destination = Annotated[
    str, typer.Argument(metavar="DEST", show_default=False, help="file:///path or s3://bucket/prefix, with this [aws].")
]


@backup_app.command("create")
def backup_create(
    dest: Destination,
    config: Config = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="NAME", help="Back up this one; nothing is changed in the volume then."),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Then delete in DEST what this state does not need. Not while it is mounted."),
    ] = False,
    rate: Rate = 0.0,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Also when another host has the volume mounted: that mount is shut out.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Copy the present state to DEST, which is a volume then. A second run copies what is new.

    Works while the volume is mounted. The state is kept as checkpoint backup-TIME-ID until the next one succeeded.
    """
    from zerofs.cli import backup as work

    order = work.Order(dest=dest, checkpoint=checkpoint, prune=prune, rate_mib_per_s=rate, take_over=take_over)
    work.create(order, config, as_json=as_json, verbose=verbose)


@backup_app.command("verify")
def backup_verify(
    dest: Destination,
    config: Config = None,
    rate: Rate = 0.0,
    restart: Restart = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Open the copy at DEST, read every byte of it, and check its structure; what `verify --full` and `fsck` do."""
    from zerofs.cli import backup as work

    raise typer.Exit(work.verify(dest, config, rate_mib_per_s=rate, restart=restart, as_json=as_json, verbose=verbose))


def register(app: typer.Typer) -> None:
    """Add the commands to the program's."""
    for command in (fsck, verify, debug):
        app.command()(command)
    app.add_typer(backup_app)
