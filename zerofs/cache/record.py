"""What the disk cache's files looked like when their owner closed them: its next owner takes no others.

    <folder>/record     a line each: name, size, mtime and ctime in nanoseconds

The record is there only while nobody has the folder open.
"""

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

RECORD_NAME = "record"
RECORD_LIMIT_BYTES = 64 * 1024

Shape = tuple[int, int, int]
"""Size, modification time and change time of a file."""

_LINE = re.compile(r"([0-9]{12}\.cache) ([0-9]{1,19}) ([0-9]{1,19}) ([0-9]{1,19})")


def shape_of(path: Path) -> Shape:
    """The shape of a regular file. Raises OSError."""
    found = os.stat(path, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def synchronise(path: Path) -> None:
    """Bring a file or a directory to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_record(folder: Path, shapes: Mapping[str, Shape | None]) -> None:
    """What the files look like after a clean close: a line each of name, size, mtime and ctime."""
    lines = [f"{name} {' '.join(map(str, shape))}\n" for name, shape in shapes.items() if shape is not None]
    descriptor = os.open(folder / RECORD_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(lines)


def take_record(folder: Path) -> dict[str, Shape]:
    """What the last owner wrote down, empty when it did not get to that. From here on there is no record.

    Raises:
        OSError: there is one that cannot be taken away for good.
    """
    path = folder / RECORD_NAME
    lines: list[str] = []
    try:
        shape_of(path)
        lines = path.read_bytes()[:RECORD_LIMIT_BYTES].decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError:
        pass  # whatever it is, it is no record
    path.unlink()
    # A power loss must not bring it back beside files that were written to since.
    synchronise(folder)
    found = (_LINE.fullmatch(line) for line in lines)
    return {line[1]: (int(line[2]), int(line[3]), int(line[4])) for line in found if line is not None}
