"""Names in directories: finding one, listing many, staging changes of them.

Not the place where inodes are loaded or locks are taken. Both rows of a name (by name, by cookie) are staged here and
nowhere else, together with what the cache of names knows, so the three never differ.
"""

import errno

from zerofs.errors import CorruptionError, FsError
from zerofs.fs.format.keys import decode_dirscan_cookie, dentry_key, dirscan_key, dirscan_range
from zerofs.fs.format.records import (
    NAME_LIMIT,
    Dentry,
    Inode,
    decode_dentry,
    decode_dirscan,
    encode_dentry,
    encode_dirscan,
)
from zerofs.fs.ports import Engine, Row
from zerofs.fs.recent import Recent

_ABSENT = Dentry(0, 0, 0)


class Dentries:
    """All names of one filesystem."""

    __slots__ = ("_cache", "_engine", "generation")

    def __init__(self, engine: Engine, cache_count: int) -> None:
        self._engine = engine
        self._cache: Recent[tuple[int, bytes], Dentry] = Recent(cache_count)
        self.generation = 0
        """Counts changes: who slept since a lookup can tell whether any name changed meanwhile."""

    def renew(self) -> None:
        """Another state of the volume is shown: know nothing."""
        self._cache.clear()
        self.generation += 1

    async def find(self, directory: int, name: bytes) -> Dentry | None:
        """What the name leads to. No checkpoint when that is in memory."""
        known = self._cache.get((directory, name))
        if known is None:
            generation = self.generation
            value = await self._engine.get(dentry_key(directory, name))
            if value is None:
                known = _ABSENT
            elif isinstance(value, bytes):
                known = decode_dentry(value)
            else:
                raise CorruptionError(f"dentry in {directory}: its row holds {type(value).__name__}")
            if generation == self.generation:  # else the answer may be older than a change that the cache knows
                self._cache.put((directory, name), known)
        return known if known is not _ABSENT else None

    def stage_add(self, rows: list[Row], directory: Inode, name: bytes, node: Inode) -> None:
        """A new name, behind all others. Changes the directory's counts; its row is the caller's to put."""
        cookie = directory.next_cookie
        directory.next_cookie = cookie + 1
        directory.entries += 1
        self.stage_set(rows, directory, name, Dentry(node.number, cookie, node.kind))

    def stage_set(self, rows: list[Row], directory: Inode, name: bytes, dentry: Dentry) -> None:
        """Let a name lead to an inode, at the cookie that the dentry says."""
        number = directory.number
        rows.append((dentry_key(number, name), encode_dentry(dentry)))
        rows.append((dirscan_key(number, dentry.cookie), encode_dirscan(dentry.inode, dentry.kind, name)))
        self.generation += 1
        self._cache.put((number, name), dentry)

    def stage_remove(self, rows: list[Row], directory: Inode, name: bytes, cookie: int) -> None:
        """Take a name away. Changes the directory's count; its row is the caller's to put."""
        directory.entries -= 1
        self.stage_forget_name(rows, directory, name)
        rows.append((dirscan_key(directory.number, cookie), None))

    def stage_forget_name(self, rows: list[Row], directory: Inode, name: bytes) -> None:
        """Take away the row by name only: a rename goes on using the cookie."""
        rows.append((dentry_key(directory.number, name), None))
        self.generation += 1
        self._cache.put((directory.number, name), _ABSENT)

    async def list(self, directory: int, after_cookie: int, limit: int) -> list[tuple[int, int, bytes]]:
        """(cookie, inode, name) of the next `limit` entries behind a cookie, in the order of cookies."""
        start, stop = dirscan_range(directory, after_cookie)
        found: list[tuple[int, int, bytes]] = []
        for key, value in await self._engine.scan(start, stop, limit):
            if type(value) is not bytes:
                raise CorruptionError(f"dirscan in {directory}: its row holds {type(value).__name__}")
            inode, _, name = decode_dirscan(value)
            found.append((decode_dirscan_cookie(key), inode, name))
        return found


def require_name(name: bytes) -> None:
    """Raise FsError unless the name may be given to something: EINVAL, ENOENT (empty), ENAMETOOLONG, EEXIST (dots)."""
    if len(name) > NAME_LIMIT:
        raise FsError(errno.ENAMETOOLONG)
    if b"/" in name or b"\0" in name:
        raise FsError(errno.EINVAL)
    if not name:
        raise FsError(errno.ENOENT)
    if name in (b".", b".."):
        raise FsError(errno.EEXIST)
