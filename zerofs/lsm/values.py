"""The values of keys: what they lead to, with the data of chunks read, and the parts of patches laid over it."""

from collections.abc import Sequence

from zerofs.lsm.chunk import Chunk
from zerofs.lsm.chunkreader import ChunkReader, Source
from zerofs.lsm.format.pointer import Pointer
from zerofs.lsm.lookup import Found, Lookup
from zerofs.lsm.memtable import Value
from zerofs.lsm.patch import Patch


async def read_values(keys: Sequence[bytes], lookup: Lookup, reader: ChunkReader) -> list[Value | None]:
    """The value of each key, all as of one instant but for what others change meanwhile; None for those without one.

    Raises CorruptionError, UnavailableError.
    """
    entries = await lookup.find_many(keys)
    while any(type(entry) is Chunk and entry.is_gone for entry in entries):  # overwritten while this waited
        entries = await lookup.find_many(keys)
    patches = [_patch_of(entry) for entry in entries]
    sources = [_source_of(entry) for entry in entries]
    if not any(sources):
        return entries  # type: ignore[return-value]  # values only
    texts = await reader.read(sources, lambda position, window: lookup.near(keys[position], window))
    # atomic from here: parts that a patch got meanwhile are among those that it has now
    return [
        entry if text is None else text if patch is None else patch.over(text)  # type: ignore[misc]  # a value
        for entry, text, patch in zip(entries, texts, patches, strict=True)
    ]


async def fetch_ahead(keys: Sequence[bytes], lookup: Lookup, reader: ChunkReader) -> None:
    """Have what `read_values` would read in memory; that nobody has asked for it yet is known to the caches."""
    entries = await lookup.find_many(keys)
    await reader.read([_source_of(entry) for entry in entries], unasked=True)


def _patch_of(entry: Found) -> Patch | None:
    if type(entry) is Chunk:
        return entry.patch
    return entry if type(entry) is Patch else None


def _source_of(entry: Found) -> Source:
    """What is to be read for an entry: of a patch, what it lies on."""
    patch = _patch_of(entry)
    if patch is not None:
        return patch.base
    if type(entry) is Chunk:
        return None if entry.is_gone else entry
    return entry if type(entry) is Pointer else None
