"""The commands and their options: what `zerofs --help` and `docs/cli.md` show. The work is done elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from zerofs.cli import examining
from zerofs.cli.options import (
    AcceptRollback,
    AsJson,
    Checkpoint,
    Config,
    Mountpoint,
    ReadOnly,
    TakeOver,
    Verbose,
    show_version,
)

app = typer.Typer(
    name="zerofs",
    help="An encrypted filesystem on any object store.",
    epilog="Exit codes, configuration and mount options: docs/cli.md",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    verbose: Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


@app.command()
def init(
    path: Annotated[
        str | None, typer.Argument(metavar="PATH|-", show_default=False, help="File to write; - is standard output.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("-c", "--config", metavar="FILE", help="The same as PATH. Default: zerofs.toml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    verbose: Verbose = False,
) -> None:
    """Write a commented sample configuration."""
    from zerofs.cli.init import init as work

    work(path, config, force=force)


@app.command()
def run(
    config: Config = None,
    read_only: ReadOnly = False,
    checkpoint: Checkpoint = None,
    take_over: TakeOver = False,
    accept_rollback: AcceptRollback = False,
    verbose: Verbose = False,
) -> None:
    """Mount what [servers.fuse] names, in the foreground.

    The first Ctrl-C or SIGTERM unmounts, stores everything and ends; a second one ends at once.
    """
    from zerofs.cli.mount import run as work
    from zerofs.cli.mount_options import MountOptions

    options = MountOptions(
        read_only=read_only or None, checkpoint=checkpoint, take_over=take_over, accept_rollback=accept_rollback
    )
    work(None, config, options, verbose=verbose)


@app.command()
def mount(
    mountpoint: Annotated[
        str | None,
        typer.Argument(metavar="MOUNTPOINT", show_default=False, help="Default: that of the configuration."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("-o", metavar="OPTIONS", help="Mount options, separated by commas, as in fstab."),
    ] = None,
    foreground: Annotated[bool, typer.Option("-f", "--foreground", help="Do not become a daemon.")] = False,
    config: Config = None,
    read_only: ReadOnly = False,
    checkpoint: Checkpoint = None,
    take_over: TakeOver = False,
    accept_rollback: AcceptRollback = False,
    fake: Annotated[bool, typer.Option("--fake", hidden=True)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", hidden=True)] = False,
    verbose: Verbose = False,
) -> None:
    """Mount in the background; return when the mountpoint can be used."""
    from dataclasses import replace

    from zerofs.cli import mount as work
    from zerofs.cli.mount_options import parse_mount_options

    wanted = parse_mount_options(options or [])
    wanted = replace(
        wanted,
        read_only=True if read_only else wanted.read_only,
        checkpoint=checkpoint or wanted.checkpoint,
        take_over=take_over or wanted.take_over,
        accept_rollback=accept_rollback or wanted.accept_rollback,
    )
    file = Path(wanted.config) if wanted.config else config
    if fake:
        work.check_only(mountpoint, file, wanted)
    elif foreground:
        work.run(mountpoint, file, wanted, verbose=verbose)
    else:
        work.mount(mountpoint, file, wanted, verbose=verbose, quiet=quiet)


@app.command()
def umount(
    mountpoint: Mountpoint = None,
    config: Config = None,
    lazy: Annotated[
        bool, typer.Option("-z", "--lazy", help="Also when processes use it: their open files fail soon after.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also when not everything can be stored; that is lost.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Flush, unmount, and return when everything is in the store."""
    from zerofs.cli.locate import locate
    from zerofs.cli.umount import unmount
    from zerofs.config.paths import process_environment

    unmount(locate(mountpoint, config, process_environment()), lazy=lazy, force=force)


@app.command()
def flush(mountpoint: Mountpoint = None, config: Config = None, verbose: Verbose = False) -> None:
    """Return when everything written so far is in the store."""
    from zerofs.cli.query import flush as work

    work(mountpoint, config)


@app.command()
def status(
    mountpoint: Mountpoint = None,
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What a mount is doing."""
    from zerofs.cli.query import status as work

    work(mountpoint, config, as_json=as_json)


@app.command("clear-data-lost")
def clear_data_lost(mountpoint: Mountpoint = None, config: Config = None, verbose: Verbose = False) -> None:
    """Take note that a write was lost, and let fsync and close succeed again. The mount's log names the file's inode.

    What was refused stays lost, and what was open then fails until it is closed.
    """
    from zerofs.cli.query import clear_data_lost as work

    work(mountpoint, config)


@app.command("change-password")
def change_password(config: Config = None, verbose: Verbose = False) -> None:
    """Make a new password open the volume in place of the configured one.

    The new password is one line of standard input, or asked for twice on a terminal. No data is encrypted again.
    """
    from zerofs.cli.change_password import change_password as work
    from zerofs.config import load
    from zerofs.config.paths import find_config, process_environment

    environ = process_environment()
    raise typer.Exit(work(load(config or find_config(environ), environ)))


@app.command()
def collect(
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; say what would be deleted.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Delete objects of the store that nothing refers to any more. A mount does that by itself; this does it now."""
    from zerofs.cli.checkpoint import collect as work

    work(config, dry_run=dry_run, as_json=as_json, verbose=verbose)


examining.register(app)

checkpoint_app = typer.Typer(
    name="checkpoint",
    help="Named states of the whole volume, kept until they are deleted.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(checkpoint_app)

CheckpointName = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Name, or id in hexadecimal.")]


@checkpoint_app.command("create")
def checkpoint_create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="1 to 255 bytes of text without slashes.")
    ],
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Keep the volume as it is now, under a name. What was written before is stored first.

    It takes no space at first; later, that of what has changed since.
    """
    from zerofs.cli import checkpoint as work

    work.create(name, config, as_json=as_json, verbose=verbose)


@checkpoint_app.command("list")
def checkpoint_list(config: Config = None, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """The checkpoints, oldest first."""
    from zerofs.cli import checkpoint as work

    work.show_all(config, as_json=as_json, verbose=verbose)


@checkpoint_app.command("info")
def checkpoint_info(
    name: CheckpointName, config: Config = None, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """One checkpoint."""
    from zerofs.cli import checkpoint as work

    work.info(name, config, as_json=as_json, verbose=verbose)


@checkpoint_app.command("delete")
def checkpoint_delete(
    name: CheckpointName,
    config: Config = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that a clone needs, which cannot be read any more then.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Give a checkpoint up, and the space of what only it holds."""
    from zerofs.cli import checkpoint as work

    work.delete(name, config, force=force, as_json=as_json, verbose=verbose)


@checkpoint_app.command("clone")
def checkpoint_clone(
    name: CheckpointName,
    dest: Annotated[
        str, typer.Argument(metavar="DEST", show_default=False, help="Empty: file:///path or s3://bucket/prefix.")
    ],
    config: Config = None,
    accept_rollback: AcceptRollback = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make a new volume at DEST that begins as this checkpoint, at no cost, and can be written.

    It has keys of its own, and opens with the same password. Until it is detached it reads objects of this volume, in
    which checkpoint clone-ID holds them. DEST is reached with the same [aws] settings.
    """
    from zerofs.cli import clone as work

    order = work.Order(name=name, dest=dest, accept_rollback=accept_rollback)
    work.create(order, config, as_json=as_json, verbose=verbose)


@checkpoint_app.command("restore")
def checkpoint_restore(
    name: CheckpointName, config: Config = None, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """Make the volume what it was at a checkpoint. What it is now is kept as checkpoint before-restore-ID.

    Refused while this host has the volume mounted for writing.
    """
    from zerofs.cli import checkpoint as work

    work.restore(name, config, as_json=as_json, verbose=verbose)


clone_app = typer.Typer(
    name="clone",
    help="Volumes that were made by `zerofs checkpoint clone`.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(clone_app)


@clone_app.command("detach")
def clone_detach(config: Config = None, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Copy what a clone still reads of its source, and let the source go. The configuration is that of the clone.

    Refused while it is mounted for writing; also when a writer on another host, or another user's, did not close it.
    One that was interrupted goes on. Then checkpoint clone-ID is deleted in the source, if that is mounted on this host
    or has the same password.
    """
    from zerofs.cli import clone as work

    work.detach(config, as_json=as_json, verbose=verbose)
