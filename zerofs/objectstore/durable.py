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
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from zerofs.errors import ObjectStoreError, StoreUnsuitableError
from zerofs.objectstore.api import RESERVED_SEGMENT, Piece
from zerofs.units import MIB

SCRATCH = RESERVED_SEGMENT
"""Directory in the root of the store that is no object: scratch files and the lock file."""

LOCK_NAME = "lock"
TEMPORARY_PREFIX = "new-"

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

_IOV_MAX = 1024
"""Pieces that one writev() takes: Linux has had this limit for ever, POSIX allows less but nobody does it."""

WRITE_BYTES = MIB
"""Most that one writev() is given: with 4 MiB each byte costs the kernel three times the processor (decision 0015)."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def write_all(
    descriptor: int, pieces: Sequence[Piece], writev: Callable[[int, Sequence[memoryview]], int] = os.writev
) -> None:
    """Write the pieces one after the other, without joining them, however little each writev() takes."""
    whole = (memoryview(piece).cast("B") for piece in pieces if len(piece))
    rest = [view[start : start + WRITE_BYTES] for view in whole for start in range(0, len(view), WRITE_BYTES)]
    first = 0
    while first < len(rest):
        written = writev(descriptor, rest[first : first + _run_length(rest, first)])
        while first < len(rest) and written >= len(rest[first]):
            written -= len(rest[first])
            first += 1
        if written:
            rest[first] = rest[first][written:]


def _run_length(pieces: Sequence[memoryview], first: int) -> int:
    """How many pieces from `first` on are one writev()."""
    size = count = 0
    for piece in itertools.islice(pieces, first, first + _IOV_MAX):
        size += len(piece)
        if count and size > WRITE_BYTES:
            break
        count += 1
    return count


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
    make_scratch(root)


def make_scratch(root: Path) -> None:
    """Make the scratch directory in a root that exists."""
    with contextlib.suppress(FileExistsError):
        (root / SCRATCH).mkdir(mode=DIRECTORY_MODE)


@contextlib.contextmanager
def _scratch(root: Path) -> Iterator[int]:
    """A descriptor of the scratch directory: files are made and deleted there by name, so never behind a link.

    Raises ObjectStoreError when something else is in its place.
    """
    try:
        descriptor = os.open(root / SCRATCH, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise ObjectStoreError(
            f"{root / SCRATCH} is a link or a file, where a directory belongs that only zerofs uses: remove it"
        ) from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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

    def __init__(self, folder: int, name: str, descriptor: int) -> None:
        self._folder = folder
        self._name = name
        self.descriptor = descriptor

    def link_to(self, target: Path) -> None:
        """Publish under a name that must be free.

        Raises:
            FileExistsError: the name is taken.
            StoreUnsuitableError: the filesystem has no hard links.
        """
        try:
            os.link(self._name, target, src_dir_fd=self._folder)
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
        os.rename(self._name, target, src_dir_fd=self._folder)


@contextlib.contextmanager
def stage(root: Path, pieces: Sequence[Piece], unique: str, mtime_ns: int) -> Iterator[Staged]:
    """A flushed scratch file of these contents; gone afterwards unless renamed. `unique` is a random name part."""
    name = f"{TEMPORARY_PREFIX}{unique}"
    with _scratch(root) as folder:
        descriptor = _create_locked(folder, name)
        try:
            write_all(descriptor, pieces)
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            os.fsync(descriptor)
            yield Staged(folder, name, descriptor)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            os.close(descriptor)


def _create_locked(folder: int, name: str) -> int:
    """A new file that nobody takes for a leftover."""
    while True:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE, dir_fd=folder)
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
    with contextlib.suppress(FileNotFoundError), _scratch(root) as folder, os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY_PREFIX) and entry.is_file(follow_symlinks=False):
                removed += _remove_if_abandoned(folder, entry.name)
    return removed


def _remove_if_abandoned(folder: int, name: str) -> bool:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=folder)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the store's lock, against other threads and other processes. For comparing and renaming, nothing longer."""
    with _scratch(root) as folder:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(LOCK_NAME, flags, FILE_MODE, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
