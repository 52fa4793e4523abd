"""Cache folders: who has one, and what becomes of those that nobody uses any more.

A month without use, and they are deleted. Nothing is lost by it, whatever happened: a cache holds copies. Only folders
that are ours in everything that is in them are touched, only while nobody holds their lock, and never through a link.
Blocking: for a thread.
"""

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from zerofs.units import NS_PER_S

LOCK_NAME = "lock"
"""Its modification time is when the folder was last taken or given up."""

UNUSED_NS = 30 * 24 * 3600 * NS_PER_S
"""Long enough for a disk that is plugged in once a month, or nearly."""

_FOLDER = re.compile(r"[0-9a-f]{8}(-ro)?", re.ASCII)
CACHE_FILE = re.compile(r"[0-9]{12}\.(frames|index|cache[a-z-]*)|record", re.ASCII)
"""What this version makes, and what earlier ones made."""


def take_lock(folder: Path) -> int:
    """Make the folder if it is missing, and take its lock: a descriptor that holds it.

    Raises OSError; BlockingIOError when somebody else has it.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # Somebody deleted the folder between open and lock.


def remove_unused(parent: Path, now_ns: int) -> list[str]:
    """Delete the cache folders in `parent` that were not used for `UNUSED_NS`; returns their names.

    A clock that was set back makes them look young, and they stay; one that was set forward costs a cache.
    """
    removed = []
    with _directory(parent) as parent_fd:
        for name in sorted(os.listdir(parent_fd)):
            # What cannot be deleted is somebody else's, or in use, or will be deleted another time.
            with contextlib.suppress(OSError):
                if _FOLDER.fullmatch(name) and _remove_if_unused(parent_fd, name, now_ns):
                    removed.append(name)
    return removed


def _remove_if_unused(parent_fd: int, name: str, now_ns: int) -> bool:
    with _directory(name, parent_fd) as folder_fd, _locked(folder_fd):
        names = os.listdir(folder_fd)
        shapes = [os.stat(it, dir_fd=folder_fd, follow_symlinks=False) for it in names]
        if not all(map(_is_ours, names, shapes)):
            return False
        # Of all of them: versions before this one did not touch the lock, and a mount may have been killed.
        if max(shape.st_mtime_ns for shape in shapes) + UNUSED_NS >= now_ns:
            return False
        # The lock last: whoever opened it before sees that it is gone, and whoever comes now finds no folder.
        for it in sorted(names, key=lambda it: it == LOCK_NAME):
            os.unlink(it, dir_fd=folder_fd)
        os.rmdir(name, dir_fd=parent_fd)
        return True


def _is_ours(name: str, shape: os.stat_result) -> bool:
    if not stat.S_ISREG(shape.st_mode) or shape.st_uid != os.geteuid():
        return False
    if name == LOCK_NAME:
        return shape.st_size == 0
    return CACHE_FILE.fullmatch(name) is not None


@contextlib.contextmanager
def _directory(path: Path | str, parent_fd: int | None = None) -> Iterator[int]:
    """A descriptor of a directory; of one within another only if it is no link. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if parent_fd is None else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=parent_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder_fd: int) -> Iterator[None]:
    """Hold the folder's lock. Raises OSError: in use, or not a cache."""
    descriptor = os.open(LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder_fd)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
