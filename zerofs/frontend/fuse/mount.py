"""One FUSE mount from beginning to end: `serve`.

pyfuse3 keeps its session in module globals, so a process has one mount at a time. Requests are answered until the very
last moment, shielded from cancellation: unmounting itself makes the kernel send some, and they may hold data.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import pyfuse3
import trio

from zerofs import mounttable
from zerofs.errors import ConfigError, MountpointError
from zerofs.frontend.fuse.operations import Operations
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.frontend.fuse.stay_awake import staying_awake
from zerofs.fs.filesystem import Filesystem
from zerofs.world import Lane, World

_log = logging.getLogger(__name__)

DRIVER = "pyfuse3"

LINGER_S = 10.0
"""How long files that others keep open in a mount that is going away are still served."""

READ_AHEAD_KIB = 1024
"""The longest read that the kernel sends, where we may say so; its default is 128."""

_IDLE_WORKERS = 8
_MOST_WORKERS = 512
"""Requests that wait for the store at the same time. With all of them waiting, cached reads would wait too."""


async def serve(
    fs: Filesystem,
    mountpoint: str | os.PathLike[str],
    options: FuseOptions,
    world: World,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount `fs` and answer the kernel until it is unmounted.

    Reports `started` with the real path of the mountpoint when the kernel has begun to talk. Returns after somebody
    unmounts it. When cancelled, it unmounts first; if files are in use it pushes what the kernel has cached, detaches
    the mount and serves those files for `LINGER_S` at most. Does not close `fs`.

    Raises:
        MountpointError: the mountpoint cannot be used, mounting fails, or the connection to the kernel breaks.
        ConfigError: unknown driver.
    """
    if options.driver != DRIVER:
        raise ConfigError(f"unknown FUSE driver {options.driver!r}: this version has {DRIVER!r}")
    path = mounttable.usable_mountpoint(mountpoint)
    if mounttable.hides_something(path):
        _log.warning("%s", mounttable.NOT_EMPTY)
    loop = _Loop()
    awake = staying_awake(world) if options.stay_awake else nullcontext()
    with _session(Operations(fs, options, loop.ready.set), path, options) as device, awake:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.run)
            if options.lifetime is not None:
                nursery.start_soon(_drop_old_pages, fs, world)
            try:
                await loop.ready.wait()
                if loop.failure is None:
                    raise_read_ahead(device)
                    task_status.started(path)
                await loop.ended.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await _leave(path, device, loop, world)
            nursery.cancel_scope.cancel()
    if loop.failure is not None:
        raise MountpointError(f"the connection to the kernel broke; {path} is no longer served") from loop.failure


async def _drop_old_pages(fs: Filesystem, world: World) -> None:
    """When a follower shows a newer state, let the kernel forget what it keeps of open files."""
    while True:
        for inode in await fs.next_renewal():
            # In a thread: the kernel waits for reads of such pages that are under way, and we have to answer them. An
            # error means that it knows the inode no more.
            with suppress(OSError):
                await world.offload(Lane.DISK, pyfuse3.invalidate_inode, inode)


class _Loop:
    """The binding's loop. Only `scope` stops it from our side: cancellation from above does not reach it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope(shield=True)
        self.ready = trio.Event()
        """The kernel has begun to talk, or never will."""
        self.ended = trio.Event()
        self.failure: Exception | None = None

    async def run(self) -> None:
        """Answer until the kernel closes the connection."""
        try:
            with self.scope:
                await pyfuse3.main(min_tasks=_IDLE_WORKERS, max_tasks=_MOST_WORKERS)
        except Exception as exc:
            self.failure = exc
        finally:
            self.ended.set()
            self.ready.set()


async def _leave(path: str, device: str, loop: _Loop, world: World) -> None:
    """Take the mount away while requests are still answered, and wait until the kernel needs no more answers."""
    try:
        if _is_mounted(path, device):
            await world.offload(Lane.DISK, mounttable.unmount, path)
    except MountpointError as error:
        if _is_mounted(path, device):
            await _detach(path, loop, world, error)
    with trio.move_on_after(LINGER_S) as waiting:
        await loop.ended.wait()
    if waiting.cancelled_caught:
        _log.warning("files in %s are still open; what was not fsynced through them may be lost", path)
        loop.scope.cancel()


async def _detach(path: str, loop: _Loop, world: World, why: MountpointError) -> None:
    try:
        if not loop.ended.is_set():
            _log.warning("%s: detaching it, open files are served a little longer", why)
            await world.offload(Lane.DISK, mounttable.push_dirty_pages, path)
    except MountpointError as error:
        _log.error("%s", error)
    try:
        await world.offload(Lane.DISK, partial(mounttable.unmount, path, lazy=True))
    except MountpointError as error:
        _log.error("%s", error)


@contextmanager
def _session(operations: Operations, path: str, options: FuseOptions) -> Iterator[str]:
    """The binding's session, mounted; yields the mount's device number. Unmounting is the caller's."""
    try:
        pyfuse3.init(operations, path, mount_options(options))
    except RuntimeError as exc:
        if "mount" in str(exc):
            pyfuse3.close(unmount=False)
        raise MountpointError(f"cannot mount at {path}: {_reason(options)}") from exc
    mounted = _mounted_at(path)
    try:
        yield mounted.device if mounted is not None else ""
    finally:
        # Never with its own unmounting: that looks at the path only, and something else may be mounted there by now.
        pyfuse3.close(unmount=False)


def _mounted_at(path: str) -> mounttable.MountEntry | None:
    return mounttable.find_mount(path, mounttable.read_mounts())


def _is_mounted(path: str, device: str) -> bool:
    mounted = _mounted_at(path)
    return mounted is not None and mounted.device == device


def raise_read_ahead(device: str) -> None:
    """Let the kernel ask for 1 MiB at a time when it reads ahead. Only root may; others keep 128 KiB."""
    try:
        Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
    except OSError as exc:
        _log.debug("read_ahead_kb of %s stays as it is: %s", device, exc.strerror)


def mount_options(options: FuseOptions) -> set[str]:
    """The options of mount(2) and libfuse. 1 MiB requests are libfuse's default, as is nosuid, nodev."""
    fsname = options.fsname.encode("ascii", "replace").decode().replace("\\", "\\\\").replace(",", "\\,")
    chosen = {"default_permissions", f"fsname={fsname}", "subtype=zerofs"}
    if options.allow_other:
        chosen.add("allow_other")
    if options.read_only:
        chosen.add("ro")
    return chosen


def _reason(options: FuseOptions) -> str:
    """Why mounting failed, as far as it can be seen from here."""
    if obstacle := mounttable.fuse_obstacle(allow_other=options.allow_other):
        return obstacle
    if os.geteuid() == 0:
        return "mount(2) was refused; the container's rules may forbid it"
    return "fusermount3 refused; what it said stands above"
