"""Names in directories: finding one, listing many, staging changes of them.

Not the place where inodes are loaded or locks are taken. Both rows of a name (by name, by cookie) are staged here and
nowhere else, together with what the cache of names knows, so the three never differ.
"""

import errno
from collections.abc import Sequence

from zerofs.errors import CorruptionError, FsError
from zerofs.fs.format.keys import decode_dirscan_cookies, dentry_key, dirscan_key, dirscan_range
from zerofs.fs.format.records import (
    NAME_LIMIT,
    Dentry,
    Inode,
    decode_dentry,
    decode_dirscans,
    encode_dentry,
    encode_dirscan,
)
from zerofs.fs.listings import Listed, Listings
from zerofs.fs.ports import Engine, Row, Value
from zerofs.fs.recent import Recent

_ABSENT = Dentry(0, 0, 0)

_PAGE_ENTRIES = 256
"""Names that are read at once for whoever goes on."""


class Dentries:
    """All names of one filesystem."""

    __slots__ = ("_cache", "_engine", "_listings", "generation")

    def __init__(self, engine: Engine, cache_count: int) -> None:
        self._engine = engine
        self._cache: Recent[tuple[int, bytes], Dentry] = Recent(cache_count)
        self.generation = 0
        """Counts changes: who slept since a lookup can tell whether any name changed meanwhile."""
        self._listings = Listings()

    def renew(self) -> None:
        """Another state of the volume is shown: know nothing."""
        self._cache.clear()
        self._listings.clear()
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
        number, cookie = directory.number, directory.next_cookie
        directory.next_cookie = cookie + 1
        directory.entries += 1
        self._stage(rows, number, name, Dentry(node.number, cookie, node.kind))
        self._listings.add(number, (cookie, node.number, name))

    def stage_set(self, rows: list[Row], directory: Inode, name: bytes, dentry: Dentry) -> None:
        """Let a name lead to an inode, at the cookie that the dentry says."""
        self._stage(rows, directory.number, name, dentry)
        self._listings.drop(directory.number)

    def _stage(self, rows: list[Row], directory: int, name: bytes, dentry: Dentry) -> None:
        rows.append((dentry_key(directory, name), encode_dentry(dentry)))
        rows.append((dirscan_key(directory, dentry.cookie), encode_dirscan(dentry.inode, dentry.kind, name)))
        self._changed(directory, name, dentry)

    def stage_remove(self, rows: list[Row], directory: Inode, name: bytes, cookie: int) -> None:
        """Take a name away. Changes the directory's count; its row is the caller's to put."""
        number = directory.number
        directory.entries -= 1
        rows.append((dentry_key(number, name), None))
        rows.append((dirscan_key(number, cookie), None))
        self._changed(number, name, _ABSENT)
        self._listings.remove(number, cookie)

    def stage_forget_name(self, rows: list[Row], directory: Inode, name: bytes) -> None:
        """Take away the row by name only: a rename goes on using the cookie."""
        rows.append((dentry_key(directory.number, name), None))
        self._changed(directory.number, name, _ABSENT)
        self._listings.drop(directory.number)

    def note_new(self, directory: int) -> None:
        """A directory is being made: nothing is in it."""
        self._listings.put(directory, 0, (), is_last=True)

    def note_gone(self, directory: int) -> None:
        """A directory is being removed."""
        self._listings.drop(directory)

    def _changed(self, directory: int, name: bytes, known: Dentry) -> None:
        self.generation += 1
        self._cache.put((directory, name), known)

    async def list(self, directory: int, after_cookie: int, limit: int) -> list[Listed]:
        """Up to `limit` entries behind a cookie, in the order of cookies; none only at the end of the directory."""
        found = self._listings.behind(directory, after_cookie, limit)
        if found is not None:
            return found
        # Only who goes on gets more than he asks for: who looks at the beginning may need no more.
        goes_on = self._listings.ends_at(directory, after_cookie)
        generation, wanted = self.generation, max(limit, _PAGE_ENTRIES) if goes_on else limit
        entries = _decode(directory, await self._engine.scan(*dirscan_range(directory, after_cookie), wanted))
        if generation == self.generation:  # else they may be older than a change that dropped what was known
            self._listings.put(directory, after_cookie, entries, is_last=len(entries) < wanted)
        return entries[:limit]


def _decode(directory: int, rows: Sequence[tuple[bytes, Value]]) -> list[Listed]:
    cookies = decode_dirscan_cookies([key for key, _ in rows])
    values = [value for _, value in rows if type(value) is bytes]
    if len(values) != len(rows):
        raise CorruptionError(f"dirscan in {directory}: a row holds something else than bytes")
    return [(cookie, inode, name) for cookie, (inode, name) in zip(cookies, decode_dirscans(values), strict=True)]


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
