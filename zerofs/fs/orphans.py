"""Inodes without a name: kept while somebody refers to them, then reclaimed with all they have, in constant time.

Life of an orphan: the commit that takes the last name puts an orphan row; when the last handle is closed and the kernel
has forgotten the inode, one commit deletes the row, the inode, its data and its xattrs. What a crash leaves over is
reclaimed at the next open, when nobody can refer to it.
"""

import logging

from zerofs.errors import ZerofsError
from zerofs.fs import chunks
from zerofs.fs.format.keys import ORPHAN_RANGE, decode_key, orphan_key, xattr_range
from zerofs.fs.format.records import ORPHAN_VALUE, Inode
from zerofs.fs.handles import Handles
from zerofs.fs.inodes import Inodes
from zerofs.fs.locks import InodeLocks
from zerofs.fs.ports import Engine, KeyRange, Row
from zerofs.fs.usage import Usage, charge

_log = logging.getLogger(__name__)

_SCAN_LIMIT = 1024


class Orphans:
    """All orphans of one mount."""

    __slots__ = ("_busy", "_engine", "_handles", "_inodes", "_linkable", "_locks", "_usage", "_waiting")

    def __init__(self, engine: Engine, inodes: Inodes, handles: Handles, locks: InodeLocks, usage: Usage) -> None:
        self._engine = engine
        self._inodes = inodes
        self._handles = handles
        self._locks = locks
        self._usage = usage
        self._waiting: dict[int, Inode] = {}
        self._linkable: set[int] = set()
        """Those that never had a name."""
        self._busy: set[int] = set()
        """Those that lost their last reference while an operation ran on them."""

    def __len__(self) -> int:
        return len(self._waiting)

    def stage_unlinked(self, rows: list[Row], ranges: list[KeyRange], node: Inode) -> None:
        """The last name of the inode goes with this commit: the inode goes too, or becomes an orphan."""
        if self._handles.is_referenced(node):
            self._waiting[node.number] = node
            rows.append((orphan_key(node.number), ORPHAN_VALUE))
            rows.append((node.key, node))
        else:
            self._stage_reclaim(rows, ranges, node)

    def stage_unnamed(self, rows: list[Row], node: Inode, *, linkable: bool) -> None:
        """The inode, to which somebody refers, has had no name yet; it may get one later if it is `linkable`."""
        self._waiting[node.number] = node
        if linkable:
            self._linkable.add(node.number)
        rows.append((orphan_key(node.number), ORPHAN_VALUE))

    def is_linkable(self, node: Inode) -> bool:
        """Whether an inode without a name may be given one."""
        return node.number in self._linkable

    def stage_named(self, rows: list[Row], node: Inode) -> None:
        """An inode that is linkable gets its first name with this commit, and is no orphan any more."""
        del self._waiting[node.number]
        self._linkable.discard(node.number)
        rows.append((orphan_key(node.number), None))

    def released(self, number: int) -> None:
        """A reference to the inode went. If it was the last one to an orphan, reclaim it; never raises for the store.

        While an operation still runs on the inode it stays, for `sweep` to take.
        """
        node = self._waiting.get(number)
        if node is None or self._handles.is_referenced(node):
            return
        if self._locks.is_held(number):
            self._busy.add(number)
            return
        rows: list[Row] = [(orphan_key(number), None)]
        ranges: list[KeyRange] = []
        self._stage_reclaim(rows, ranges, node)
        try:
            self._engine.commit(rows, ranges)
        except ZerofsError as error:
            # A fenced or closed engine changes nothing any more: whoever opens the volume next reclaims it.
            _log.info("orphan %d stays for the next mount: %s", number, error)
        del self._waiting[number]
        self._linkable.discard(number)

    def sweep(self) -> None:
        """Reclaim what could not be reclaimed when its last reference went. Called now and then."""
        busy, self._busy = self._busy, set()
        for number in busy:
            self.released(number)

    def release_all(self) -> None:
        """Reclaim everything that nobody refers to: the mount ends."""
        for number in list(self._waiting):
            self.released(number)

    async def reclaim_left_over(self) -> int:
        """At open: reclaim what an earlier mount left. Returns how many there were."""
        start, stop = ORPHAN_RANGE
        total = 0
        while True:
            page = await self._engine.scan(start, stop, _SCAN_LIMIT)
            for key, _ in page:
                rows: list[Row] = [(key, None)]
                ranges: list[KeyRange] = []
                node = await self._inodes.find(decode_key(key).inode)
                if node is not None:
                    self._stage_reclaim(rows, ranges, node)
                self._engine.commit(rows, ranges)
            total += len(page)
            if len(page) < _SCAN_LIMIT:
                return total
            start = page[-1][0] + b"\0"

    def _stage_reclaim(self, rows: list[Row], ranges: list[KeyRange], node: Inode) -> None:
        counters = self._usage.counters
        counters.used_bytes -= charge(node)
        counters.used_inodes -= 1
        chunks.stage_delete(rows, ranges, node, chunks.from_index(node, 0))
        if node.xattr_list_size:
            ranges.append(xattr_range(node.number))
        rows.append((node.key, None))
        rows.append(self._usage.row)
        self._inodes.drop(node.number)
