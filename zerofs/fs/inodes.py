"""Inodes in memory: exactly one object per inode, however many use it.

Not the place where inodes are changed: verbs do that, and put the object with a commit.

A weak table knows every live object, whoever holds it: this cache, a handle, a running operation, or the engine's
memtable. So an object can be evicted here at any time, and a second one can never come into being beside it. Loads are
single-flight for the same reason: bytes that were read before a change must not become an object after it.
"""

import errno
from collections.abc import Iterable, Mapping

import trio

from zerofs.errors import CorruptionError, FsError
from zerofs.fs.format.keys import inode_key
from zerofs.fs.format.records import Inode, decode_inode
from zerofs.fs.ports import Engine, Value
from zerofs.fs.recent import Recent
from zerofs.fs.weaktable import WeakTable


class Inodes:
    """All inodes of one filesystem."""

    __slots__ = ("_engine", "_live", "_loading", "_recent", "renewals")

    def __init__(self, engine: Engine, cache_count: int) -> None:
        self._engine = engine
        self._recent: Recent[int, Inode] = Recent(cache_count)
        self._live: WeakTable[int, Inode] = WeakTable()
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
        return node

    def add(self, node: Inode) -> None:
        """A new inode."""
        self._live.put(node.number, node)
        self._recent.put(node.number, node)

    def drop(self, number: int) -> None:
        """The inode is no more: nobody shall find its object."""
        self._recent.drop(number)
        self._live.drop(number)

    def renew(self, kept: Mapping[int, Inode]) -> None:
        """Another state of the volume is shown: know nothing but `kept`, which is of that state."""
        self._recent.clear()
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
                return (await self._load((number,)))[0]
            await loading.wait()
            node = self.cached(number)
        return node

    async def find_many(self, numbers: Iterable[int]) -> list[Inode | None]:
        """The inodes, each or None, in the order given; those not in memory with one call of the engine."""
        wanted = list(numbers)
        recent = self._recent.get
        found = [recent(number) or self.cached(number) for number in wanted]
        if None not in found:
            return found
        missing = [number for number, node in zip(wanted, found, strict=True) if node is None]
        fresh = list(dict.fromkeys(number for number in missing if number not in self._loading))
        loaded = dict(zip(fresh, await self._load(fresh), strict=True)) if fresh else {}
        return [
            node or loaded.get(number) or (None if number in loaded else await self.find(number))
            for number, node in zip(wanted, found, strict=True)
        ]

    async def _load(self, numbers: Iterable[int]) -> list[Inode | None]:
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
            return [self._adopt(number, value) for number, value in zip(numbers, values, strict=True)]
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
        self.add(node)
        return node
