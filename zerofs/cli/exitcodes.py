"""The table of exit codes: what scripts may rely on. `docs/cli.md` prints it, the errors carry the numbers."""

import signal
from dataclasses import dataclass

from zerofs import errors

OK = 0
FAILURE = 1
USAGE = 2
SIGNAL_BASE = 128


@dataclass(slots=True, frozen=True, kw_only=True)
class ExitCode:
    """One row. `number` is text because the last row is a range."""

    number: str
    name: str
    meaning: str


def _row(number: int, name: str, meaning: str) -> ExitCode:
    return ExitCode(number=str(number), name=name, meaning=meaning)


TABLE = (
    _row(OK, "ok", "Done; everything that had to be stored is stored."),
    _row(FAILURE, "failure", "Any other error; every failure of `change-password` after its configuration was read."),
    _row(USAGE, "usage, configuration", "The command line, the configuration file or the password breaks a rule."),
    _row(errors.NoVolumeError.exit_code, "no volume", "There is no volume, or none may be created there."),
    _row(errors.VolumeInUseError.exit_code, "in use", "This host serves the volume already; see `--take-over`."),
    _row(errors.WrongPasswordError.exit_code, "wrong password", "No key slot opens with the password."),
    _row(errors.KeyMissingError.exit_code, "key missing", "`zerofs.key` is gone although the volume's objects exist."),
    _row(errors.ObjectStoreError.exit_code, "store", "The object store cannot be reached, or refuses."),
    _row(errors.StoreUnsuitableError.exit_code, "store unsuitable", "The store does not honour conditional writes."),
    _row(errors.CorruptionError.exit_code, "corruption", "An object is missing, damaged, or not authentic."),
    _row(errors.RollbackError.exit_code, "rollback", "The store shows an older state than this host has seen."),
    _row(errors.FencedError.exit_code, "fenced", "Another writer took the volume over."),
    _row(errors.UnsavedDataError.exit_code, "unsaved data", "Something that was written could not be stored."),
    _row(errors.MountpointError.exit_code, "mountpoint", "The mountpoint is missing, busy, or not a zerofs mount."),
    _row(errors.UnsupportedFormatError.exit_code, "newer format", "The volume was made by a newer zerofs."),
    _row(errors.CheckpointError.exit_code, "checkpoint", "There is no checkpoint of that name, or the name is taken."),
    _row(errors.CloneError.exit_code, "clone", "A clone cannot do that before `clone detach`, or not be detached yet."),
    ExitCode(number="128+N", name="signal", meaning="Ended by signal N: 130 for Ctrl-C, 143 for SIGTERM."),
)


FSCK_ERRORS_LEFT = 4
FSCK_FAILURE = 8
FSCK_USAGE = 16
FSCK_CANCELLED = 32

FSCK_TABLE = (
    _row(OK, "ok", "Nothing is wrong."),
    _row(FSCK_ERRORS_LEFT, "errors left", "Something is wrong; nothing was changed."),
    _row(FSCK_FAILURE, "operational error", "The volume could not be checked; the message tells why."),
    _row(FSCK_USAGE, "usage", "The command line, the configuration file or the password breaks a rule."),
    _row(FSCK_CANCELLED, "cancelled", "Ended by Ctrl-C."),
)
"""Those of fsck(8), which `zerofs fsck` keeps to. 1 and 2, for repairs, do not occur."""


def for_signal(number: int) -> int:
    """The exit code of a command that signal `number` ended."""
    return SIGNAL_BASE + number


def for_fsck(code: int) -> int:
    """The exit code of fsck(8) for a command that failed with one of the table."""
    if code == USAGE:
        return FSCK_USAGE
    if code == errors.CorruptionError.exit_code:
        return FSCK_ERRORS_LEFT
    return FSCK_CANCELLED if code == for_signal(signal.SIGINT) else FSCK_FAILURE


def markdown(table: tuple[ExitCode, ...] = TABLE) -> str:
    """A table for `docs/cli.md`."""
    rows = [f"| {row.number} | {row.name} | {row.meaning} |" for row in table]
    return "\n".join(["| Code | Name | Meaning |", "|---|---|---|", *rows])
