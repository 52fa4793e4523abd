"""Checkpoints that commands make and delete in a volume.

It is done where the volume is served: by its mount on this host, through the control socket, or else by opening the
volume here for a moment.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerofs.admin import checkpoints, registry
from zerofs.admin.control import protocol
from zerofs.cli.plan import volume_identity
from zerofs.cli.reach import reach_settings
from zerofs.config.settings import Settings
from zerofs.crypto.secret import Secret
from zerofs.errors import NoVolumeError, VolumeInUseError
from zerofs.world import Lane, World

if TYPE_CHECKING:
    from zerofs.lsm.storage import Storage


class Pins:
    """The checkpoints of the volume of the settings, to be changed."""

    def __init__(self, settings: Settings, password: Secret, world: World) -> None:
        self._settings = settings
        self._password = password
        self._world = world

    @property
    def are_served(self) -> bool:
        """Whether a mount on this host answers for them."""
        return bool(reach_settings(self._settings).writers)

    async def find(self, storage: "Storage", name: str) -> dict[str, Any]:
        """One by name or id, as it is in the store. Raises NoVolumeError, CheckpointError."""
        from zerofs.lsm.checkpoints import find
        from zerofs.lsm.manifests import ManifestStore

        newest = await ManifestStore(storage).latest()
        if newest is None:
            raise NoVolumeError(f"there is no volume at {storage.store.url}")
        return checkpoints.describe(find(newest, name))

    async def check_writer(self, storage: "Storage", remedy: str) -> None:
        """Refuse to open for writing what another host seems to have open. Raises VolumeInUseError."""
        from zerofs.lsm.manifests import ManifestStore

        newest = await ManifestStore(storage).latest()
        if newest is None or newest.closed or self.are_served:
            return
        writer = newest.writer
        if writer.host != socket.gethostname():
            raise VolumeInUseError(
                f"process {writer.pid} on {writer.host} has the volume open for writing at {writer.mountpoint or '-'}, "
                f"or died there: {remedy}"
            )

    async def change(self, action: str, names: Sequence[str], of: str | None = None) -> list[dict[str, Any]]:
        """Make (of the present, or `of` another one) or delete checkpoints; what the last answer was.

        Raises CheckpointError, or RemoteError with its code, VolumeInUseError, and what opening raises.
        """
        answer: dict[str, Any] = {"checkpoints": []}
        if not names:
            return []
        reached = reach_settings(self._settings)  # anew: it may have been mounted, or unmounted, since
        if reached.writers:
            for name in names:
                arguments = {"action": action, "name": name, "of": of}
                answer = await self._world.offload(Lane.NETWORK, reached.ask, protocol.CHECKPOINT, arguments)
        else:
            answer = await self._change_here(reached.runtime_dir, action, names, of)
        found: list[dict[str, Any]] = answer["checkpoints"]
        return found

    async def _change_here(
        self, runtime_dir: Path, action: str, names: Sequence[str], of: str | None
    ) -> dict[str, Any]:
        from zerofs.admission import OpenOptions
        from zerofs.volume import open_bare

        record = registry.MountRecord(
            mountpoint="",
            identity=volume_identity(self._settings),
            pid=os.getpid(),
            read_only=False,
            config=str(self._settings.path),
        )
        answer: dict[str, Any] = {}
        with registry.claim(runtime_dir, record, take_over=False):
            async with open_bare(self._settings, self._password, OpenOptions(create=False), self._world) as engine:
                for name in names:
                    answer = await checkpoints.change(engine, action, name, of)
                if action in (checkpoints.DELETE, checkpoints.RELEASE):
                    await checkpoints.collect(engine, dry_run=False)
        return answer
