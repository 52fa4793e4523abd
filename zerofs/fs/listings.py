"""Names of directories that were read or made, as they are.

The kernel asks for some 25 names at a time, and whoever walks over a tree does so again, or has just made it: to read
them takes longer than to keep them. Not the place where they are read, or changed.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import Final

NAMES_MAX: Final = 16_384
"""Of all directories together, each of which counts as one, too; some 170 bytes each."""

OF_ONE_MAX: Final = 4_096
"""Of one directory; a longer one keeps those that were read last."""

Listed = tuple[int, int, bytes]
"""Cookie, inode, name."""

_COOKIE: Final = itemgetter(0)


class _Listing:
    """Names that follow one another, in the order of cookies."""

    __slots__ = ("after_cookie", "entries", "is_last")

    def __init__(self, after_cookie: int) -> None:
        self.after_cookie = after_cookie
        """It begins behind this one."""
        self.entries: list[Listed] = []
        self.is_last = False
        """Nothing follows."""


class Listings:
    """What is known of some directories."""

    __slots__ = ("_count", "_known")

    def __init__(self) -> None:
        self._known: dict[int, _Listing] = {}
        """By directory, the one that was read last at the end."""
        self._count = 0

    def __len__(self) -> int:
        """How many names are kept, and directories."""
        return self._count + len(self._known)

    def behind(self, directory: int, cookie: int, limit: int) -> list[Listed] | None:
        """Up to `limit` entries behind a cookie, none only at the end of the directory; None if they are not here."""
        known = self._known.get(directory)
        if known is None or cookie < known.after_cookie:
            return None
        entries = known.entries
        first = bisect_right(entries, cookie, key=_COOKIE)
        return entries[first : first + limit] or ([] if known.is_last else None)

    def ends_at(self, directory: int, cookie: int) -> bool:
        """Whether the last entry that is known of the directory has this cookie."""
        known = self._known.get(directory)
        return known is not None and bool(known.entries) and known.entries[-1][0] == cookie

    def put(self, directory: int, after_cookie: int, entries: Sequence[Listed], *, is_last: bool) -> None:
        """Know what is behind a cookie, in addition if it continues what is known."""
        goes_on = self.ends_at(directory, after_cookie)
        known = self._known.pop(directory, None)
        if known is not None and (not goes_on or len(known.entries) + len(entries) > OF_ONE_MAX):
            self._count -= len(known.entries)
            known = None
        self._known[directory] = known = known or _Listing(after_cookie)
        known.entries.extend(entries)
        known.is_last = is_last
        self._count += len(entries)
        self._bound()

    def _bound(self) -> None:
        while len(self) > NAMES_MAX:
            self.drop(next(iter(self._known)))

    def add(self, directory: int, entry: Listed) -> None:
        """A name came behind all others."""
        known = self._known.get(directory)
        if known is None:
            return
        if known.is_last and entry[0] > known.after_cookie and len(known.entries) < OF_ONE_MAX:
            known.entries.append(entry)
            self._count += 1
            self._bound()
        else:
            self.drop(directory)

    def remove(self, directory: int, cookie: int) -> None:
        """A name went."""
        known = self._known.get(directory)
        if known is not None:
            at = bisect_left(known.entries, cookie, key=_COOKIE)
            if at < len(known.entries) and known.entries[at][0] == cookie:
                del known.entries[at]
                self._count -= 1

    def drop(self, directory: int) -> None:
        """The directory changed in another way, or is gone."""
        known = self._known.pop(directory, None)
        if known is not None:
            self._count -= len(known.entries)

    def clear(self) -> None:
        """Know nothing."""
        self._known.clear()
        self._count = 0
