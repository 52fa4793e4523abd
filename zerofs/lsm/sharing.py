"""What is stored and need not be read to be used: frames that other keys are to share, and those that patches lie on.

Not the place where anything is committed or held on to: the engine and its chunk writer do that.
"""

from collections.abc import Awaitable, Callable, Sequence

from zerofs.lsm.chunk import Chunk, Shared
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.pointer import IN_SST, Pointer
from zerofs.lsm.lookup import Found, Lookup
from zerofs.lsm.memtable import Value
from zerofs.lsm.patch import Patch

Stored = Pointer | Patch
"""What is used as it is stored."""


async def find_stored(
    keys: Sequence[bytes],
    stored: Callable[[Found], Stored | None],
    *,
    lookup: Lookup,
    current: Callable[[], Manifest],
    read: Callable[[Sequence[bytes]], Awaitable[Sequence[Value | None]]],
    hold: Callable[[Pointer], None],
) -> list[Stored | Value | None]:
    """What `stored` takes the entry of each key for; where that is nothing, its value.

    All of it is of the instant of the return. Pointers are given to `hold` in that instant.
    """
    while True:
        version = current()
        entries = await lookup.find_many(keys)
        found: list[Stored | Value | None] = [stored(entry) for entry in entries]
        apart = [position for position, it in enumerate(found) if it is None]
        if apart:
            for position, value in zip(apart, await read([keys[position] for position in apart]), strict=True):
                found[position] = value
        # atomic from here: what was found is still so, and is held before anything can change
        if version is current() and all(map(lookup.is_newest, keys, entries)):
            break
    for it in found:
        if type(it) is Pointer:
            hold(it)
    return found


def stored_at(entry: Found) -> Pointer | None:
    """Where in a chunk SST the data of an entry is, if it is in one."""
    pointer = entry.pointer if type(entry) is Chunk and entry.stored else entry
    return pointer if type(pointer) is Pointer and pointer.holder == IN_SST else None


def shareable(found: Stored | Value | None) -> Shared | bytes | None:
    """What to put under another key; None where there is nothing, or a chunk that became a hole."""
    assert type(found) is not Patch, "its value was asked for"
    if type(found) is Pointer:
        return Shared(found)
    if found is None or isinstance(found, bytes):
        return found
    return bytes(found) if isinstance(found, memoryview) else found.encode() or None


def patch_of(entry: Found, is_own: Callable[[Pointer], bool]) -> Pointer | Patch | None:
    """What to lay a part over without reading it: a patch that takes more, or a frame that is the volume's own.

    What a clone has of its source may lie in another store: that being away must hold the one write, not all syncs.
    """
    if type(entry) is Patch:
        return None if entry.is_full else entry
    pointer = stored_at(entry)
    return pointer if pointer is not None and is_own(pointer) else None
