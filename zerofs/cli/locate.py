"""Which mount a command means: the one at a mountpoint, or the one of the volume that a configuration names."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zerofs import mounttable
from zerofs.admin import registry
from zerofs.cli.plan import volume_identity
from zerofs.config import load
from zerofs.config.paths import find_config, runtime_directory
from zerofs.errors import ConfigError, MountpointError


@dataclass(slots=True, frozen=True, kw_only=True)
class LocatedMount:
    """A mount by its real path. `kernel` is False when the kernel has no mount of ours there (any more)."""

    mountpoint: str
    socket: Path
    kernel: bool


def locate(mountpoint: str | None, config: Path | None, environ: Mapping[str, str]) -> LocatedMount:
    """The mount at `mountpoint`, or else the one of `config` (the usual configuration file if that is None).

    Raises:
        ConfigError: both are given, or the configuration is wrong or missing.
        MountpointError: no such mount, or the configuration's volume is mounted at several places.
    """
    if mountpoint is not None and config is not None:
        raise ConfigError("give a mountpoint or a configuration, not both")
    if mountpoint is not None:
        return _at(mountpoint, environ)
    return _of_volume(config or find_config(environ), environ)


def _at(path: str, environ: Mapping[str, str]) -> LocatedMount:
    entries = mounttable.read_mounts()
    real = mounttable.real_mountpoint(path, entries)
    entry = mounttable.find_mount(real, entries)
    ours = entry is not None and entry.filesystem_type == mounttable.FILESYSTEM_TYPE
    directory = runtime_directory(environ)
    if entry is not None and ours and os.geteuid() == 0 and entry.owner:
        # Root looks after a user's mount: its socket is where that user's are.
        theirs = Path(f"/run/user/{entry.owner}/zerofs")
        directory = theirs if theirs.is_dir() else directory
    socket = registry.socket_path(directory, real)
    if not ours and not any(record.mountpoint == real for record in registry.living(directory)):
        raise MountpointError(f"{real} is not a zerofs mount")
    return LocatedMount(mountpoint=real, socket=socket, kernel=ours)


def _of_volume(config: Path, environ: Mapping[str, str]) -> LocatedMount:
    settings = load(config, environ)
    identity = volume_identity(settings)
    found = [
        record.mountpoint
        for record in registry.living(runtime_directory(environ))
        if record.mountpoint and (record.identity == identity or record.config == str(settings.path))
    ]
    if not found:
        raise MountpointError(f"the volume of {settings.path} is not mounted on this host")
    if len(found) > 1:
        wanted = settings.servers.fuse.mountpoint
        found = [path for path in found if wanted is not None and path == os.path.realpath(wanted)] or found
    if len(found) > 1:
        raise MountpointError(f"the volume is mounted at several places: {', '.join(found)}; name one of them")
    return _at(found[0], environ)
