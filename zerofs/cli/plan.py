"""What is going to be mounted where: configuration, command line and `-o` options brought together and checked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from zerofs import mounttable
from zerofs.admin import registry
from zerofs.cli.mount_options import MountOptions
from zerofs.config.paths import runtime_directory
from zerofs.config.settings import Settings
from zerofs.errors import ConfigError, MountpointError


@dataclass(slots=True, frozen=True, kw_only=True)
class MountPlan:
    """Everything that a mount needs to know but the password. `mountpoint` is its real path."""

    settings: Settings
    mountpoint: str
    read_only: bool
    allow_other: bool
    writeback: bool
    noatime: bool
    no_exec: bool
    take_over: bool
    accept_rollback: bool
    runtime_dir: Path
    log: str = ""
    checkpoint: str | None = None

    @property
    def record(self) -> registry.MountRecord:
        """What this process enters into the host's registry."""
        return registry.MountRecord(
            mountpoint=self.mountpoint,
            identity=volume_identity(self.settings),
            pid=os.getpid(),
            read_only=self.read_only,
            config=str(self.settings.path),
            log=self.log,
        )


def make_plan(
    settings: Settings, mountpoint: str | None, options: MountOptions, environ: Mapping[str, str], log: str = ""
) -> MountPlan:
    """The plan; what `-o` does not say, the configuration does.

    Raises:
        ConfigError: no mountpoint is named, a checkpoint is to be written to, or `noexec` is asked for by somebody
            who is not root.
        MountpointError: the mountpoint cannot be mounted on, or would get in the mount's own way.
    """
    fuse = settings.servers.fuse
    target = mountpoint or (os.fspath(fuse.mountpoint) if fuse.mountpoint else "")
    if not target:
        raise ConfigError(f"{settings.path}: no mountpoint: set it in [servers.fuse]")
    if options.checkpoint is not None and options.read_only is False:
        raise ConfigError(
            "a checkpoint is mounted read-only: leave the mount option rw away, or restore the checkpoint"
        )
    if options.no_exec and os.geteuid() != 0:
        raise ConfigError("the mount option noexec needs root")
    real = mounttable.usable_mountpoint(target)
    _check_own_places(real, settings, runtime_directory(environ))
    return MountPlan(
        settings=settings,
        mountpoint=real,
        read_only=options.checkpoint is not None
        or (fuse.read_only if options.read_only is None else options.read_only),
        checkpoint=options.checkpoint,
        allow_other=fuse.allow_other if options.allow_other is None else options.allow_other,
        writeback=fuse.writeback if options.writeback is None else options.writeback,
        noatime=fuse.noatime if options.noatime is None else options.noatime,
        no_exec=options.no_exec,
        take_over=options.take_over,
        accept_rollback=options.accept_rollback,
        runtime_dir=runtime_directory(environ),
        log=log,
    )


def check_kernel(plan: MountPlan) -> None:
    """Whether anything can be mounted here: to be asked before the store is opened, for opening shuts others out.

    Raises:
        MountpointError: something is missing, and what to do about it.
    """
    obstacle = mounttable.fuse_obstacle(allow_other=plan.allow_other)
    if obstacle:
        raise MountpointError(f"cannot mount at {plan.mountpoint}: {obstacle}")


def _check_own_places(mountpoint: str, settings: Settings, runtime_dir: Path) -> None:
    """Refuse a mountpoint that covers what its own process works with: that process would wait for itself for ever."""
    places = {"the cache": settings.cache.dir, "the state directory": settings.state_dir, "the sockets": runtime_dir}
    scheme, _, rest = settings.storage.url.partition("://")
    if scheme == "file":
        store = os.path.realpath(unquote(rest))
        places["the store"] = Path(store)
        if _is_below(mountpoint, store):
            raise MountpointError(f"the mountpoint {mountpoint} lies in the store {store}; choose one outside of it")
    for what, path in places.items():
        if _is_below(os.path.realpath(path), mountpoint):
            raise MountpointError(f"the mountpoint {mountpoint} would hide {what} at {path}; choose another one")


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def volume_identity(settings: Settings) -> str:
    """The volume by where it is stored: the same text for two spellings of one place, without credentials.

    Two names of one server stay two identities; the registry is for mistakes, the epoch in the store for safety. A
    volume in memory is nobody else's, so it is told apart by process.
    """
    scheme, _, rest = settings.storage.url.partition("://")
    if scheme == "file":
        return "file://" + os.path.realpath(unquote(rest))
    if scheme == "memory":
        return f"memory://{os.getpid()}/{rest}"
    return f"{(settings.aws.endpoint or 'aws').rstrip('/')} {scheme}://{rest.strip('/')}"
