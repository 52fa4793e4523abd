"""The kernel's view of mounts: which there are, what may become one, and how one is taken away.

Below admin, frontend and commands, because all of them ask. Nothing here looks inside a mount (a `stat` on it would
wait for the very process that may be asking), except `push_dirty_pages`, which has to. Everything blocks: inside trio,
call it through `World.offload`. The mountinfo table is the only source about mounts.
"""

import ctypes
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zerofs.errors import MountpointError

FILESYSTEM_TYPE = "fuse.zerofs"
"""What `/proc/self/mountinfo` shows for our mounts."""

NOT_EMPTY = "the mountpoint is not empty; what it holds is hidden while the volume is mounted"
NO_HELPER = "fusermount3 was not found; install the package fuse3"

_DEVICE = Path("/dev/fuse")
_FUSE_CONF = Path("/etc/fuse.conf")
_CAP_SYS_ADMIN = 21
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ESCAPES = {b"\\040": b" ", b"\\011": b"\t", b"\\012": b"\n", b"\\043": b"#", b"\\134": b"\\"}


class BusyError(MountpointError):
    """The mountpoint cannot be unmounted, because processes use it."""


@dataclass(slots=True, frozen=True, kw_only=True)
class MountEntry:
    """One line of mountinfo. `device` is `major:minor`; `owner` the uid that a FUSE mount belongs to, else None."""

    mountpoint: str
    device: str
    filesystem_type: str
    source: str
    owner: int | None


def parse_mountinfo(text: bytes) -> list[MountEntry]:
    """The entries of `/proc/<pid>/mountinfo`, in the kernel's order (a later one covers an earlier one).

    Source: proc_pid_mountinfo(5). Lines of any other shape are skipped.
    """
    entries = []
    for line in text.splitlines():
        fields = line.split(b" ")
        try:
            separator = fields.index(b"-", 6)
            filesystem_type, source, options = fields[separator + 1 : separator + 4]
        except ValueError:
            continue
        owners = [item[8:] for item in options.split(b",") if item.startswith(b"user_id=")]
        entries.append(
            MountEntry(
                mountpoint=os.fsdecode(_unescaped(fields[4])),
                device=os.fsdecode(fields[2]),
                filesystem_type=os.fsdecode(filesystem_type),
                source=os.fsdecode(_unescaped(source)),
                owner=int(owners[0]) if owners and owners[0].isdigit() else None,
            )
        )
    return entries


def _unescaped(text: bytes) -> bytes:
    # The backslash comes last: what it stands for must not begin another escape.
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text


def read_mounts() -> list[MountEntry]:
    """The mounts of this process's namespace."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())


def real_mountpoint(path: str, entries: Sequence[MountEntry]) -> str:
    """The one name of a mountpoint: absolute, without symlinks. A path that is mounted as it stands is not touched."""
    absolute = os.path.abspath(path)
    if any(entry.mountpoint == absolute for entry in entries):
        return absolute
    return os.path.realpath(absolute)


def find_mount(mountpoint: str, entries: Sequence[MountEntry]) -> MountEntry | None:
    """The topmost mount exactly at `mountpoint` (as `real_mountpoint` gives it)."""
    return next((entry for entry in reversed(entries) if entry.mountpoint == mountpoint), None)


def usable_mountpoint(path: str | os.PathLike[str]) -> str:
    """The mountpoint's real path. A directory that is not empty is used; see `hides_something`.

    Raises:
        MountpointError: it does not exist, is no directory, cannot be reached, or something is mounted there.
    """
    entries = read_mounts()
    absolute = os.path.abspath(path)
    # Asked before the path is touched: a mount whose server hangs would make us hang too.
    _refuse_mounted(absolute, entries)
    real = os.path.realpath(absolute)
    _refuse_mounted(real, entries)
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError as error:
        raise MountpointError(f"the mountpoint {real} does not exist; make the directory first") from error
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountpointError(
                f"{real} answers 'Transport endpoint is not connected': it is a mount whose server is gone. Clear it "
                f"with `fusermount3 -u -z {real}`"
            ) from error
        raise MountpointError(f"the mountpoint {real} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise MountpointError(f"the mountpoint {real} is not a directory")
    return real


def _refuse_mounted(path: str, entries: Sequence[MountEntry]) -> None:
    found = find_mount(path, entries)
    if found is None:
        return
    if found.filesystem_type == FILESYSTEM_TYPE:
        raise MountpointError(f"{path} is a zerofs mount already; unmount it with `zerofs umount {path}`")
    what = f"{path} is a mountpoint already ({found.filesystem_type}): choose another directory, or unmount it first"
    if found.filesystem_type.startswith("fuse"):
        what += f"; if its server is gone, clear it with `fusermount3 -u -z {path}`"
    raise MountpointError(what)


def hides_something(mountpoint: str) -> bool:
    """Whether the directory holds anything, which a mount would hide. To be told to the user: `NOT_EMPTY`."""
    try:
        return bool(os.listdir(mountpoint))
    except OSError:
        return False  # whoever mounts there finds out more


def fuse_obstacle(*, allow_other: bool = False) -> str:
    """Why this process cannot mount with FUSE, and what to do; empty when nothing is known to be in the way."""
    try:
        # Opening it is no mount yet, and the one way to hear of a missing module or a container's device rules.
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"{_DEVICE} does not exist; load the kernel module `fuse`, or give the container the device"
    except OSError as error:
        return f"{_DEVICE} cannot be used: {error.strerror}; load the kernel module `fuse`, or ask for permission"
    if os.geteuid() == 0:
        return "" if _may_mount() else "a container needs the capability SYS_ADMIN for mounting"
    if find_tool("fusermount3") is None:
        return NO_HELPER
    if allow_other and not _others_allowed():
        return f"allow_other needs a line `user_allow_other` in {_FUSE_CONF}"
    return ""


def _may_mount() -> bool:
    """Source: proc_pid_status(5), capabilities(7)."""
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next((line.split()[1] for line in status if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def _others_allowed() -> bool:
    try:
        lines = _FUSE_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def find_tool(name: str) -> str | None:
    """A system program's path, None where it is not installed. A systemd mount unit has no PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + _SYSTEM_PATH)


def unmount(mountpoint: str, *, lazy: bool = False) -> None:
    """Take the mount away; `lazy` lets those who use it finish while nobody new gets in.

    Root unmounts by itself, others through the setuid helper `fusermount3`.

    Raises:
        BusyError: processes use it (never when lazy).
        MountpointError: not mounted, not permitted, or the helper is missing.
    """
    if os.geteuid() == 0:
        _unmount_as_root(mountpoint, lazy)
    else:
        _unmount_as_user(mountpoint, lazy)


def _unmount_as_root(mountpoint: str, lazy: bool) -> None:
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(mountpoint), flags) != 0:
        code = ctypes.get_errno()
        if code == errno.EBUSY:
            raise BusyError(f"{mountpoint} is busy")
        if code == errno.EINVAL:
            raise MountpointError(f"{mountpoint} is not mounted")
        raise MountpointError(f"{mountpoint} cannot be unmounted: {os.strerror(code)}")


def _unmount_as_user(mountpoint: str, lazy: bool) -> None:
    helper = find_tool("fusermount3")
    if helper is None:
        raise MountpointError(NO_HELPER)
    done = subprocess.run(  # noqa: S603 (a system program; the path is an argument of its own)
        [helper, "-u", *(["-z"] if lazy else []), "--", mountpoint],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        if "busy" in said.lower():
            raise BusyError(f"{mountpoint} is busy")
        raise MountpointError(f"{mountpoint} cannot be unmounted: {said or 'fusermount3 failed'}")


def push_dirty_pages(mountpoint: str) -> None:
    """Make the kernel hand over what it holds of open files (syncfs).

    Raises:
        MountpointError: the kernel could not hand over everything, or the mount cannot be entered.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MountpointError(f"{mountpoint} cannot be entered: {error.strerror}") from error
    try:
        if libc.syncfs(descriptor) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise MountpointError(
                f"the kernel could not hand over everything that was written to {mountpoint}: {reason}"
            )
    finally:
        os.close(descriptor)
