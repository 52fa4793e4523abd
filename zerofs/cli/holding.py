"""Checkpoints that commands make and delete in a volume.

It is done where the volume is served: by its mount on this host, through the control socket, or else by opening the
volume here for a moment.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerofs.admin import checkpoints
from zerofs.admin.control import protocol
from zerofs.cli.reach import reach_settings
from zerofs.config.settings import Settings
from zerofs.crypto.secret import Secret
from zerofs.errors import VolumeInUseError
from zerofs.world import Lane, World

if TYPE_CHECKING:
    from zerofs.lsm.engine import Engine
    from zerofs.lsm.storage import Storage

_PROGRAMS = frozenset({b"zerofs", b"mount.fuse.zerofs"})


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

    async def served_volume(self) -> str | None:
        """The id of the volume that a mount on this host serves there, hexadecimal; None when none does.

        Raises RemoteError, MountpointError.
        """
        reached = reach_settings(self._settings)
        if not reached.writers:
            return None
        status = await self._world.offload(Lane.NETWORK, reached.ask, protocol.STATUS, {})
        return str(status["volume_id"])

    async def find(self, storage: "Storage", name: str) -> dict[str, Any]:
        """One by name or id, as it is in the store. Raises NoVolumeError, CheckpointError."""
        from zerofs.lsm.checkpoints import find
        from zerofs.lsm.manifests import newest_manifest

        return checkpoints.describe(find(await newest_manifest(storage), name))

    async def check_writer(self, storage: "Storage", remedy: str) -> None:
        """Refuse to open for writing what somebody seems to have open whom this user's registry does not know.

        That is another host, where nobody can look, or a living process of this one: another user's (who, under sudo,
        may be the same person). Raises NoVolumeError, VolumeInUseError; `remedy`: what to do about another host.
        """
        from zerofs.lsm.manifests import newest_manifest

        newest = await newest_manifest(storage)
        if newest.closed or self.are_served:
            return
        writer = newest.writer
        if writer.host != socket.gethostname():
            raise VolumeInUseError(
                f"process {writer.pid} on {writer.host} has the volume open for writing at {writer.mountpoint or '-'}, "
                f"or died there: {remedy}"
            )
        if writer.pid != os.getpid() and is_zerofs(writer.pid):
            if not writer.mountpoint:
                raise VolumeInUseError(
                    f"a command is changing the volume: process {writer.pid}; try again when it has ended"
                )
            raise VolumeInUseError(
                f"process {writer.pid} of this host has the volume open for writing at {writer.mountpoint}, and this "
                "user's commands do not reach it: run this as the user who mounted it, or unmount it"
            )

    async def change(self, action: str, names: Sequence[str], of: str | None = None) -> list[dict[str, Any]]:
        """Make (of the present, or `of` another one) or delete checkpoints; what the last answer was.

        Raises CheckpointError, or RemoteError with its code, VolumeInUseError, and what opening raises.
        """
        if not names:
            return []
        reached = reach_settings(self._settings)  # anew: it may have been mounted, or unmounted, since
        if reached.writers:
            for name in names:
                arguments = {"action": action, "name": name, "of": of}
                answer = await self._world.offload(Lane.NETWORK, reached.ask, protocol.CHECKPOINT, arguments)
        else:

            async def work(engine: "Engine") -> dict[str, Any]:
                return await checkpoints.change_alone(engine, action, names, of)

            answer = await reached.open_here(work, self._password, False, self._world)
        found: list[dict[str, Any]] = answer["checkpoints"]
        return found


def is_zerofs(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether a process of this host lives and runs zerofs, as its command line says.

    One that cannot be looked at counts. One in another container cannot be seen, and counts as dead.
    """
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True
    return any(os.path.basename(word) in _PROGRAMS for word in words)
