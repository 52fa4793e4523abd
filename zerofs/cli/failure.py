"""From an exception to one line and an exit code. What nobody expected is written down for whoever repairs it."""

import os
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from zerofs.cli import exitcodes
from zerofs.config.paths import process_environment, state_directory
from zerofs.errors import FsError, UnsavedDataError, WrongPasswordError, ZerofsError

UsageError = typer.BadParameter.__mro__[1]
"""What the command-line library raises for wrong arguments; it has no public name of its own there."""

_REMEDY = (
    "check encryption_password, password_file or password_command in [storage], and whether somebody ran `zerofs "
    "change-password`; if the password is right, restore zerofs.key from a backup"
)


@dataclass(slots=True, frozen=True, kw_only=True)
class Failure:
    """How a command failed: one line, and the exit code."""

    message: str
    exit_code: int


def describe(error: BaseException) -> Failure:
    """What to tell about `error`, which may be a group. An unexpected one is written to the error log on the way."""
    found = leaves(error)
    if any(isinstance(leaf, ZerofsError) for leaf in found):
        ours = first_error(error)
        return Failure(message=_message(ours), exit_code=ours.exit_code)
    leaf = found[0]
    if isinstance(leaf, UsageError):
        context = getattr(leaf, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        return Failure(message=_sentence(leaf) + hint, exit_code=exitcodes.USAGE)
    if isinstance(leaf, (KeyboardInterrupt, typer.Abort)):
        return Failure(message="interrupted", exit_code=exitcodes.for_signal(signal.SIGINT))
    if isinstance(leaf, BrokenPipeError):
        return Failure(message="nobody reads the output", exit_code=exitcodes.for_signal(signal.SIGPIPE))
    where = _write_down(error, process_environment())
    return Failure(
        message=f"internal error ({type(leaf).__name__}); {where}; -v shows it here", exit_code=exitcodes.FAILURE
    )


def _message(error: ZerofsError) -> str:
    if isinstance(error, WrongPasswordError):
        # The key room's own text is short, because `change-password` promises it word for word.
        return f"the password does not open this volume ({error}): {_REMEDY}"
    return str(error)


def _sentence(error: BaseException) -> str:
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    return text.strip().rstrip(".")


def first_error(error: BaseException) -> ZerofsError:
    """The error to report of one that may be a group of several: one of ours if there is any, else that it is not.

    Data that could not be stored outranks the rest, for that is what the user has to know.
    """
    ours = [underlying(leaf) for leaf in leaves(error) if isinstance(leaf, ZerofsError)]
    ours.sort(key=lambda leaf: not isinstance(leaf, UnsavedDataError))
    return ours[0] if ours else ZerofsError("the mount ended with an internal error; its log tells more")


def underlying(error: ZerofsError) -> ZerofsError:
    """What lies behind the errno that a system call was given: commands have exit codes of their own for it."""
    if not isinstance(error, FsError):
        return error
    if isinstance(error.__cause__, ZerofsError):
        return underlying(error.__cause__)
    return UnsavedDataError(str(error))


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions that a group, or a group of groups, is made of."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for child in error.exceptions for leaf in leaves(child)]
    return [error]


def _write_down(error: BaseException, environ: Mapping[str, str]) -> str:
    path = state_directory(environ) / "logs" / "errors.log"
    try:
        _append(path, _frames(error))
    except OSError:
        return "the details could not be written to the error log"
    return f"the details are in {path}"


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "a") as file:
        file.write(text)


def _frames(error: BaseException) -> str:
    """Where it happened, without the exceptions' texts: those may hold a file name or worse (promise P1)."""
    parts = [f"pid {os.getpid()}, {' '.join(sys.argv[:2])}\n"]
    for leaf in leaves(error):
        parts.append(f"{type(leaf).__module__}.{type(leaf).__qualname__}\n")
        parts.extend(traceback.format_tb(leaf.__traceback__))
    return "".join(parts) + "\n"
