"""Files that appear whole or not at all, and stay: what the local store does in threads. Blocking, and pure of trio.

A new file is written under `SCRATCH`, flushed, and then published under its name by link() (which refuses a taken name)
or rename() (which replaces); at last the directory is flushed. A writer holds flock() on its scratch file, so anybody
can tell a crashed writer's leftover from a file in the making, without clock or process ids.

Not for reading, and not for names: paths that come here are checked already. OSErrors leave as they are, except where
a docstring says otherwise; `local` translates them.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from zerofs.errors import StoreUnsuitableError
from zerofs.objectstore.api import RESERVED_SEGMENT, Piece

SCRATCH = RESERVED_SEGMENT
"""Directory in the root of the store that is no object: scratch files and the lock file."""

LOCK_NAME = "lock"
TEMPORARY_PREFIX = "new-"

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

_IOV_MAX = 1024
"""Pieces that one writev() takes: Linux has had this limit for ever, POSIX allows less but nobody does it."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def write_all(
    descriptor: int, pieces: Sequence[Piece], writev: Callable[[int, Sequence[memoryview]], int] = os.writev
) -> None:
    """Write the pieces one after the other, without joining them, however little each writev() takes."""
    rest = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    first = 0
    while first < len(rest):
        written = writev(descriptor, rest[first : first + _IOV_MAX])
        while first < len(rest) and written >= len(rest[first]):
            written -= len(rest[first])
            first += 1
        if written:
            rest[first] = rest[first][written:]


def fsync_directory(path: Path) -> None:
    """Flush the entries of a directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_root(root: Path) -> None:
    """Make the store's directory, its missing parents and its scratch directory, mode 0700, to stay."""
    make_directories(root, within=Path(root.anchor))
    with contextlib.suppress(FileExistsError):
        (root / SCRATCH).mkdir(mode=DIRECTORY_MODE)


def make_directories(path: Path, within: Path) -> None:
    """Make `path` and its missing parents below `within`, mode 0700, and flush the entries of them all.

    Those that exist are flushed too: whoever made them may have crashed before. Not so where we may not read the
    parent: then they are not ours.
    """
    chain = [path, *path.parents]
    for folder in reversed(chain[: chain.index(within)]):
        try:
            folder.mkdir(mode=DIRECTORY_MODE)
            is_new = True
        except OSError as exc:
            # Not only FileExistsError: above the store there may be places where we may not write.
            if not folder.is_dir():
                if isinstance(exc, FileExistsError):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from exc
                raise
            is_new = False
        try:
            fsync_directory(folder.parent)
        except OSError:
            if is_new:
                raise


class Staged:
    """A scratch file that is written and flushed, not published yet. `descriptor` is open, and locked."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def link_to(self, target: Path) -> None:
        """Publish under a name that must be free.

        Raises:
            FileExistsError: the name is taken.
            StoreUnsuitableError: the filesystem has no hard links.
        """
        try:
            os.link(self.path, target)
        except FileExistsError:
            # A network filesystem may repeat a link() whose reply was lost: the link count knows.
            if os.fstat(self.descriptor).st_nlink != 2:
                raise
        except OSError as exc:
            if exc.errno not in _NO_LINKS or not os.access(target.parent, os.W_OK):
                raise
            raise StoreUnsuitableError(
                f"the filesystem of {target.parent} has no hard links, so no object can be created atomically there: "
                "use a directory on a native Linux filesystem"
            ) from exc

    def rename_to(self, target: Path) -> None:
        """Publish under a name, replacing what it names."""
        os.rename(self.path, target)


@contextlib.contextmanager
def stage(root: Path, pieces: Sequence[Piece], unique: str, mtime_ns: int) -> Iterator[Staged]:
    """A flushed scratch file of these contents; gone afterwards unless renamed. `unique` is a random name part."""
    path = root / SCRATCH / f"{TEMPORARY_PREFIX}{unique}"
    descriptor = _create_locked(path)
    try:
        write_all(descriptor, pieces)
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        os.fsync(descriptor)
        yield Staged(path, descriptor)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(descriptor)


def _create_locked(path: Path) -> int:
    """A new file that nobody takes for a leftover."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # Somebody cleaned up between open and lock.


def remove_leftovers(root: Path) -> int:
    """Delete scratch files whose writers are gone; returns how many. Those in the making stay."""
    removed = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(root / SCRATCH) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY_PREFIX):
                removed += _remove_if_abandoned(entry.path)
    return removed


def _remove_if_abandoned(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the store's lock, against other threads and other processes. For comparing and renaming, nothing longer."""
    path = root / SCRATCH / LOCK_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
