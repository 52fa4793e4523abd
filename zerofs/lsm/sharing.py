"""What a key can be given so that it has what another one has: the other's frame, or a copy of its data (0018).

Not the place where anything is committed or held on to: the engine and its chunk writer do that.
"""

from collections.abc import Awaitable, Callable, Sequence

from zerofs.lsm.chunk import Chunk, Shared
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.pointer import IN_SST, Pointer
from zerofs.lsm.lookup import Found, Lookup
from zerofs.lsm.memtable import Value


async def find_shareable(
    keys: Sequence[bytes],
    *,
    lookup: Lookup,
    current: Callable[[], Manifest],
    read: Callable[[Sequence[bytes]], Awaitable[Sequence[Value | None]]],
    hold: Callable[[Pointer], None],
) -> list[Shared | bytes | None]:
    """See `Engine.shareable`. Frames that are shared are given to `hold` in the instant of the return."""
    while True:
        version = current()
        entries = await lookup.find_many(keys)
        pointers = [_stored_at(entry) for entry in entries]
        apart = [key for key, pointer in zip(keys, pointers, strict=True) if pointer is None]
        data = dict(zip(apart, await read(apart), strict=True))
        # atomic from here: what was found is still so, and is held before anything can change
        if version is current() and all(map(lookup.is_newest, keys, entries)):
            break
    for pointer in pointers:
        if pointer is not None:
            hold(pointer)
    return [
        Shared(pointer) if pointer is not None else _encoded(data[key])
        for key, pointer in zip(keys, pointers, strict=True)
    ]


def _stored_at(entry: Found) -> Pointer | None:
    """Where in a chunk SST the data of an entry is, if it is in one."""
    pointer = entry.pointer if type(entry) is Chunk and entry.stored else entry
    return pointer if type(pointer) is Pointer and pointer.holder == IN_SST else None


def _encoded(value: Value | None) -> bytes | None:
    """A value as of now; None when there is none, or when it is a chunk that became a hole."""
    if value is None or isinstance(value, bytes):
        return value
    return bytes(value) if isinstance(value, memoryview) else value.encode() or None
