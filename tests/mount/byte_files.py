"""A file as a program holds it that works at random (`byte_worker`): name, descriptors, mapping, and what is in it."""

import contextlib
import ctypes
import errno
import mmap
import os
from collections.abc import Iterator

from tests.model.bytes_model import REQUEST, Shadow, require_same

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class File:
    """`name` is its path, empty once it was unlinked. Its first descriptor is there as long as it is open."""

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        """How large it may become."""
        self.shadow = Shadow()
        self.opened: list[int] = []
        self.mapping: mmap.mmap | None = None

    @property
    def size(self) -> int:
        """What it should be."""
        return len(self.shadow)

    def open(self, flags: int = 0) -> None:
        self.opened.append(os.open(self.name, os.O_RDWR | flags, 0o644))

    def close(self) -> None:
        self.unmap()
        while self.opened:
            os.close(self.opened.pop())

    def map(self, descriptor: int) -> int:
        """How much of it can be reached through its mapping, which is made if there is none; a cut makes it less."""
        if self.mapping is None and self.size:
            self.mapping = mmap.mmap(descriptor, self.size)
        return min(len(self.mapping), self.size) if self.mapping is not None else 0

    def unmap(self) -> None:
        if self.mapping is not None:
            self.mapping.close()
            self.mapping = None

    def compare(self, descriptor: int) -> None:
        """All of it, and its size."""
        size = os.fstat(descriptor).st_size
        assert size == self.size, f"{self}: fstat says {size}"
        found = b""
        while piece := os.pread(descriptor, 2 * REQUEST, len(found)):
            found += piece
        require_same(found, bytes(self.shadow.data), 0, f"all of {self}")

    def __str__(self) -> str:
        return f"{os.path.basename(self.name) or '(unlinked)'} of {self.size} bytes"


@contextlib.contextmanager
def opened(name: str, flags: int) -> Iterator[int]:
    """A descriptor for the block."""
    descriptor = os.open(name, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def fallocate(descriptor: int, mode: int, offset: int, size: int) -> bool:
    """fallocate(2), which Python does not pass; False where there is none."""
    if not _libc.fallocate(descriptor, mode, offset, size):
        return True
    code = ctypes.get_errno()
    if code == errno.EOPNOTSUPP:
        return False
    raise OSError(code, os.strerror(code))


def seek(descriptor: int, offset: int, whence: int) -> int | None:
    """lseek(2) with SEEK_DATA or SEEK_HOLE; nothing when it finds nothing."""
    try:
        return os.lseek(descriptor, offset, whence)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
