"""What a program that works at random does to one of its files: each function is an operation, named after its call.

An operation throws the dice, says what it is about to do, calls, and compares what it is told with the shadow. Nothing
that a call returns has a say in what the dice are thrown for: a seed means the same always.
"""

import errno
import mmap
import os
from collections.abc import Callable

from tests.model.bytes_model import PAGE, C, Dice, require_same
from tests.mount.byte_files import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, File, fallocate, opened, seek

DESCRIPTORS_MAX = 3
EMULATED_MAX = 8 * C
"""posix_fallocate(3), where there is no fallocate(2), writes a byte to each page."""

Note = Callable[[str], None]
Operation = Callable[[Dice, File, Note], None]


# --- descriptors


def open_another(dice: Dice, file: File, note: Note) -> None:
    if file.name and len(file.opened) < DESCRIPTORS_MAX:
        note("opened once more")
        file.open()


def reopen(dice: Dice, file: File, note: Note) -> None:
    if file.name:
        note("closed, opened")
        file.close()
        file.open()


def close_one(dice: Dice, file: File, note: Note) -> None:
    if len(file.opened) > 1:
        note("one descriptor closed")
        os.close(file.opened.pop(dice.rng.randrange(len(file.opened))))


def open_truncating(dice: Dice, file: File, note: Note) -> None:
    if file.name:
        note("opened with O_TRUNC")
        with opened(file.name, os.O_WRONLY | os.O_TRUNC):
            file.shadow.resize(0)


def fsync(dice: Dice, file: File, note: Note) -> None:
    descriptor, call = dice.rng.choice(file.opened), dice.rng.choice((os.fsync, os.fdatasync))
    note(call.__name__)
    call(descriptor)


def forget_pages(dice: Dice, file: File, note: Note) -> None:
    """What is read next comes from the filesystem."""
    offset, size = dice.rng.choice(((0, 0), dice.span(file.size, file.limit)))
    note(f"POSIX_FADV_DONTNEED {size} at {offset}")
    os.posix_fadvise(dice.rng.choice(file.opened), offset, size, os.POSIX_FADV_DONTNEED)


# --- reading


def pread(dice: Dice, file: File, note: Note) -> None:
    descriptor, (offset, size) = dice.rng.choice(file.opened), dice.span(file.size, file.limit)
    note(f"pread {size} at {offset}")
    require_same(os.pread(descriptor, size, offset), file.shadow.part(offset, size), offset, "pread")


def preadv(dice: Dice, file: File, note: Note) -> None:
    descriptor, (offset, size) = dice.rng.choice(file.opened), dice.span(file.size, file.limit)
    buffers = [bytearray(len(piece)) for piece in dice.cuts(bytes(size))]
    note(f"preadv {[*map(len, buffers)]} at {offset}")
    got = os.preadv(descriptor, buffers, offset)
    require_same(b"".join(buffers)[:got], file.shadow.part(offset, size), offset, "preadv")


def read_direct(dice: Dice, file: File, note: Note) -> None:
    """Past the page cache, in whole pages."""
    offset, size = (place // PAGE * PAGE for place in dice.span(file.size, file.limit))
    if file.name:
        note(f"O_DIRECT read {size + PAGE} at {offset}")
        with opened(file.name, os.O_RDONLY | os.O_DIRECT) as descriptor, mmap.mmap(-1, size + PAGE) as buffer:
            got = os.preadv(descriptor, [buffer], offset)
            require_same(buffer[:got], file.shadow.part(offset, size + PAGE), offset, "O_DIRECT read")


def read_mapped(dice: Dice, file: File, note: Note) -> None:
    if mapped := file.map(dice.rng.choice(file.opened)):
        offset, size = dice.span(mapped, mapped)
        note(f"mapped read {size} at {offset}")
        require_same(file.mapping[offset : offset + size], file.shadow.part(offset, size), offset, "mapped read")


def look_for_holes(dice: Dice, file: File, note: Note) -> None:
    """What is said to be a hole is zeros, and the holes and the rest are all of the file."""
    descriptor, at = dice.rng.choice(file.opened), 0
    note("SEEK_DATA, SEEK_HOLE")
    while at < file.size:
        data = seek(descriptor, at, os.SEEK_DATA)
        stop = file.size if data is None else data
        require_same(bytes(stop - at), file.shadow.part(at, stop - at), at, "a hole")
        if data is None:
            break
        at = seek(descriptor, data, os.SEEK_HOLE)
        assert data < at <= file.size, f"the hole behind {data} begins at {at}"
    assert seek(descriptor, file.size, os.SEEK_DATA) is None


# --- writing


def pwrite(dice: Dice, file: File, note: Note) -> None:
    descriptor, (offset, size) = dice.rng.choice(file.opened), dice.span(file.size, file.limit)
    data = dice.data(size)
    note(f"pwrite {size} at {offset}")
    assert os.pwrite(descriptor, data, offset) == size
    file.shadow.write(offset, data)


def pwritev(dice: Dice, file: File, note: Note) -> None:
    descriptor, (offset, size) = dice.rng.choice(file.opened), dice.span(file.size, file.limit)
    data = dice.data(size)
    pieces = dice.cuts(data)
    note(f"pwritev {[*map(len, pieces)]} at {offset}")
    assert os.pwritev(descriptor, pieces, offset) == size
    file.shadow.write(offset, data)


def seek_and_write(dice: Dice, file: File, note: Note) -> None:
    """Somewhere behind the end."""
    if file.size < file.limit:
        descriptor, offset = dice.rng.choice(file.opened), dice.rng.randrange(file.size, file.limit)
        data = dice.data(dice.size(offset, file.size, file.limit))
        note(f"lseek to {offset}, write {len(data)}")
        os.lseek(descriptor, offset, os.SEEK_SET)
        assert os.write(descriptor, data) == len(data)
        file.shadow.write(offset, data)


def append(dice: Dice, file: File, note: Note) -> None:
    if file.name and file.size < file.limit:
        data = dice.data(dice.size(file.size, file.size, file.limit))
        note(f"O_APPEND {len(data)}")
        with opened(file.name, os.O_WRONLY | os.O_APPEND) as descriptor:
            assert os.write(descriptor, data) == len(data)
        file.shadow.write(file.size, data)


def write_direct(dice: Dice, file: File, note: Note) -> None:
    offset, size = (place // PAGE * PAGE for place in dice.span(file.size, file.limit - PAGE))
    data = dice.data(size + PAGE)
    if file.name:
        note(f"O_DIRECT write {len(data)} at {offset}")
        with opened(file.name, os.O_WRONLY | os.O_DIRECT) as descriptor, mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            assert os.pwritev(descriptor, [buffer], offset) == len(data)
        file.shadow.write(offset, data)


def write_mapped(dice: Dice, file: File, note: Note) -> None:
    """The mapping may stay for later, and for what others do to the file meanwhile."""
    if mapped := file.map(dice.rng.choice(file.opened)):
        offset, size = dice.span(mapped, mapped)
        data = dice.data(size)
        note(f"mapped write {size} at {offset}")
        file.mapping[offset : offset + size] = data
        file.shadow.write(offset, data)
        if dice.chance(0.3):
            note("msync")
            file.mapping.flush()
        if dice.chance(0.3):
            note("munmap")
            file.unmap()


# --- sizes and ranges


def truncate(dice: Dice, file: File, note: Note) -> None:
    """By descriptor or by name, up or down."""
    descriptor, size, by_name = dice.rng.choice(file.opened), dice.new_size(file.size, file.limit), dice.chance(0.5)
    if by_name and file.name:
        note(f"truncate to {size}")
        os.truncate(file.name, size)
    else:
        note(f"ftruncate to {size}")
        os.ftruncate(descriptor, size)
    file.shadow.resize(size)


def posix_fallocate(dice: Dice, file: File, note: Note) -> None:
    descriptor, (offset, size) = dice.rng.choice(file.opened), dice.span(file.size, file.limit)
    size = min(size, EMULATED_MAX)
    note(f"posix_fallocate {size} at {offset}")
    os.posix_fallocate(descriptor, offset, size)
    file.shadow.resize(max(file.size, offset + size))


def zero_range(dice: Dice, file: File, note: Note) -> None:
    """Punched, or zeroed. Where fallocate(2) is not there, nothing may have changed."""
    descriptor, (offset, size) = dice.rng.choice(file.opened), dice.span(file.size, file.limit)
    mode = dice.rng.choice((PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE))
    note(f"fallocate mode {mode:#x} {size} at {offset}")
    if fallocate(descriptor, mode, offset, size):
        file.shadow.zero(offset, size)
        if not mode & KEEP_SIZE:
            file.shadow.resize(max(file.size, offset + size))


def copy_within(dice: Dice, file: File, note: Note) -> None:
    copy(dice, file, file, note)


def copy(dice: Dice, source: File, file: File, note: Note) -> None:
    """copy_file_range(2), called until all is there. Ranges of one file that overlap are refused."""
    reader, writer = dice.rng.choice(source.opened), dice.rng.choice(file.opened)
    start, place = dice.offset(source.size, source.limit), min(dice.offset(file.size, file.limit), file.limit - 1)
    size = dice.size(place, file.size, file.limit)
    data = source.shadow.part(start, size)
    note(f"copy_file_range {size} from {start} of {source} to {place}")
    if source is file and data and abs(start - place) < len(data):
        try:
            os.copy_file_range(reader, writer, size, start, place)
        except OSError as error:
            assert error.errno == errno.EINVAL  # noqa: PT017 - this runs without pytest
            return
        raise AssertionError("copy_file_range copied onto its own source")
    done = 0
    while done < len(data):
        got = os.copy_file_range(reader, writer, len(data) - done, start + done, place + done)
        assert got, f"copied {done} of {len(data)} bytes"
        done += got
    if data:
        file.shadow.write(place, data)


OPERATIONS: dict[Operation, int] = {
    open_another: 4,
    reopen: 3,
    close_one: 3,
    open_truncating: 1,
    fsync: 5,
    forget_pages: 4,
    pread: 16,
    preadv: 5,
    read_direct: 4,
    read_mapped: 7,
    look_for_holes: 2,
    pwrite: 16,
    pwritev: 5,
    seek_and_write: 3,
    append: 4,
    write_direct: 4,
    write_mapped: 8,
    truncate: 10,
    posix_fallocate: 3,
    zero_range: 4,
    copy_within: 3,
}
"""How often each comes, beside those of `byte_worker` that need several files."""
