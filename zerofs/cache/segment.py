"""One file of the disk cache: frames one behind the other, and beside it where each of them is.

    <number>.frames    frames, and nothing else
    <number>.index     for each frame, as they were written: its key, offset, length; u64 little-endian each

Nothing here is trusted, and nothing is flushed. After a kill both files are as they were left; after a power loss, or
in other hands, an entry may lead to bytes that are another frame or none. Whoever asked opens the frame, and notices.
From a file that is shorter than its index says comes less than was asked for, which counts as nothing.

Files are read and written by threads, but for what the page cache holds; what is known of them is changed by the trio
thread alone.
"""

import contextlib
import errno
import os
import sys
from array import array
from bisect import bisect_right
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Self

from zerofs.pagecache import INLINE_READ_BYTES, read_cached

Frame = bytes | memoryview

_WRITE_BYTES = 1 << 20
"""Handed to the kernel at a time. Source: as for objects of a directory store, decision 0015."""

_FRAMES_MAX = 1024
"""IOV_MAX of Linux."""

_ENTRY_WORDS = 3
_ENTRY_SIZE = 8 * _ENTRY_WORDS
_OPENING = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW

Place = tuple[int, int]
"""Offset and length of a frame."""

ENTRIES_MAX = 1 << 17
"""Of a segment, so that small frames do not make its index large: 3 MB sorted, 20 MB while it is written to."""

FRAME_MAX_BYTES = 32 << 20
"""No frame is larger. An index that says so is not ours."""


class Index:
    """Where the frames of one segment are: 24 bytes for each of those that were there when it was sorted."""

    def __init__(self, words: "array[int] | None" = None) -> None:
        self._recent: dict[int, Place] = {}
        self._keys = self._offsets = self._lengths = array("Q")
        if words:
            self._sort(words[0::_ENTRY_WORDS], words[1::_ENTRY_WORDS], words[2::_ENTRY_WORDS])

    def add(self, entries: Sequence[tuple[int, int, int]]) -> None:
        """Key, offset and length of each."""
        self._recent.update((key, (offset, length)) for key, offset, length in entries)

    def find(self, key: int) -> Place | None:
        """The last one of that key."""
        place = self._recent.get(key)
        if place is None:
            at = bisect_right(self._keys, key) - 1
            if at >= 0 and self._keys[at] == key:
                place = self._offsets[at], self._lengths[at]
        return place

    def __len__(self) -> int:
        return len(self._keys) + len(self._recent)

    def frozen(self) -> "Index":
        """The same, in less memory, for one to which nothing will be added. May be called in a thread."""
        places = self._recent.values()
        index = Index()
        index._sort(
            self._keys + array("Q", self._recent),
            self._offsets + array("Q", [offset for offset, _ in places]),
            self._lengths + array("Q", [length for _, length in places]),
        )
        return index

    def _sort(self, keys: "array[int]", offsets: "array[int]", lengths: "array[int]") -> None:
        order = sorted(range(len(keys)), key=keys.__getitem__)  # stable: of equal ones the last stays the last
        self._keys = array("Q", map(keys.__getitem__, order))
        self._offsets = array("Q", map(offsets.__getitem__, order))
        self._lengths = array("Q", map(lengths.__getitem__, order))


class Segment:
    """Made by `create` and `load`. Belongs to a cache that holds the folder's lock."""

    def __init__(self, folder: Path, number: int, frames: int, index: int) -> None:
        self.number = number
        self.index = Index()
        self.size_bytes = 0
        """Of the frames; where the next one goes."""
        self._paths = paths_of(folder, number)
        self._frames = frames
        self._index_file = index
        self._index_size = 0
        self._readers = 0
        self._closed = False

    @classmethod
    def create(cls, folder: Path, number: int) -> Self:
        """A new one. Blocks. Raises OSError."""
        return cls(folder, number, *_open_both(paths_of(folder, number), _OPENING | os.O_CREAT | os.O_EXCL))

    @classmethod
    def load(cls, folder: Path, number: int, limit_bytes: int) -> Self:
        """One that an earlier owner left; a part of an entry at the end is forgotten. Blocks.

        Raises OSError, also when it is larger than any of ours.
        """
        segment = cls(folder, number, *_open_both(paths_of(folder, number), _OPENING))
        try:
            segment.size_bytes = os.fstat(segment._frames).st_size
            if segment.size_bytes > limit_bytes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            data = _read_all(segment._index_file, limit_bytes=2 * ENTRIES_MAX * _ENTRY_SIZE)
            words = array("Q")
            words.frombytes(data[: len(data) - len(data) % _ENTRY_SIZE])
            if sys.byteorder == "big":
                words.byteswap()
            segment.index = Index(words)
            segment._index_size = len(words) * words.itemsize
        except BaseException:
            segment.close()
            raise
        return segment

    def write(self, frames: Sequence[tuple[int, Frame]]) -> list[tuple[int, int, int]]:
        """Append frames, each with its key: what `note` has to be told. Blocks. Raises OSError."""
        entries, end = [], self.size_bytes
        for key, frame in frames:
            entries.append((key, end, len(frame)))
            end += len(frame)
        _write_all(self._frames, [frame for _, frame in frames], self.size_bytes)
        words = array("Q", [word for entry in entries for word in entry])
        if sys.byteorder == "big":
            words.byteswap()
        _write_all(self._index_file, [words.tobytes()], self._index_size)
        return entries

    def note(self, entries: Sequence[tuple[int, int, int]], without: Container[int] = ()) -> None:
        """These were written; those of the keys `without` are of no use any more."""
        self.index.add([entry for entry in entries if entry[0] not in without])
        self.size_bytes += sum(length for _, _, length in entries)
        self._index_size += _ENTRY_SIZE * len(entries)

    def read(self, places: Sequence[Place]) -> list[bytes | None]:
        """What is there, None for what is not all there. Blocks. Between `hold` and `let_go`."""
        found: list[bytes | None] = []
        for offset, length in places:
            data = None
            with contextlib.suppress(OSError, OverflowError, MemoryError):  # an index may say anything
                if length <= FRAME_MAX_BYTES:
                    data = os.pread(self._frames, length, offset)
            found.append(data if data is not None and len(data) == length else None)
        return found

    def read_cached(self, places: Sequence[Place]) -> list[bytes] | None:
        """As `read`, without waiting for the disk; None if it takes one, or if there is much to copy."""
        if sum(length for _, length in places) > INLINE_READ_BYTES:
            return None
        found: list[bytes] = []
        for offset, length in places:
            try:
                data = read_cached(self._frames, offset, length)
            except (OSError, OverflowError):
                data = None
            if data is None:
                return None
            found.append(data)
        return found

    def hold(self) -> None:
        """Threads are going to read or write, until `let_go`: the files stay open. Not for one that is closed."""
        assert not self._closed, "its descriptors may be somebody else's by now"
        self._readers += 1

    def let_go(self) -> None:
        """They are done."""
        self._readers -= 1
        if self._closed and not self._readers:
            self._close_files()

    def close(self) -> None:
        """Nothing more will be asked; files are closed when nobody reads any more. Idempotent."""
        if not self._closed:
            self._closed = True
            if not self._readers:
                self._close_files()

    def delete(self) -> None:
        """Take the files away; who reads goes on reading. Blocks."""
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink()

    def _close_files(self) -> None:
        for descriptor in (self._frames, self._index_file):
            with contextlib.suppress(OSError):  # a disk that fails costs the cache, never a request
                os.close(descriptor)
        self._frames = self._index_file = -1


def paths_of(folder: Path, number: int) -> tuple[Path, Path]:
    """Of the frames, and of the index."""
    return folder / f"{number:012d}.frames", folder / f"{number:012d}.index"


def _open_both(paths: tuple[Path, Path], flags: int) -> tuple[int, int]:
    frames = os.open(paths[0], flags, 0o600)
    try:
        return frames, os.open(paths[1], flags, 0o600)
    except BaseException:
        os.close(frames)
        raise


def _read_all(descriptor: int, limit_bytes: int) -> bytes:
    """A whole file. Raises OSError, also for one that is larger than that."""
    if os.fstat(descriptor).st_size > limit_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    pieces, at = [], 0
    while piece := os.pread(descriptor, 1 << 24, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _write_all(descriptor: int, pieces: Sequence[Frame], at: int) -> None:
    """Write all of the pieces from `at` on, whatever part of them the kernel takes at a time. Raises OSError."""
    first, rest = 0, list(pieces)
    while first < len(rest):
        stop, size = first, 0
        while stop < len(rest) and stop - first < _FRAMES_MAX and (stop == first or size < _WRITE_BYTES):
            size += len(rest[stop])
            stop += 1
        written = os.pwritev(descriptor, rest[first:stop], at)
        at += written
        while first < stop and written >= len(rest[first]):
            written -= len(rest[first])
            first += 1
        if written:
            rest[first] = memoryview(rest[first])[written:]
