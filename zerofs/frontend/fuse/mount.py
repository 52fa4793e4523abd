"""One FUSE mount from beginning to end: `serve`.

How the kernel is spoken to is a driver's affair. Requests are answered until the very
last moment, shielded from cancellation: unmounting itself makes the kernel send some, and they may hold data.
"""

import logging
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from zerofs import mounttable
from zerofs.errors import ConfigError, MountpointError
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.frontend.fuse.session import OpenSession, Session
from zerofs.fs.filesystem import Filesystem
from zerofs.world import Lane, World

_log = logging.getLogger(__name__)

LINGER_S = 10.0
"""How long files that others keep open in a mount that is going away are still served."""

READ_AHEAD_KIB = 1024
"""The longest read that the kernel sends, where we may say so; its default is 128."""


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
    open_session = _driver(options.driver)
    path = mounttable.usable_mountpoint(mountpoint)
    if mounttable.hides_something(path):
        _log.warning("%s", mounttable.NOT_EMPTY)
    with open_session(fs, path, options, world) as session:
        mounted = _mounted_at(path)
        device = mounted.device if mounted is not None else ""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            if options.lifetime is not None:
                nursery.start_soon(_drop_old_pages, fs, session, world)
            try:
                await session.ready.wait()
                if session.failure is None:
                    raise_read_ahead(device)
                    task_status.started(path)
                await session.ended.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await _leave(path, device, session, world)
            nursery.cancel_scope.cancel()
    if session.failure is not None:
        raise MountpointError(f"the connection to the kernel broke; {path} is no longer served") from session.failure


def _driver(name: str) -> OpenSession:
    """The driver of this name. Its library is loaded here and now. Raises ConfigError."""
    if name == "native":
        from zerofs.frontend.fuse.native import session as native

        return native.open_session
    if name == "pyfuse3":
        from zerofs.frontend.fuse.libfuse import session as libfuse

        return libfuse.open_session
    raise ConfigError(f'unknown FUSE driver {name!r}: this version has "native" and "pyfuse3"')


async def _drop_old_pages(fs: Filesystem, session: Session, world: World) -> None:
    """When a follower shows a newer state, let the kernel forget what it keeps of open files."""
    while True:
        for inode in await fs.next_renewal():
            # In a thread: the kernel waits for reads of such pages that are under way, and we have to answer them. An
            # error means that it knows the inode no more.
            with suppress(OSError):
                await world.offload(Lane.DISK, session.invalidate, inode)


async def _leave(path: str, device: str, session: Session, world: World) -> None:
    """Take the mount away while requests are still answered, and wait until the kernel needs no more answers."""
    try:
        if _is_mounted(path, device):
            await world.offload(Lane.DISK, mounttable.unmount, path)
    except MountpointError as error:
        if _is_mounted(path, device):
            await _detach(path, session, world, error)
    with trio.move_on_after(LINGER_S) as waiting:
        await session.ended.wait()
    if waiting.cancelled_caught:
        _log.warning("files in %s are still open; what was not fsynced through them may be lost", path)
        session.stop()


async def _detach(path: str, session: Session, world: World, why: MountpointError) -> None:
    try:
        if not session.ended.is_set():
            _log.warning("%s: detaching it, open files are served a little longer", why)
            await world.offload(Lane.DISK, mounttable.push_dirty_pages, path)
    except MountpointError as error:
        _log.error("%s", error)
    try:
        await world.offload(Lane.DISK, partial(mounttable.unmount, path, lazy=True))
    except MountpointError as error:
        _log.error("%s", error)


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
