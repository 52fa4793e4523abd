"""The entry point of `zerofs`, `python -m zerofs` and `mount.fuse.zerofs`: exceptions become one line and a code."""

import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

import typer

from zerofs.cli import console, exitcodes
from zerofs.cli.app import app
from zerofs.cli.failure import describe
from zerofs.cli.invocation import mount_arguments
from zerofs.cli.options import Globals
from zerofs.process import harden


def main() -> NoReturn:
    """Run the command line of this process and end with its exit code."""
    harden()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks ✓ is no reason to fail
    sys.exit(execute(sys.argv))


def execute(argv: Sequence[str]) -> int:
    """Run one command line, the program's name first; returns the exit code, having told every error."""
    settings = Globals()
    is_fsck = next((word for word in argv[1:] if not word.startswith("-")), "") == "fsck"
    try:
        command = typer.main.get_command(app)
        arguments = mount_arguments(argv, getattr(command, "commands", ()))
        result = command.main(
            args=arguments or list(argv[1:]) or ["--help"],
            prog_name="zerofs",
            standalone_mode=False,
            obj=settings,
        )
        sys.stdout.flush()
    except BaseException as error:  # the last frame: nothing may pass it as a traceback
        if isinstance(error, SystemExit):
            raise
        if settings.verbose:
            traceback.print_exception(error)
        failure = describe(error)
        if isinstance(error, BrokenPipeError):
            sys.stdout = None  # closed at the other end: the interpreter must not flush it again
        else:
            console.complain(failure.message)
        return exitcodes.for_fsck(failure.exit_code) if is_fsck else failure.exit_code
    # Help that nobody asked for is help, but not success.
    return result if isinstance(result, int) and result else (exitcodes.OK if argv[1:] else exitcodes.USAGE)
