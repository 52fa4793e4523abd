"""Cache folders of volumes that nobody mounts any more: deleted when they have not been used for a month.

Nothing is lost by it, whatever happened: a cache holds copies. Only folders that look like ours are touched, only files
that we make in them, and only while nobody holds their lock. Blocking: for a thread.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from zerofs.cache.record import RECORD_NAME
from zerofs.units import NS_PER_S

LOCK_NAME = "lock"
"""Its modification time is when the folder was last taken or given up."""

UNUSED_NS = 30 * 24 * 3600 * NS_PER_S
"""Long enough for a disk that is plugged in once a month, or nearly."""

_FOLDER = re.compile(r"[0-9a-f]{8}(-ro)?", re.ASCII)
_CACHE_FILE = re.compile(r"[0-9]{12}\.cache[a-z-]*", re.ASCII)


def remove_unused(parent: Path, now_ns: int) -> list[str]:
    """Delete the cache folders in `parent` that are older than `UNUSED_NS`; returns their names.

    A clock that was set back makes them look young, and they stay; one that was set forward costs a cache.
    """
    removed = []
    for folder in sorted(parent.iterdir()):
        if _FOLDER.fullmatch(folder.name) and not folder.is_symlink():
            # What cannot be deleted is somebody else's, or will be deleted another time.
            with contextlib.suppress(OSError), _locked(folder / LOCK_NAME) as last_used_ns:
                if last_used_ns + UNUSED_NS < now_ns:
                    _remove(folder)
                    removed.append(folder.name)
    return removed


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the lock; gives the time at which the folder was used last. Raises OSError: in use, or not a cache."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Raises OSError when there is something in it that is not ours: then only our own files are gone."""
    for path in folder.iterdir():
        if _CACHE_FILE.fullmatch(path.name) or path.name == RECORD_NAME:
            path.unlink()
    # The lock last: whoever waits to open it finds either an empty cache or none.
    if [path.name for path in folder.iterdir()] == [LOCK_NAME]:
        (folder / LOCK_NAME).unlink()
    folder.rmdir()
