"""Inodes in memory: exactly one object per inode, however many use it.

Not the place where inodes are changed: verbs do that, and put the object with a commit.

A weak table knows every live object, whoever holds it: this cache, a handle, a running operation, or the engine's
memtable. So an object can be evicted here at any time, and a second one can never come into being beside it. Loads are
single-flight for the same reason: bytes that were read before a change must not become an object after it.

Of what is only listed the row is kept, which becomes an object when somebody needs one. Nobody can change it before.
"""

import errno
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import trio

from zerofs.errors import CorruptionError, FsError
from zerofs.fs.attributes import Attributes, attributes_in, attributes_of
from zerofs.fs.format.keys import inode_key
from zerofs.fs.format.records import Inode, decode_inode
from zerofs.fs.ports import Engine, Value
from zerofs.fs.recent import Recent
from zerofs.fs.weaktable import WeakTable

T = TypeVar("T")

_ROW_MAX = 256
"""Bytes of a row that is kept as it is; what has more holds content, and would take twice the room."""

_TRIES = 3


class Inodes:
    """All inodes of one filesystem."""

    __slots__ = ("_engine", "_live", "_loading", "_recent", "_rows", "renewals")

    def __init__(self, engine: Engine, cache_count: int) -> None:
        self._engine = engine
        self._recent: Recent[int, Inode] = Recent(cache_count)
        self._live: WeakTable[int, Inode] = WeakTable()
        self._rows: Recent[int, bytes] = Recent(cache_count)
        """Of those that were shown and of which there is no object: nobody can have changed them."""
        self._loading: dict[int, trio.Event] = {}
        self.renewals = 0
        """Counts changes of the state that a read-only mount shows: who slept can tell whether there was one."""

    def cached(self, number: int) -> Inode | None:
        """The inode if it is in memory."""
        node = self._recent.get(number)
        if node is None:
            node = self._live.get(number)
            if node is not None:
                self._recent.put(number, node)
            elif (row := self._rows.get(number)) is not None:
                node = self._adopt(number, row)
        return node

    def add(self, node: Inode) -> None:
        """A new inode."""
        self._live.put(node.number, node)
        self._recent.put(node.number, node)

    def drop(self, number: int) -> None:
        """The inode is no more: nobody shall find its object."""
        self._recent.drop(number)
        self._live.drop(number)
        self._rows.drop(number)

    def renew(self, kept: Mapping[int, Inode]) -> None:
        """Another state of the volume is shown: know nothing but `kept`, which is of that state."""
        self._recent.clear()
        self._rows.clear()
        self._live = WeakTable()
        for number, node in kept.items():
            self._live.put(number, node)
        self.renewals += 1

    async def get(self, number: int) -> Inode:
        """The inode. Raises FsError(ESTALE) if there is none of that number."""
        node = self.cached(number) or await self.find(number)
        if node is None:
            raise FsError(errno.ESTALE, f"there is no inode {number}")
        return node

    async def find(self, number: int) -> Inode | None:
        """The inode, or None. No checkpoint when it is in memory."""
        node = self.cached(number)
        while node is None:
            loading = self._loading.get(number)
            if loading is None:
                return (await self._load((number,), self._adopt))[0]
            await loading.wait()
            node = self.cached(number)
        return node

    async def show_many(self, numbers: Iterable[int]) -> list[Attributes | None]:
        """What stat(2) shows of each, or None, in the order given, all of the instant of the return.

        Those not in memory come with one call of the engine; mostly no object is made of them: a walk needs none.
        """
        wanted = list(numbers)
        for _ in range(_TRIES):
            shown = [self._shown(number) for number in wanted]
            if None not in shown:
                return shown
            missing = [number for number, known in zip(wanted, shown, strict=True) if known is None]
            other = next((number for number in missing if number in self._loading), None)
            if other is not None:
                await self.find(other)
                continue
            missing = list(dict.fromkeys(missing))
            loaded = dict(zip(missing, await self._load(missing, self._show), strict=True))
            # The others may have changed meanwhile, or been forgotten.
            shown = [loaded[number] if number in loaded else self._shown(number) for number in wanted]
            if all(known is not None or number in loaded for number, known in zip(wanted, shown, strict=True)):
                return shown
        nodes = [await self.find(number) for number in wanted]
        return [attributes_of(node) if node is not None else None for node in nodes]

    def _shown(self, number: int) -> Attributes | None:
        node = self._recent.get(number) or self._live.get(number)
        if node is not None:
            return attributes_of(node)
        row = self._rows.get(number)
        return attributes_in(number, row) if row is not None else None

    def _show(self, number: int, value: Value | None) -> Attributes | None:
        if type(value) is bytes and len(value) <= _ROW_MAX:
            shown = attributes_in(number, value)
            if shown is not None:
                self._rows.put(number, value)
                return shown
        node = self._adopt(number, value)
        return attributes_of(node) if node is not None else None

    async def _load(self, numbers: Iterable[int], take: Callable[[int, Value | None], T]) -> list[T]:
        """What `take` makes of the row of each, in the instant in which nobody else can have loaded or changed it."""
        numbers = list(numbers)
        done = trio.Event()
        self._loading.update((number, done) for number in numbers)
        try:
            renewals = -1
            while renewals != self.renewals:
                renewals = self.renewals
                if len(numbers) == 1:
                    values = [await self._engine.get(inode_key(numbers[0]))]
                else:
                    values = list(await self._engine.multi_get([inode_key(number) for number in numbers]))
            return [take(number, value) for number, value in zip(numbers, values, strict=True)]
        finally:
            for number in numbers:
                del self._loading[number]
            done.set()

    def _adopt(self, number: int, value: Value | None) -> Inode | None:
        if value is None:
            return None
        if isinstance(value, Inode):
            node = value  # still in the memtable, from an earlier mount of this engine
        elif isinstance(value, bytes):
            node = decode_inode(number, inode_key(number), value)
        else:
            raise CorruptionError(f"inode {number}: its row holds {type(value).__name__}")
        self._rows.drop(number)  # from here on the object may differ from it
        self.add(node)
        return node
