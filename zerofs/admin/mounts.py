"""The kernel's view of mounts: which there are, who holds one, and how one is taken away.

Nothing here looks inside a mount (a `stat` on it would wait for the very process that may be asking), except
`push_dirty_pages`, which has to. Everything blocks: inside trio, call it through `World.offload`.
"""

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zerofs.errors import MountpointError

FILESYSTEM_TYPE = "fuse.zerofs"
"""What `/proc/self/mountinfo` shows for our mounts."""

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_RDONLY = 2, 4, 8, 32, 4096, 1
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ESCAPES = {b"\\040": b" ", b"\\011": b"\t", b"\\012": b"\n", b"\\043": b"#", b"\\134": b"\\"}


class BusyError(MountpointError):
    """The mountpoint cannot be unmounted, because processes use it."""


@dataclass(slots=True, frozen=True, kw_only=True)
class MountEntry:
    """One line of mountinfo. `owner` is the uid that a FUSE mount belongs to, None elsewhere."""

    mountpoint: str
    filesystem_type: str
    source: str
    owner: int | None


@dataclass(slots=True, frozen=True, kw_only=True)
class Holder:
    """A process that keeps a mount busy, and by what: "working directory", "open file" and the like.

    `program` is None when the program itself lies in the mount: its name would be a file name, and those are secret.
    """

    pid: int
    program: str | None
    uses: frozenset[str]

    def __str__(self) -> str:
        return f"{self.program or 'a program in the mount'} (pid {self.pid}: {', '.join(sorted(self.uses))})"


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


def find_holders(mountpoint: str, proc: Path = Path("/proc")) -> list[Holder]:
    """The processes that use anything at or below `mountpoint`, by pid; never this process.

    Only processes that this user may look at are seen: root sees all, others their own.
    """
    holders = []
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            uses = _uses(entry, mountpoint)
            if uses:
                executable = _link(entry / "exe")
                inside = executable is None or _below(executable, mountpoint)
                holders.append(
                    Holder(
                        pid=int(entry.name),
                        program=None if inside or executable is None else os.path.basename(executable),
                        uses=frozenset(uses),
                    )
                )
    return sorted(holders, key=lambda holder: holder.pid)


def _uses(process: Path, mountpoint: str) -> set[str]:
    uses = set()
    for name, use in (("cwd", "working directory"), ("root", "root directory"), ("exe", "running program")):
        target = _link(process / name)
        if target is not None and _below(target, mountpoint):
            uses.add(use)
    try:
        for descriptor in (process / "fd").iterdir():
            target = _link(descriptor)
            if target is not None and _below(target, mountpoint):
                uses.add("open file")
                break
    except OSError:
        pass  # ended meanwhile, or another user's
    try:
        for line in (process / "maps").read_bytes().splitlines():
            columns = line.split(maxsplit=5)
            if len(columns) == 6 and _below(os.fsdecode(columns[5].replace(b"\\012", b"\n")), mountpoint):
                uses.add("mapped file")
                break
    except OSError:
        pass  # as above
    return uses


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _below(path: str, mountpoint: str) -> bool:
    return path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/")


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
    path = os.environ.get("PATH", "") + ":" + _SYSTEM_PATH
    helper = shutil.which("fusermount3", path=path)
    if helper is None:
        raise MountpointError("fusermount3 was not found; install the package fuse3")
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


def forbid_execution(mountpoint: str, *, read_only: bool) -> None:
    """Make the mount `noexec` (with nosuid and nodev, which ours always are). Needs root.

    Raises:
        MountpointError: the kernel refuses.
    """
    flags = _MS_REMOUNT | _MS_BIND | _MS_NOEXEC | _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if read_only else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, os.fsencode(mountpoint), None, ctypes.c_ulong(flags), None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise MountpointError(f"{mountpoint} cannot be made noexec: {reason}")


def detach_in_background(mountpoint: str) -> None:
    """Begin a lazy unmount in a process of its own and do not wait: for a process that is about to end."""
    path = os.environ.get("PATH", "") + ":" + _SYSTEM_PATH
    name, arguments = ("umount", ["-l"]) if os.geteuid() == 0 else ("fusermount3", ["-u", "-z", "--"])
    program = shutil.which(name, path=path)
    if program is not None:
        subprocess.Popen(  # noqa: S603 (a system program; the path is an argument of its own)
            [program, *arguments, mountpoint],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


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
