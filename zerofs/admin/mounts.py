"""Mounts, looked after: who keeps one busy, and what is done to one that `mounttable` has no need for.

Nothing here looks inside a mount. Everything blocks: inside trio, call it through `World.offload`.
"""

import ctypes
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from zerofs.errors import MountpointError
from zerofs.mounttable import find_tool

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_RDONLY = 2, 4, 8, 32, 4096, 1


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
    name, arguments = ("umount", ["-l"]) if os.geteuid() == 0 else ("fusermount3", ["-u", "-z", "--"])
    program = find_tool(name)
    if program is not None:
        subprocess.Popen(  # noqa: S603 (a system program; the path is an argument of its own)
            [program, *arguments, mountpoint],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
