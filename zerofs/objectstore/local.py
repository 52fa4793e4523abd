"""Objects as files in a directory: `file:///path`. Serves one host, or several over a network filesystem with flock().

An object's name is its path below the root. Directories (0700) are made as needed, also the root, and never removed;
files are 0600. The hidden directory `.zerofs_local` holds scratch files and the lock file, and is never listed; a
symbolic link in its place is refused. A folder of objects may be one, within the filesystem, if whoever owns the store
made it so.

Version: inode, modification time and size, in hexadecimal. The nanoseconds of the modification time are random, because
the kernel's own clock ticks too slowly to tell two replacements apart, and inodes are reused.

Order of a put: scratch file written and flushed, published by link or rename, directory flushed. Everything that
changes the store runs in a disk thread: a flush takes longer than the hop. Reads open their file in the trio thread,
and up to 256 KiB that the page cache holds (preadv with RWF_NOWAIT) are read there too, because the hop alone costs
80 us; all else is read in a disk thread.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from zerofs.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    ObjectStoreError,
    PreconditionFailedError,
    UnavailableError,
)
from zerofs.objectstore import durable
from zerofs.objectstore.api import (
    Body,
    ObjectInfo,
    Piece,
    body_pieces,
    check_limit,
    check_name,
    check_prefix,
    check_range,
    is_name,
    range_size,
)
from zerofs.pagecache import INLINE_READ_BYTES, read_cached
from zerofs.units import NS_PER_S
from zerofs.world import Lane, World

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TRANSIENT = (
    errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK,
    errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN, errno.ECONNRESET,
)  # fmt: skip


@final
class LocalStore:
    """An ObjectStore in `root`, an absolute path. Touches nothing until the first put."""

    def __init__(self, root: Path, world: World) -> None:
        assert root.is_absolute(), root
        self._root = root
        self._world = world
        self._flushed: set[Path] = set()
        """Directories that this store made or flushed once, with all their parents."""
        self._landmark: Path | None = None
        """What has been there, and is there as long as the store is: to tell an absent object from an absent disk."""

    @property
    def url(self) -> str:
        """`file://` and the path."""
        return f"file://{self._root}"

    async def get(
        self, name: str, start: int = 0, length: int | None = None, *, limit_bytes: int | None = None
    ) -> bytes:
        """See ObjectStore.get."""
        check_range(name, start, length)
        with self._opened(name) as (descriptor, status):
            size = range_size(name, status.st_size, start, length)
            check_limit(name, self.url, size, limit_bytes)
            return await self._read(name, descriptor, start, size)

    async def get_versioned(self, name: str, *, limit_bytes: int | None = None) -> tuple[bytes, str]:
        """See ObjectStore.get_versioned. Bytes and version are of one file, whatever is published meanwhile."""
        with self._opened(name) as (descriptor, status):
            check_limit(name, self.url, status.st_size, limit_bytes)
            return await self._read(name, descriptor, 0, status.st_size), _version(status)

    async def head(self, name: str) -> ObjectInfo:
        """See ObjectStore.head."""
        with self._reading(name):
            status = os.lstat(self._path(name))
        if not stat.S_ISREG(status.st_mode):
            raise self._missing(name)
        return ObjectInfo(name=name, size_bytes=status.st_size, version=_version(status))

    async def put(self, name: str, body: Body) -> None:
        """See ObjectStore.put."""
        await self._publish(name, body, _replace)

    async def put_if_absent(self, name: str, body: Body, put_id: bytes) -> None:
        """See ObjectStore.put_if_absent. The put-id is in the body."""
        await self._publish(name, body, _create)

    async def put_if_match(self, name: str, body: Body, version: str, put_id: bytes) -> None:
        """See ObjectStore.put_if_match. The put-id is in the body."""
        await self._publish(name, body, _Exchange(version, self.url))

    async def delete(self, name: str) -> None:
        """See ObjectStore.delete."""
        path = Path(self._path(name))
        with self._writing(name):
            await self._world.offload(Lane.DISK, _delete, self._root, path)

    async def list(self, prefix: str, start_after: str = "") -> list[ObjectInfo]:
        """See ObjectStore.list."""
        check_prefix(prefix)
        with self._reading(""):
            found = await self._world.offload(Lane.DISK, _list, self._root, prefix)
        if not found:
            self._require_there()
        return sorted((info for info in found if info.name > start_after), key=lambda info: info.name)

    async def aclose(self) -> None:
        """Nothing is open between two calls."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{check_name(name)}"

    def _missing(self, name: str) -> ObjectNotFoundError:
        return ObjectNotFoundError(f"there is no {name} in {self.url}")

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, os.stat_result]]:
        # O_NONBLOCK: something else than a file, put there by others, must not hold up the trio thread.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with self._reading(name):
            descriptor = os.open(self._path(name), flags)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise self._missing(name)
                yield descriptor, status
            finally:
                os.close(descriptor)

    async def _read(self, name: str, descriptor: int, start: int, size: int) -> bytes:
        data = read_cached(descriptor, start, size) if size <= INLINE_READ_BYTES else None
        if data is None:
            data = await self._world.offload(Lane.DISK, _read_all, descriptor, start, size)
        if len(data) != size:
            raise UnavailableError(f"{name} in {self.url}: {len(data)} bytes from {start} instead of {size}")
        return data

    async def _publish(self, name: str, body: Body, publish: Callable[["_Job", durable.Staged], None]) -> None:
        path = Path(self._path(name))
        now_s = self._world.now_ns() // NS_PER_S
        job = _Job(
            root=self._root,
            path=path,
            unique=self._world.entropy(16).hex(),
            mtime_ns=now_s * NS_PER_S + int.from_bytes(self._world.entropy(8), "little") % NS_PER_S,
            is_first=not self._flushed,
            is_new_folder=path.parent not in self._flushed,
        )
        with self._writing(name):
            await self._world.offload(Lane.DISK, _stage_and_publish, job, body_pieces(body), publish)
        self._flushed.add(path.parent)

    def _require_there(self) -> None:
        """Raise UnavailableError if the store was there before and is not now: a disk that was unmounted."""
        if self._landmark is None:
            scratch = self._root / durable.SCRATCH
            self._landmark = next((path for path in (scratch, self._root) if path.is_dir()), None)
        elif not self._landmark.is_dir():
            raise self._vanished()

    def _vanished(self) -> UnavailableError:
        return UnavailableError(f"{self.url} has vanished: is its disk still mounted?")

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if exc.errno in _MISSING:
                self._require_there()
                raise self._missing(name) from exc
            raise _translate(exc, name, self.url) from exc
        if self._landmark is None:
            self._require_there()

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError as exc:
            raise PreconditionFailedError(f"{name} exists already in {self.url}") from exc
        except FileNotFoundError as exc:
            raise self._vanished() from exc
        except OSError as exc:
            raise _translate(exc, name, self.url) from exc


@dataclass(slots=True, frozen=True, kw_only=True)
class _Job:
    """What a disk thread needs to know to publish one object."""

    root: Path
    path: Path
    unique: str
    mtime_ns: int
    is_first: bool
    is_new_folder: bool


def _stage_and_publish(job: _Job, pieces: list[Piece], publish: Callable[[_Job, durable.Staged], None]) -> None:
    # Only the first put may make the root: if a disk is unmounted later, the mountpoint must not become a second store.
    if job.is_first:
        _make_root(job.root)
        durable.remove_leftovers(job.root)
    with durable.stage(job.root, pieces, job.unique, job.mtime_ns) as staged:
        if job.is_new_folder:
            durable.make_directories(job.path.parent, within=job.root)
        publish(job, staged)
    durable.fsync_directory(job.path.parent)


def _make_root(root: Path) -> None:
    try:
        durable.make_root(root)
    except OSError as exc:
        if exc.errno in _TRANSIENT:
            raise
        where = f"the directory of the store cannot be made: {exc.filename or root}: {exc.strerror}"
        kind = AccessDeniedError if exc.errno in _DENIED else ObjectStoreError
        raise kind(f"{where}: correct [storage] url (file://{root}), or make the directory yourself") from exc


def _create(job: _Job, staged: durable.Staged) -> None:
    try:
        staged.link_to(job.path)
    except FileExistsError:
        # Who made it may not have flushed it yet, and our caller will act upon its existence.
        durable.fsync_directory(job.path.parent)
        if job.path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        raise


def _replace(job: _Job, staged: durable.Staged) -> None:
    with durable.exclusive(job.root):
        staged.rename_to(job.path)


@dataclass(slots=True, frozen=True)
class _Exchange:
    """Replaces only what has the version still."""

    version: str
    url: str

    def __call__(self, job: _Job, staged: durable.Staged) -> None:
        with durable.exclusive(job.root):
            try:
                found = _version(os.lstat(job.path))
            except (FileNotFoundError, NotADirectoryError):
                found = "gone"
            if found != self.version:
                name = job.path.relative_to(job.root)
                raise PreconditionFailedError(f"{name} in {self.url} is no longer at version {self.version}: {found}")
            staged.rename_to(job.path)


def _delete(root: Path, path: Path) -> None:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(status.st_mode):
        return
    durable.make_scratch(root)
    with durable.exclusive(root), contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    durable.fsync_directory(path.parent)


def _list(root: Path, prefix: str) -> list[ObjectInfo]:
    found: list[ObjectInfo] = []
    pending = [prefix.rpartition("/")[0]]
    while pending:
        folder = pending.pop()
        try:
            entries = os.scandir(root / folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if not name.startswith(prefix) or not is_name(name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # deleted since the directory was read
                        status = entry.stat(follow_symlinks=False)
                        found.append(ObjectInfo(name=name, size_bytes=status.st_size, version=_version(status)))
    return found


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _read_all(descriptor: int, start: int, size: int) -> bytes:
    """Up to `size` bytes; fewer only when the file ends before."""
    data = os.pread(descriptor, size, start)
    if len(data) == size:
        return data
    pieces = [data]
    while data and sum(map(len, pieces)) < size:
        taken = sum(map(len, pieces))
        data = os.pread(descriptor, size - taken, start + taken)
        pieces.append(data)
    return b"".join(pieces)


def _translate(exc: OSError, name: str, url: str) -> ObjectStoreError:
    where = f"{name or 'the directory'} in {url}: {exc.strerror}"
    if exc.errno in _DENIED:
        return AccessDeniedError(f"{where}: check owner and mode of the directory, and that it is not read-only")
    if exc.errno in _FULL:
        return ObjectStoreError(f"{where}: make room there, or raise the quota")
    if exc.errno in _TRANSIENT:
        return UnavailableError(where)
    if exc.errno == errno.EXDEV:
        return ObjectStoreError(
            f"{where}: all folders of a store must be on one filesystem: link or mount it as a whole"
        )
    if exc.errno in (errno.ENOTDIR, errno.EISDIR):
        return ObjectStoreError(f"{where}: a file is in the way of a directory, or the other way round")
    return ObjectStoreError(f"{where}: the disk or its filesystem is in trouble, see the kernel's log")
