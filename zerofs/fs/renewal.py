"""A read-only mount that follows a writer: what memory holds of one state gives way to the next.

Not the place where states are found: the engine does that, and calls `prepare` with a way to read the next state before
it shows it. So open files can be looked up first, and in the instant of the change everything changes together: no
request ever sees an inode of one state with the data of another.
"""

from collections.abc import Awaitable, Callable, Sequence

import trio

from zerofs.errors import CorruptionError
from zerofs.fs.context import Context
from zerofs.fs.format.keys import COUNTERS_KEY, inode_key
from zerofs.fs.format.records import Inode, decode_counters, decode_inode
from zerofs.fs.ports import Value

Read = Callable[[Sequence[bytes]], Awaitable[Sequence[Value | None]]]
"""The values of some keys in the state to come."""

_OF_THIS_PROCESS = frozenset({"__weakref__", "handles", "key", "number", "version"})
_STORED = tuple(name for name in Inode.__slots__ if name not in _OF_THIS_PROCESS)


class Renewals:
    """The changes of state of one mount, and who wants to know of them."""

    __slots__ = ("_changed", "_ctx", "_happened")

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._changed: set[int] = set()
        self._happened = trio.Event()

    async def prepare(self, read: Read) -> Callable[[], None]:
        """Read what open files will be; returns what to call in the instant in which the state is shown.

        Raises CorruptionError, UnavailableError: then everything stays as it is.
        """
        ctx = self._ctx
        (row,) = await read([COUNTERS_KEY])
        if not isinstance(row, bytes):
            raise CorruptionError("the filesystem's counters are missing from a newer state")
        counters = decode_counters(row)
        found: dict[int, Inode | None] = {}
        # Files may be opened while this waits: until none is left, and from there without an await to the change.
        while wanted := [number for number in ctx.handles.open_inodes() if number not in found]:
            values = await read([inode_key(number) for number in wanted])
            found.update((number, _decoded(number, value)) for number, value in zip(wanted, values, strict=True))

        def shown() -> None:
            ctx.usage.counters = counters
            for number, node in ctx.handles.open_inodes().items():
                self._renew(node, found[number])
            ctx.inodes.renew(ctx.handles.open_inodes())
            ctx.dentries.renew()
            happened, self._happened = self._happened, trio.Event()
            happened.set()

        return shown

    def _renew(self, node: Inode, newer: Inode | None) -> None:
        node.version += 1  # a read under way begins anew
        # A number is given twice only when the volume was restored: then it may be another file now.
        if newer is None or (newer.kind, newer.btime_ns) != (node.kind, node.btime_ns):
            self._ctx.handles.mark_stale(node)
        else:
            for name in _STORED:
                setattr(node, name, getattr(newer, name))
        if node.is_regular:
            # Whether or not the row differs: data may be stored before the times that tell of it.
            self._changed.add(node.number)

    async def next(self) -> list[int]:
        """The regular files that were open when the state changed, once it has. None is told twice for one change."""
        await self._happened.wait()
        return self._take()

    def _take(self) -> list[int]:
        changed = sorted(self._changed)
        self._changed.clear()
        return changed


def _decoded(number: int, value: Value | None) -> Inode | None:
    """The inode of a row; None when there is none, or none that can be read: whoever looks it up again is told why."""
    try:
        return decode_inode(number, inode_key(number), value) if isinstance(value, bytes) else None
    except CorruptionError:
        return None
