"""The rooms that a mount is made of, as the command line needs them: one thin seam, so that tests put fakes there."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from zerofs import mounttable
from zerofs.admin import mounts
from zerofs.cli.plan import MountPlan
from zerofs.crypto.secret import Secret
from zerofs.world import World


class ServedVolume(Protocol):
    """An open volume, as far as commands speak to it."""

    def status(self) -> dict[str, Any]:
        """What it is doing, ready for JSON."""
        ...

    async def flush(self) -> None:
        """Return when everything accepted so far is in the store; raises ZerofsError when it cannot be."""
        ...

    async def checkpoint(self, action: object, name: object, of: object = None) -> dict[str, Any]:
        """See `admin.checkpoints.change`."""
        ...

    async def collect(self, *, dry_run: bool) -> dict[str, Any]:
        """See `admin.checkpoints.collect`."""
        ...

    def clear_data_lost(self) -> bool:
        """The operator knows that a write was lost; whether one was."""
        ...


class Rooms(Protocol):
    """Opening a volume, and serving it at a mountpoint."""

    def open_volume(
        self, plan: MountPlan, password: Secret, world: World
    ) -> contextlib.AbstractAsyncContextManager[ServedVolume]:
        """The volume for the duration of a context whose end stores everything, or raises."""
        ...

    async def serve(self, volume: Any, plan: MountPlan, world: World, *, task_status: trio.TaskStatus[str]) -> None:
        """Mount, report that, and serve until unmounted; when cancelled, detach the mount and end soon after."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Kernel:
    """What is asked of the kernel about our own mountpoint. All of it blocks."""

    unmount: Callable[[str], None] = mounttable.unmount
    find_holders: Callable[[str], list[mounts.Holder]] = mounts.find_holders
    push_dirty_pages: Callable[[str], None] = mounttable.push_dirty_pages
    detach_in_background: Callable[[str], None] = mounts.detach_in_background


class RealRooms:
    """The volume and the FUSE frontend themselves. Their libraries are loaded here and now, not by a query."""

    def open_volume(
        self, plan: MountPlan, password: Secret, world: World
    ) -> contextlib.AbstractAsyncContextManager[ServedVolume]:
        """See `Rooms`."""
        from zerofs.admission import OpenOptions
        from zerofs.volume import open_volume

        options = OpenOptions(
            read_only=plan.read_only,
            checkpoint=plan.checkpoint,
            accept_rollback=plan.accept_rollback,
            mountpoint=plan.mountpoint,
            noatime=plan.noatime,
        )
        return open_volume(plan.settings, password, options, world)

    async def serve(self, volume: Any, plan: MountPlan, world: World, *, task_status: trio.TaskStatus[str]) -> None:
        """See `Rooms`."""
        from zerofs.frontend.fuse.mount import serve
        from zerofs.frontend.fuse.options import FuseOptions

        options = FuseOptions(
            read_only=plan.read_only,
            allow_other=plan.allow_other,
            writeback=plan.writeback,
            driver=plan.settings.servers.fuse.driver,
            lifetime=volume.lifetime,
            # What mount(8) looks for when it asks whether a line of fstab is mounted already.
            fsname=str(plan.settings.path),
        )
        await serve(volume.fs, plan.mountpoint, options, world, task_status=task_status)
