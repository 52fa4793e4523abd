"""`zerofs umount`: flush, unmount, and return when everything is stored and the process that served it has ended."""

from zerofs import mounttable
from zerofs.admin import mounts
from zerofs.admin.control import client, protocol
from zerofs.cli import console
from zerofs.cli.locate import LocatedMount
from zerofs.errors import FencedError, MountpointError, UnsavedDataError

_EXIT_TIMEOUT_S = 60.0


def unmount(mount: LocatedMount, *, lazy: bool, force: bool) -> None:
    """Unmount, in an order in which nothing is lost silently.

    `lazy` unmounts although processes use it, as a first SIGTERM does; `force` although the flush failed.

    Raises:
        MountpointError: busy, with the processes that hold it; or not to be unmounted.
        UnsavedDataError: the process that served it is dead.
        RemoteError: something could not be stored. Still mounted unless `force`, or another writer has it anyway.
    """
    try:
        with client.Connection(mount.socket) as connection:
            failure = _flush(connection, mount, force)
            # Asked before the unmount: afterwards it could be too late to hear how it ended.
            connection.send(protocol.STATUS, protocol.STOP if lazy or not mount.kernel else protocol.WAIT)
            connection.receive()
            if mount.kernel and not lazy:
                _take_away(mount.mountpoint)
            with console.progress("storing what is left"):
                try:
                    connection.receive()
                except protocol.RemoteError as error:
                    failure = error
                ended = client.wait_for_exit(connection.pid, _EXIT_TIMEOUT_S)
            if failure is not None:
                raise failure
            if not ended:
                raise MountpointError(f"everything is stored, but process {connection.pid} does not end")
    except client.NobodyListensError:
        _bury(mount.mountpoint)


def _flush(connection: client.Connection, mount: LocatedMount, force: bool) -> protocol.RemoteError | None:
    """The flush's error if unmounting goes on in spite of it."""
    if not mount.kernel:
        return None  # not mounted yet, or no more; ending it stores everything
    try:
        with console.progress("storing what was written"):
            connection.ask(protocol.FLUSH, {"kernel": False})
    except protocol.RemoteError as error:
        # Fenced: this mount will never store anything again, so keeping it helps nobody.
        if force or error.exit_code == FencedError.exit_code:
            return error
        raise protocol.RemoteError(
            f"{error}; {mount.mountpoint} stays mounted; --force unmounts it all the same", error.exit_code
        ) from error
    return None


def _take_away(mountpoint: str) -> None:
    try:
        mounttable.unmount(mountpoint)
    except mounttable.BusyError:
        holders = "; ".join(str(holder) for holder in mounts.find_holders(mountpoint))
        raise mounttable.BusyError(
            f"{mountpoint} is busy, held by {holders or 'processes that this user may not see'}: "
            "end them, or unmount with --lazy"
        ) from None


def _bury(mountpoint: str) -> None:
    """The process is dead: take its mountpoint away if it is still there, and do not call that a success."""
    entry = mounttable.find_mount(mountpoint, mounttable.read_mounts())
    if entry is not None and entry.filesystem_type == mounttable.FILESYSTEM_TYPE:
        mounttable.unmount(mountpoint, lazy=True)
    raise UnsavedDataError(
        f"the process that served {mountpoint} ended without storing everything: "
        "what was written after the last fsync or flush may be lost"
    )
