"""What the filesystem holds: the counters row, the quota, and the figures of statfs.

Used bytes are what `charge` says of every inode, orphans included; a recount over all inodes must give the same.
"""

import errno

from zerofs.errors import FsError
from zerofs.fs.attributes import FilesystemStatistics
from zerofs.fs.format.keys import COUNTERS_KEY
from zerofs.fs.format.records import INLINE_LIMIT, NAME_LIMIT, Counters, Inode
from zerofs.fs.ports import Row
from zerofs.units import CHUNK_SIZE

BLOCK_SIZE = 4096
"""Bytes of a block in statfs."""

_UNLIMITED_BYTES = 1 << 50
_UNLIMITED_INODES = 1 << 32


def charge_for(size_bytes: int, allocated: int) -> int:
    """What a regular file counts: its size or, with holes, its chunks."""
    if size_bytes <= INLINE_LIMIT:
        return size_bytes
    return min(size_bytes, allocated * CHUNK_SIZE)


def charge(node: Inode) -> int:
    """What an inode counts, bytes."""
    return charge_for(node.size, node.allocated) if node.is_regular else len(node.content)


class Usage:
    """The counters of one filesystem."""

    __slots__ = ("_max_size_bytes", "counters", "row")

    def __init__(self, counters: Counters, max_size_bytes: int | None) -> None:
        self.counters = counters
        self.row: Row = (COUNTERS_KEY, counters)
        """To be put with every commit that changed the counters."""
        self._max_size_bytes = max_size_bytes

    def require_room(self, growth_bytes: int) -> None:
        """Raise FsError(ENOSPC) if the quota does not allow so much more. Never for shrinking."""
        limit = self._max_size_bytes
        if limit is not None and growth_bytes > 0 and self.counters.used_bytes + growth_bytes > limit:
            raise FsError(errno.ENOSPC, "the filesystem's max_size is reached")

    def statistics(self) -> FilesystemStatistics:
        """The figures of statfs.

        Without a quota the total is 1 PiB, and twice what is used above half of that: an object store has no end, but
        `df` and installers want a size, and choke on the largest that fits.
        """
        used = self.counters.used_bytes
        total = self._max_size_bytes
        if total is None:
            total = max(_UNLIMITED_BYTES, 2 * used)
        blocks_used = -(-used // BLOCK_SIZE)
        blocks_total = max(total // BLOCK_SIZE, 1)
        files_used = self.counters.used_inodes
        files_total = max(_UNLIMITED_INODES, 2 * files_used)
        return FilesystemStatistics(
            block_size=BLOCK_SIZE,
            blocks_total=blocks_total,
            blocks_free=max(blocks_total - blocks_used, 0),
            files_total=files_total,
            files_free=files_total - files_used,
            name_max=NAME_LIMIT,
        )
