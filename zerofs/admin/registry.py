"""Which mounts this host serves: one locked file per mountpoint in the runtime directory.

    <key>.mount     JSON record (below); its process holds an exclusive flock on it for as long as it lives
    <key>.sock      the control socket of that mount
    registry.lock   held while a claim is made, so that two starts cannot both find the volume free

`key` is a hash of the real mountpoint. A record whose file is not locked belongs to a process that died: locks go with
their process, so nothing has to be guessed from pids or clocks. Everything is short and blocking: no trio here.

The registry is one of manners: it keeps a user from serving one volume twice by mistake. What keeps the data right is
the writer epoch in the store.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerofs.errors import ConfigError, MountpointError, VolumeInUseError

_RECORD_LIMIT_BYTES = 64 * 1024
_SOCKET_PATH_LIMIT_BYTES = 107


@dataclass(slots=True, frozen=True, kw_only=True)
class MountRecord:
    """What is known about one mount without asking it. `identity` names the volume by where it is stored.

    `mountpoint` is empty for a command that has the volume open without mounting it.
    """

    mountpoint: str
    identity: str
    pid: int
    read_only: bool
    config: str
    log: str = ""


def socket_path(directory: Path, mountpoint: str) -> Path:
    """Where the control socket of the mount at the real path `mountpoint` is."""
    return directory / f"{mount_key(mountpoint)}.sock"


def mount_key(mountpoint: str) -> str:
    """The short name under which files of the mount at the real path `mountpoint` are kept."""
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]


def prepare(directory: Path) -> None:
    """Create the runtime directory, or check that the one there is ours alone.

    Raises:
        ConfigError: it cannot be made, belongs to somebody else, is open to others, or its path is too long.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.stat(directory, follow_symlinks=False)
    except OSError as error:
        raise ConfigError(f"the runtime directory {directory} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(f"the runtime directory {directory} must be a directory that only this user can write to")
    if len(os.fsencode(socket_path(directory, "/"))) > _SOCKET_PATH_LIMIT_BYTES:
        raise ConfigError(f"the path of the runtime directory {directory} is too long for a Unix socket")


@contextlib.contextmanager
def claim(directory: Path, record: MountRecord, *, take_over: bool) -> Iterator[None]:
    """Hold the record of a mount for the duration of the context.

    Raises:
        MountpointError: a living process serves this mountpoint already.
        VolumeInUseError: `record` is for writing, this host serves the volume for writing already, and `take_over` is
            off. Names the process and its mountpoint.
        ConfigError: the runtime directory cannot be used.
    """
    prepare(directory)
    path = directory / f"{mount_key(record.mountpoint or f'command {record.pid} {record.identity}')}.mount"
    with _gate(directory, fcntl.LOCK_EX):
        for other in _scan(directory):
            if record.mountpoint and other.mountpoint == record.mountpoint:
                raise MountpointError(f"{other.mountpoint} is served already, by process {other.pid}")
            if other.identity == record.identity and not (other.read_only or record.read_only or take_over):
                raise in_use(other)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(record)).encode(), 0)
        except BlockingIOError:
            os.close(descriptor)
            raise MountpointError(f"{record.mountpoint} is served already, by another version of zerofs") from None
        except BaseException:
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        with _gate(directory, fcntl.LOCK_EX):
            path.unlink(missing_ok=True)
            os.close(descriptor)


def in_use(other: MountRecord) -> VolumeInUseError:
    """The error for somebody who needs the volume for writing while `other` has it."""
    if not other.mountpoint:
        return VolumeInUseError(f"a command is changing the volume: process {other.pid}; try again when it has ended")
    return VolumeInUseError(
        f"this host serves the volume already: process {other.pid}, mounted at {other.mountpoint}; "
        f"unmount it with `zerofs umount {other.mountpoint}`, or take over with --take-over"
    )


def living(directory: Path) -> list[MountRecord]:
    """The records whose process lives, by mountpoint. Empty when this user never mounted anything."""
    try:
        with _gate(directory, fcntl.LOCK_SH):
            return _scan(directory)
    except FileNotFoundError:
        return []


def _scan(directory: Path) -> list[MountRecord]:
    # Under the gate: looking takes each lock for a moment, which would make a claim at that moment fail.
    found = (_read_if_locked(path) for path in directory.glob("*.mount"))
    return sorted((record for record in found if record is not None), key=lambda record: record.mountpoint)


@contextlib.contextmanager
def _gate(directory: Path, mode: int) -> Iterator[None]:
    create = os.O_CREAT if mode == fcntl.LOCK_EX else 0
    descriptor = os.open(directory / "registry.lock", os.O_RDONLY | create | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, mode)
        yield
    finally:
        os.close(descriptor)


def _read_if_locked(path: Path) -> MountRecord | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        try:
            # A shared try lets other readers be, and fails exactly while the owner lives.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _decoded(os.pread(descriptor, _RECORD_LIMIT_BYTES, 0))
        return None
    finally:
        os.close(descriptor)


def _decoded(data: bytes) -> MountRecord | None:
    """The record, or None for anything that is not one: a file that is being written, or another version's."""
    try:
        fields: Any = json.loads(data)
        record = MountRecord(**{name: fields[name] for name in MountRecord.__slots__ if name in fields})
    except (ValueError, TypeError):
        return None
    return record if isinstance(record.pid, int) and isinstance(record.mountpoint, str) else None
