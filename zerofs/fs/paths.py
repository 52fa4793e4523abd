"""From inodes back to paths, for reports. Nothing in the filesystem needs that way, so it reads every name."""

from collections.abc import Collection, Sequence
from typing import Protocol

from zerofs.errors import CorruptionError
from zerofs.fs.format.keys import META_RANGE, Kind, decode_key, dirscan_range, inode_key
from zerofs.fs.format.records import decode_dirscan, decode_inode
from zerofs.fs.ports import Value

ROOT = 1
PAGE_ROWS = 4096
MAX_DEPTH = 4096


class Rows(Protocol):
    """The part of an engine that is needed to read rows."""

    async def get(self, key: bytes) -> Value | None:
        """See `ports.Engine`."""
        ...

    async def scan(self, start: bytes, stop: bytes, limit: int) -> Sequence[tuple[bytes, Value]]:
        """See `ports.Engine`."""
        ...


async def find_paths(rows: Rows, inodes: Collection[int]) -> dict[int, bytes]:
    """One path, from the root on, of each inode that has one. Rows that cannot be decoded are passed over.

    Reads every name once, and for each inode the directories above it. Raises CorruptionError when rows cannot be read.
    """
    names = await _names(rows, frozenset(inodes))
    above: dict[int, bytes | None] = {ROOT: b""}
    found = {}
    for inode, (directory, name) in names.items():
        parent = await _directory_path(rows, directory, above)
        if parent is not None:
            found[inode] = parent + b"/" + name
    if ROOT in inodes:
        found[ROOT] = b"/"
    return found


async def _names(rows: Rows, wanted: frozenset[int]) -> dict[int, tuple[int, bytes]]:
    """Directory and name of each wanted inode."""
    names: dict[int, tuple[int, bytes]] = {}
    start, stop = META_RANGE
    while wanted and start < stop:
        page = await rows.scan(start, stop, PAGE_ROWS)
        for raw, value in page:
            try:
                key = decode_key(raw)
                if key.kind is Kind.DIRSCAN:
                    inode, _, name = decode_dirscan(_encoded(value))
                    if inode in wanted:
                        names.setdefault(inode, (key.inode, name))
            except CorruptionError:
                continue
        if len(page) < PAGE_ROWS:
            break
        start = page[-1][0] + b"\0"
    return names


async def _directory_path(rows: Rows, directory: int, known: dict[int, bytes | None]) -> bytes | None:
    """The path of a directory, "" for the root; None when the way up does not end there."""
    chain: list[tuple[int, bytes]] = []
    while directory not in known:
        known[directory] = None  # until the way up is known: it may lead in a circle
        step = await _step_up(rows, directory) if len(chain) < MAX_DEPTH else None
        if step is None:
            return None
        chain.append((directory, step[1]))
        directory = step[0]
    path = known[directory]
    if path is None:
        return None
    for inode, name in reversed(chain):
        path = known[inode] = path + b"/" + name
    return path


async def _step_up(rows: Rows, directory: int) -> tuple[int, bytes] | None:
    """Parent of a directory, and its name there."""
    key = inode_key(directory)
    value = await rows.get(key)
    if value is None:
        return None
    try:
        parent = decode_inode(directory, key, _encoded(value)).parent
    except CorruptionError:
        return None
    start, stop = dirscan_range(parent, 0)
    while page := await rows.scan(start, stop, PAGE_ROWS):
        for _, entry in page:
            try:
                inode, _, name = decode_dirscan(_encoded(entry))
            except CorruptionError:
                continue
            if inode == directory:
                return parent, name
        start = page[-1][0] + b"\0"
    return None


def _encoded(value: Value) -> bytes:
    assert not isinstance(value, memoryview), "only chunks are views"
    return value if isinstance(value, bytes) else value.encode()
