"""One mount, from claim to farewell: the trio side of `zerofs run` and `zerofs mount`.

    claim the mountpoint and the volume on this host
      └ control socket
          └ signals
              └ open the volume
                  └ mount, serve until unmounted     (a first signal, or `stop`, unmounts)
              ┌ close the volume: everything is stored, or an error says that it is not
          tell those who wait how it ended
    release

A second signal ends the process at once; what was not stored by then is lost up to the last fsync.
"""

import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import trio

from zerofs import __version__, mounttable
from zerofs.admin import checkpoints, mounts, registry
from zerofs.admin.control import protocol, server
from zerofs.cli import exitcodes
from zerofs.cli.failure import first_error, underlying
from zerofs.cli.plan import MountPlan
from zerofs.cli.rooms import Kernel, Rooms, ServedVolume
from zerofs.crypto.secret import Secret
from zerofs.errors import FsError, MountpointError, UnsavedDataError, ZerofsError
from zerofs.world import Lane, World

log = logging.getLogger(__name__)


class Session:
    """A mount being served. `ready` is called once, when the mountpoint can be used; `die` ends the process."""

    def __init__(
        self,
        plan: MountPlan,
        world: World,
        rooms: Rooms,
        *,
        kernel: Kernel | None = None,
        ready: Callable[[], None] = lambda: None,
        die: Callable[[int], None] = os._exit,
    ) -> None:
        self._plan = plan
        self._world = world
        self._rooms = rooms
        self._kernel = kernel or Kernel()
        self._ready = ready
        self._die = die
        self._volume: ServedVolume | None = None
        self._state = "starting"
        self._opening = trio.CancelScope()
        self._stop = trio.Event()
        self._ended = trio.Event()
        self._error: ZerofsError | None = None
        self._unsaved = ""

    async def run(self, password: Secret) -> None:
        """Serve until unmounted, or until told to stop before the mount was there.

        Raises:
            VolumeInUseError, MountpointError: refused before anything was touched.
            ZerofsError: the volume could not be opened, or something could not be stored at the end.
        """
        plan = self._plan
        with registry.claim(plan.runtime_dir, plan.record, take_over=plan.take_over):
            async with server.serve(registry.socket_path(plan.runtime_dir, plan.mountpoint), self._handlers()):
                try:
                    with self._opening:
                        await self._signals_and_volume(password)
                    if self._unsaved:
                        raise UnsavedDataError(self._unsaved)
                except BaseException as error:
                    self._error = first_error(error)
                    raise
                finally:
                    self._ended.set()

    async def _signals_and_volume(self, password: Secret) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals)
            async with self._rooms.open_volume(self._plan, password, self._world) as volume:
                self._volume = volume
                self._state = "mounting"
                await self._serve(volume)
                self._state = "closing"
                log.info("unmounted; storing what is left")
            nursery.cancel_scope.cancel()

    async def _serve(self, volume: ServedVolume) -> None:
        plan = self._plan

        async def frontend(*, task_status: trio.TaskStatus[str]) -> None:
            await self._rooms.serve(volume, plan, self._world, task_status=task_status)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            await nursery.start(frontend)
            if plan.no_exec:
                await self._world.offload(Lane.DISK, _forbid_execution, plan)
            self._state = "mounted"
            log.info("mounted at %s", plan.mountpoint)
            self._ready()
            await self._stop.wait()
            self._state = "unmounting"
            if not await self._take_down():
                # The frontend detaches the mount then, and serves files in use for a little longer.
                nursery.cancel_scope.cancel()

    async def _take_down(self) -> bool:
        """Unmount. True if the frontend ends by itself now, False if the mount is in use and has to be cut off."""
        kernel, mountpoint = self._kernel, self._plan.mountpoint
        try:
            await self._world.offload(Lane.DISK, kernel.unmount, mountpoint)
            return True
        except mounttable.BusyError:
            holders = await self._world.offload(Lane.DISK, kernel.find_holders, mountpoint)
            names = ", ".join(str(holder) for holder in holders) or "processes that this user may not see"
            log.warning("%s is busy, held by %s: it is unmounted for everybody else now", mountpoint, names)
        except MountpointError as error:
            log.warning("%s", error)
            return False
        try:
            # What the kernel still holds of open files would be cut off with the mount.
            await self._world.offload(Lane.DISK, kernel.push_dirty_pages, mountpoint)
        except MountpointError as error:
            self._unsaved = str(error)
            log.error("%s", error)
        return False

    async def _watch_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)  # a closed terminal is a reason to store everything, not to lose it
        with trio.open_signal_receiver(*numbers) as received:
            task_status.started()
            async for number in received:
                if self._stop.is_set():
                    log.error("%s again: ending at once", signal.Signals(number).name)
                    self._kernel.detach_in_background(self._plan.mountpoint)
                    self._die(exitcodes.for_signal(number))
                    return
                log.info("%s: unmounting; a second one ends at once", signal.Signals(number).name)
                self._begin_stop()

    def _begin_stop(self) -> None:
        self._stop.set()
        if self._state == "starting":
            self._opening.cancel()

    def _handlers(self) -> dict[str, server.Handler]:
        return {
            protocol.STATUS: self._on_status,
            protocol.FLUSH: self._on_flush,
            protocol.STOP: self._on_stop,
            protocol.WAIT: self._on_wait,
            protocol.CHECKPOINT: self._on_checkpoint,
            protocol.COLLECT: self._on_collect,
            protocol.CLEAR_DATA_LOST: self._on_clear_data_lost,
        }

    async def _on_status(self, arguments: dict[str, Any]) -> dict[str, Any]:
        plan = self._plan
        status = {
            "pid": os.getpid(),
            "mountpoint": plan.mountpoint,
            "version": __version__,
            "config": str(plan.settings.path),
            "read_only": plan.read_only,
            "checkpoint": plan.checkpoint or "",
            "log": plan.log,
            "state": self._state,
        }
        if self._volume is not None:
            # The volume's own word ("ok", "waiting", "fenced") counts, unless the mount is not there yet or no more.
            status |= self._volume.status()
            if self._state != "mounted":
                status["state"] = self._state
        return status

    async def _on_flush(self, arguments: dict[str, Any]) -> dict[str, Any]:
        volume = self._served_volume()
        kernel_error: MountpointError | None = None
        if arguments.get("kernel", True):
            kernel_error = await self._push_dirty_pages()
        try:
            # Its own error says more than the kernel's EIO, so it comes first.
            await volume.flush()
        except FsError as error:
            raise underlying(error) from error
        if kernel_error is not None:
            raise UnsavedDataError(str(kernel_error)) from kernel_error
        return {"mountpoint": self._plan.mountpoint}

    async def _push_dirty_pages(self) -> MountpointError | None:
        """Let the kernel hand over what it holds back; the error if it could not."""
        if not self._plan.read_only:
            try:
                await self._world.offload(Lane.DISK, self._kernel.push_dirty_pages, self._plan.mountpoint)
            except MountpointError as error:
                return error
        return None

    def _served_volume(self) -> ServedVolume:
        if self._volume is None or self._state not in ("mounted", "unmounting"):
            raise MountpointError(f"{self._plan.mountpoint} is {self._state}: it cannot do that now")
        return self._volume

    async def _on_checkpoint(self, arguments: dict[str, Any]) -> dict[str, Any]:
        volume, action = self._served_volume(), arguments.get("action")
        if action == checkpoints.CREATE:
            failure = await self._push_dirty_pages()
            if failure is not None:
                raise UnsavedDataError(str(failure)) from failure
        return await volume.checkpoint(action, arguments.get("name"), arguments.get("of"))

    async def _on_collect(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await self._served_volume().collect(dry_run=bool(arguments.get("dry_run")))

    async def _on_clear_data_lost(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"was_lost": self._served_volume().clear_data_lost()}

    async def _on_stop(self, arguments: dict[str, Any]) -> dict[str, Any]:
        log.info("told to stop: unmounting")
        self._begin_stop()
        return await self._on_wait(arguments)

    async def _on_wait(self, arguments: dict[str, Any]) -> dict[str, Any]:
        await self._ended.wait()
        if self._error is not None:
            raise protocol.RemoteError(str(self._error), self._error.exit_code)
        return {"mountpoint": self._plan.mountpoint}


def _forbid_execution(plan: MountPlan) -> None:
    mounts.forbid_execution(plan.mountpoint, read_only=plan.read_only)
