"""Mounting: a connection to the kernel in exchange for a mountpoint. Root asks mount(2), others fusermount3."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Sequence

from zerofs import mounttable
from zerofs.errors import MountpointError
from zerofs.frontend.fuse.options import FuseOptions

DEVICE = "/dev/fuse"

# Source: linux/mount.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4

_HELPER = "fusermount3"
_HELPER_TIMEOUT_S = 30.0


def connect(path: str, options: FuseOptions) -> int:
    """Mount at `path`: the descriptor of the connection, not blocking, ours to close. Blocks for a moment.

    Raises MountpointError.
    """
    descriptor = _by_system_call(path, options) if os.geteuid() == 0 else _by_helper(path, options)
    os.set_blocking(descriptor, False)
    return descriptor


def _shared_options(options: FuseOptions) -> list[str]:
    return ["default_permissions", *(["allow_other"] if options.allow_other else [])]


def _by_system_call(path: str, options: FuseOptions) -> int:
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountpointError(f"cannot mount at {path}: {DEVICE}: {error.strerror}") from error
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if options.read_only else 0)
    data = [f"fd={descriptor}", "rootmode=40000", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
    try:
        _mount(options.fsname, path, flags, [*data, *_shared_options(options)])
    except OSError as error:
        os.close(descriptor)
        raise MountpointError(f"cannot mount at {path}: mount(2): {error.strerror}") from error
    return descriptor


def _mount(source: str, path: str, flags: int, data: Sequence[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = (source.encode("ascii", "replace"), os.fsencode(path), b"fuse.zerofs")
    if libc.mount(*words, ctypes.c_ulong(flags), ",".join(data).encode()):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _by_helper(path: str, options: FuseOptions) -> int:
    """The helper mounts, and hands the descriptor over through a socket."""
    helper = mounttable.find_tool(_HELPER)
    if helper is None:
        raise MountpointError(f"cannot mount at {path}: {_HELPER} is missing (package fuse3)")
    fsname = options.fsname.encode("ascii", "replace").decode().replace("\\", "\\\\").replace(",", "\\,")
    words = [f"fsname={fsname}", "subtype=zerofs", "nosuid", "nodev", *_shared_options(options)]
    if options.read_only:
        words.append("ro")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        ours.settimeout(_HELPER_TIMEOUT_S)
        try:
            with theirs:
                done = subprocess.run(  # noqa: S603  (a program of the system, with arguments of our own)
                    [helper, "-o", ",".join(words), "--", path],
                    env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_HELPER_TIMEOUT_S,
                    check=False,
                )
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MountpointError(f"cannot mount at {path}: {_HELPER}: {type(error).__name__}") from error
    if done.returncode or not descriptors:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise MountpointError(f"cannot mount at {path}: {said[-1] if said else _HELPER + ' refused'}")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]
