"""Every error that zerofs raises, each with its exit code and, where one exists, its remedy.

Rooms raise; only `cli` prints and exits. A foreign exception (boto3, OSError, nacl) is translated at the door
that imports the foreign library. Messages never contain a secret, and say what was wrong, where, and what to do.
"""

import errno as _errno
import os


class ZerofsError(Exception):
    """Root of the tree: a message for a person and the exit code of a command that fails with it."""

    exit_code = 1


class ConfigError(ZerofsError):
    """The configuration or the command line is wrong. Nothing was touched."""

    exit_code = 2


class NoVolumeError(ZerofsError):
    """There is no volume where one was expected, or one may not be created there."""

    exit_code = 10


class VolumeInUseError(ZerofsError):
    """Another mount holds the volume: refused without `--take-over`."""

    exit_code = 11


class WrongPasswordError(ZerofsError):
    """No key slot opens with the given secret, or the sidecar was altered."""

    exit_code = 12


class KeyMissingError(NoVolumeError):
    """`zerofs.key` is missing although the volume's objects exist."""

    exit_code = 13


class ObjectStoreError(ZerofsError):
    """The object store failed. Subclasses say whether trying again can help."""

    exit_code = 14


class UnavailableError(ObjectStoreError):
    """Transient: timeout, 5xx, connection lost, short body. A conditional put that ends so has an unknown outcome."""


class AccessDeniedError(ObjectStoreError):
    """The store refuses our credentials. Permanent until somebody changes them."""


class ObjectNotFoundError(ObjectStoreError):
    """The named object does not exist."""


class RangeError(ObjectStoreError):
    """The range asked for does not lie inside the object."""


class PreconditionFailedError(ObjectStoreError):
    """A conditional put lost: the object exists already, or its version is another."""


class StoreUnsuitableError(ObjectStoreError):
    """The store does not honour conditional writes, so writers could not be fenced."""

    exit_code = 15


class CorruptionError(ZerofsError):
    """Bytes that do not authenticate, do not decode, or are missing although something refers to them."""

    exit_code = 16


class MissingObjectError(CorruptionError):
    """An object that something refers to does not exist."""


class RollbackError(CorruptionError):
    """The store shows an older state of the volume than this host has seen."""

    exit_code = 17


class FencedError(ZerofsError):
    """Another writer took the volume over. This one never acknowledges anything again."""

    exit_code = 18


class UnsavedDataError(ZerofsError):
    """The process ends although acknowledged-to-memory data could not be stored."""

    exit_code = 19


class MountpointError(ZerofsError):
    """The mountpoint cannot be used: missing, not a directory, busy, already mounted, or not a zerofs mount."""

    exit_code = 20


class UnsupportedFormatError(ZerofsError):
    """The volume was made by a newer zerofs, with a format or a feature that this one does not know."""

    exit_code = 21


class CheckpointError(ZerofsError):
    """There is no checkpoint of that name, or there may be none, or there is one already."""

    exit_code = 22


class CloneError(ZerofsError):
    """The volume is a clone, and what was asked of it has to wait for `clone detach`, or that for something else."""

    exit_code = 23


class ReadOnlyError(ZerofsError):
    """A change was asked of a volume that was opened for reading only."""


class ClosedError(ZerofsError):
    """The room was closed while, or before, the call was made."""


class FsError(ZerofsError):
    """A POSIX error: the errno that the caller's system call returns.

    Raised for every failed lookup, so the system's text for it is only looked up when somebody prints the error.
    """

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(errno, message)
        self.errno = errno

    def __str__(self) -> str:
        return self.args[1] or os.strerror(self.errno)

    def __repr__(self) -> str:
        return f"FsError({_errno.errorcode.get(self.errno, self.errno)}, {str(self)!r})"
