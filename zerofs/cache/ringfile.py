"""One database file of the disk cache, in lsm-db, which never sees a file that somebody else changed.

lsm-db has no checksums: a page that is not what it wrote makes it read where no memory is, which ends the process
(measured: cut, zeroed and overwritten files; at writing, at closing and at reading). So size and times are compared
before each use. All writing is ours, hence any difference is somebody else's, and the inode's change time cannot be set
by anybody. A file that differs, or that failed a write, is abandoned: deleted, and its database not even closed, for
that reads and writes too. Not found are a disk that gives other bytes than were written, and a change in the
microseconds between comparison and use. Mapping files into memory is off: a file cut short would be a SIGBUS.

lsm-db writes whole pages, and parts of them come from memory that it never cleared: without a remedy, what this process
freed before (contents, names, keys) would lie readable in the files. So the allocator clears what it hands out while
lsm-db runs, and where that cannot be had there is no disk cache (promise P1).
"""

import contextlib
import ctypes
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lsm

from zerofs.cache.record import Shape, shape_of, synchronise

log = logging.getLogger(__name__)

AUTOFLUSH_KIB = 4096
PAGE_SIZE = 32 * 1024
"""Large pages and flushes suit entries of 32 KiB: about twice the write rate of the library's defaults."""

_M_PERTURB = -6
_libc = ctypes.CDLL(None)

_left_open: set[Path] = set()
"""Abandoned files. Their names are not used again: within a process, lsm-db tells databases apart by name."""


class RingFile:
    """One database file of the ring, `shape` being what it must look like, or None for a new one.

    `abandoned` when it cannot be used (any more). Every method but `abandon` looks first whether that is so.
    """

    def __init__(self, path: Path, shape: Shape | None, *, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self.abandoned = False
        self._database: Any = None
        self._shape = shape
        try:
            if path in _left_open:
                raise FileExistsError
            if shape is None:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                self._shape = shape_of(path)
            if self._is_untouched():
                self._open()
        except OSError:
            self.abandon()
        self.size_bytes = self._shape[0] if self._shape is not None else 0

    def _open(self) -> None:
        try:
            # No log: a cache needs no recovery. No sync until the record is written.
            with cleared_memory():
                self._database = lsm.LSM(
                    os.fspath(self.path),
                    transaction_log=False,
                    multiple_processes=False,
                    write_safety=lsm.SAFETY_OFF,
                    mmap=0,
                    autoflush=AUTOFLUSH_KIB,
                    page_size=PAGE_SIZE,
                    readonly=not self.writable,
                )
            self._shape = shape_of(self.path)
        except (OSError, ValueError, MemoryError):
            self.abandon()

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The entries that are here."""
        found = {}
        if self._is_untouched():
            try:
                for key in keys:
                    with contextlib.suppress(KeyError):
                        found[key] = bytes(self._database[key])
            except (OSError, MemoryError):
                self.abandon()
        return found

    def write(self, batch: Mapping[bytes, bytes]) -> None:
        """Insert all entries. Raises OSError, MemoryError; the file is of no use afterwards."""
        if not self._is_untouched():
            return
        try:
            with cleared_memory():
                self._database.update(batch)
            self._shape = shape_of(self.path)
        except (OSError, MemoryError):
            self.abandon()
            raise
        self.size_bytes += sum(len(key) + len(frame) for key, frame in batch.items())

    def freeze(self) -> None:
        """Write it no more."""
        self.close()
        self.writable = False
        if self._is_untouched():
            self._open()

    def close(self) -> Shape | None:
        """Bring everything to the file and close it; its shape then, None when it is not to be used again."""
        if self._is_untouched():
            try:
                with cleared_memory():
                    self._database.close()
                self._database = None
                synchronise(self.path)
                self._shape = shape_of(self.path)
            except (OSError, MemoryError):
                self.abandon()
        return None if self.abandoned else self._shape

    def remove(self) -> None:
        """Close and delete."""
        self.close()
        self.abandon()

    def abandon(self) -> None:
        """Delete it, and leave lsm-db's side of it as it is until the process ends: also closing could crash."""
        self.abandoned = True
        if self._database is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._database))
            self._database = None
            _left_open.add(self.path)
        with contextlib.suppress(OSError):
            # The space at once: the file stays open.
            os.close(os.open(self.path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC))
        for path in (self.path, self.path.with_name(self.path.name + "-log")):
            with contextlib.suppress(OSError):
                path.unlink()

    def _is_untouched(self) -> bool:
        if not self.abandoned:
            try:
                if shape_of(self.path) == self._shape:
                    return True
            except OSError:
                pass  # gone
            log.warning("disk cache file %s was changed by somebody else; it is not used any more", self.path)
            self.abandon()
        return False


def unused_path(folder: Path, number: int) -> Path:
    """Where a new file goes: the first free name from this number on."""
    while (path := folder / f"{number:012d}.cache") in _left_open:
        number += 1
    return path


@contextlib.contextmanager
def cleared_memory() -> Iterator[None]:
    """Whatever malloc hands out meanwhile is zero, in all threads. Not to be nested; lsm-db has one caller at a time.

    Source: mallopt(3), M_PERTURB: new memory is set to the complement of the lowest byte.
    """
    _libc.mallopt(_M_PERTURB, 0xFF)
    try:
        yield
    finally:
        _libc.mallopt(_M_PERTURB, 0)


def memory_is_cleared() -> bool:
    """Whether `cleared_memory` works here: not with another C library, nor with another allocator put in its place."""
    if not hasattr(_libc, "mallopt"):
        return False
    malloc, free = _libc.malloc, _libc.free
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    with cleared_memory():
        used = malloc(PAGE_SIZE)
        ctypes.memset(used, 0xAA, PAGE_SIZE)
        free(used)
        fresh = malloc(PAGE_SIZE)
        cleared = ctypes.string_at(fresh, PAGE_SIZE) == bytes(PAGE_SIZE)
        free(fresh)
    return cleared
