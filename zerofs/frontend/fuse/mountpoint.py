"""The directory that becomes the mount: what must hold before, and how the mount is taken away again.

Nothing here looks inside the mount, because the process that would have to answer is this one; `push_dirty_pages` does
it through a child process. The mountinfo table is the only source about mounts.
"""

import errno
import logging
import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import trio

from zerofs.errors import MountpointError

_log = logging.getLogger(__name__)

READ_AHEAD_KIB = 1024
"""The longest read that the kernel sends, where we may say so; its default is 128."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ESCAPES = {b"\\040": b" ", b"\\011": b"\t", b"\\012": b"\n", b"\\043": b"#", b"\\134": b"\\"}


@dataclass(slots=True, frozen=True, kw_only=True)
class Mounted:
    """A mount at some path: its device number (`major:minor`), filesystem type and source."""

    device: str
    filesystem_type: str
    source: str


def find_mounted(table: bytes, path: str) -> Mounted | None:
    """The topmost mount exactly at `path` (absolute, without symlinks), in the text of a mountinfo table.

    Source: proc_pid_mountinfo(5).
    """
    found = None
    wanted = os.fsencode(path)
    for line in table.splitlines():
        fields = line.split(b" ")
        if len(fields) < 10 or b"-" not in fields[6:] or _unescaped(fields[4]) != wanted:
            continue
        filesystem_type, source = fields[fields.index(b"-", 6) + 1 :][:2]
        found = Mounted(
            device=fields[2].decode(), filesystem_type=os.fsdecode(filesystem_type), source=os.fsdecode(source)
        )
    return found


def _unescaped(text: bytes) -> bytes:
    # The backslash comes last: what it stands for must not begin another escape.
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text


def mounted_at(path: str) -> Mounted | None:
    """The topmost mount at `path` in this process's namespace."""
    return find_mounted(Path("/proc/self/mountinfo").read_bytes(), path)


def usable_mountpoint(path: str | os.PathLike[str]) -> str:
    """The mountpoint's real path. A directory that is not empty is used; its contents are hidden while mounted.

    Raises:
        MountpointError: it does not exist, is no directory, cannot be reached, or something is mounted there.
    """
    absolute = os.path.abspath(path)
    # Asked before the path is touched: a mount whose server hangs would make us hang too.
    _refuse_mounted(absolute)
    real = os.path.realpath(absolute)
    _refuse_mounted(real)
    try:
        mode = os.stat(real).st_mode
        if stat.S_ISDIR(mode) and os.listdir(real):
            _log.warning("the mountpoint is not empty; what it holds is hidden while the volume is mounted")
    except FileNotFoundError as exc:
        raise MountpointError(f"mountpoint {real} does not exist: create it with `mkdir -p {real}`") from exc
    except OSError as exc:
        if exc.errno == errno.ENOTCONN:
            raise MountpointError(_dead(real)) from exc
        raise MountpointError(f"mountpoint {real} cannot be used: {exc.strerror}") from exc
    if not stat.S_ISDIR(mode):
        raise MountpointError(f"mountpoint {real} is not a directory")
    return real


def _refuse_mounted(path: str) -> None:
    mounted = mounted_at(path)
    if mounted is None:
        return
    what = f"{path} is a mountpoint already ({mounted.filesystem_type})"
    if not mounted.filesystem_type.startswith("fuse"):
        raise MountpointError(f"{what}: choose another directory, or unmount it first")
    raise MountpointError(
        f"{what}: unmount it first with `zerofs umount {path}`. If it only answers 'Transport endpoint is not "
        f"connected', its server is gone: clear it with `fusermount3 -u -z {path}`"
    )


def _dead(path: str) -> str:
    return (
        f"{path} answers 'Transport endpoint is not connected': it is a mount whose server is gone. Clear it with "
        f"`fusermount3 -u -z {path}`"
    )


def raise_read_ahead(device: str) -> None:
    """Let the kernel ask for 1 MiB at a time when it reads ahead. Only root may; others keep 128 KiB."""
    try:
        Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
    except OSError as exc:
        _log.debug("read_ahead_kb of %s stays as it is: %s", device, exc.strerror)


def _tool(name: str) -> str | None:
    # A systemd mount unit has no PATH.
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + _SYSTEM_PATH)


def unmount_helper() -> str | None:
    """The setuid program that mounts and unmounts for users, or None where it is not installed."""
    return _tool("fusermount3")


async def unmount(path: str, *, lazy: bool = False) -> str | None:
    """Take the mount away; `lazy` lets those who use it finish while nobody new gets in.

    Runs in a child process, while this one goes on answering the requests that unmounting causes. Returns None when it
    is gone, else what the system said.
    """
    helper = unmount_helper()
    if helper is not None:
        command = [helper, "-u", *(["-z"] if lazy else []), "--", path]
    else:
        command = [_tool("umount") or "umount", *(["-l"] if lazy else []), "--", path]
    try:
        done = await trio.run_process(command, check=False, capture_stderr=True, stdout=subprocess.DEVNULL)
    except OSError as exc:
        return f"{command[0]}: {exc.strerror}"
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or "it failed without a word"


async def push_dirty_pages(path: str) -> None:
    """Make the kernel write its cached pages of this mount to us: syncfs(2), from a child process."""
    command = [_tool("sync") or "sync", "-f", "--", path]
    try:
        await trio.run_process(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as exc:
        _log.warning("cached pages could not be pushed before unmounting: %s: %s", command[0], exc.strerror)
