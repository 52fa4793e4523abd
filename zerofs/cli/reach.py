"""Where a command on a whole volume does its work: in the mount through which this host writes it, or here."""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from zerofs.admin import registry
from zerofs.admin.control import client, protocol
from zerofs.cli import console
from zerofs.cli.plan import volume_identity
from zerofs.config import load
from zerofs.config.password import read_password
from zerofs.config.paths import find_config, process_environment, runtime_directory
from zerofs.config.settings import Settings
from zerofs.crypto.secret import Secret
from zerofs.errors import CheckpointError, CloneError, FencedError
from zerofs.telemetry.log import configure
from zerofs.world import World

if TYPE_CHECKING:
    from zerofs.lsm.engine import Engine

Work = Callable[["Engine"], Awaitable[dict[str, Any]]]
"""What to do with the open volume, and what to tell of it."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Reached:
    """The volume of a configuration, and the mounts through which this host writes it.

    There is one at most, but for those that it took the volume over from.
    """

    settings: Settings
    runtime_dir: Path
    writers: tuple[registry.MountRecord, ...]

    def ask(self, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the mount answers. Raises RemoteError with its error, MountpointError when it does not answer."""
        *shut_out, last = self.writers
        for writer in shut_out:
            try:
                return self._ask(writer, request, arguments)
            except protocol.RemoteError as error:
                if error.exit_code != FencedError.exit_code:
                    raise
        return self._ask(last, request, arguments)

    def _ask(self, writer: registry.MountRecord, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        with client.Connection(registry.socket_path(self.runtime_dir, writer.mountpoint)) as connection:
            return connection.ask(request, arguments)

    def here(self, work: Work, *, read_only: bool, verbose: bool, password: Secret | None = None) -> dict[str, Any]:
        """What `work` returns, done in this process; for writing, the volume is taken as `run` takes it.

        `password`: the one to use, read already.

        Raises NoVolumeError, VolumeInUseError, and whatever opening, working and closing raise.
        """
        configure("debug" if verbose else "warning")
        password = password or read_password(self.settings.storage.password, console.ask_secret)
        return trio.run(self.open_here, work, password, read_only, World())

    async def open_here(self, work: Work, password: Secret, read_only: bool, world: World) -> dict[str, Any]:
        """As `here`, within a command that runs trio already."""
        from zerofs.admission import OpenOptions
        from zerofs.volume import open_bare

        options = OpenOptions(read_only=read_only, create=False)
        answer: dict[str, Any] | CheckpointError | CloneError
        async with self._claimed(read_only), open_bare(self.settings, password, options, world) as engine:
            try:
                answer = await work(engine)
            except (CheckpointError, CloneError) as error:
                answer = error  # nothing was changed: the volume is closed as it should be
        if isinstance(answer, CheckpointError | CloneError):
            raise answer
        return answer

    @contextlib.asynccontextmanager
    async def _claimed(self, read_only: bool) -> AsyncIterator[None]:
        """On this host nobody else writes the volume meanwhile."""
        if read_only:
            yield
            return
        with registry.claim(self.runtime_dir, _record(self.settings), take_over=False):
            yield


def reach(config: Path | None) -> Reached:
    """The volume of `config`, or of the usual configuration file. Raises ConfigError."""
    environ: Mapping[str, str] = process_environment()
    return reach_settings(load(config or find_config(environ), environ))


def reach_settings(settings: Settings) -> Reached:
    """The volume of these settings."""
    directory, identity = runtime_directory(process_environment()), volume_identity(settings)
    writers = tuple(
        record
        for record in registry.living(directory)
        if record.identity == identity and not record.read_only and record.mountpoint
    )
    return Reached(settings=settings, runtime_dir=directory, writers=writers)


def _record(settings: Settings) -> registry.MountRecord:
    return registry.MountRecord(
        mountpoint="", identity=volume_identity(settings), pid=os.getpid(), read_only=False, config=str(settings.path)
    )
