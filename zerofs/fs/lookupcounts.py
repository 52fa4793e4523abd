"""How often the kernel looked each inode up and has not forgotten it, in a byte for most of them.

A kernel with memory to spare remembers every file that was ever touched, so a dictionary would take 74 MB for a million
files. Inode numbers are given one after the other: pages of counts take 5 MB, at the same price for each request.
Of files far from each other, each in a page of its own, they take twice as much as the dictionary.
"""

from collections.abc import Iterable

_PAGE_BITS = 5
_PAGE_SIZE = 1 << _PAGE_BITS
_SLOT = _PAGE_SIZE - 1
_NONE = bytes(_PAGE_SIZE)
_MOST = 255


class LookupCounts:
    """Counts by inode number, 0 unless counted."""

    __slots__ = ("_above", "_pages")

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        """A byte for each inode; none is all zero."""
        self._above: dict[int, int] = {}
        """What a count has besides the 255 in its page."""

    def __contains__(self, inode: int) -> bool:
        page = self._pages.get(inode >> _PAGE_BITS)
        return page is not None and page[inode & _SLOT] > 0

    def add(self, inode: int) -> None:
        """One more."""
        page = self._pages.get(inode >> _PAGE_BITS)
        if page is None:
            page = self._pages[inode >> _PAGE_BITS] = bytearray(_PAGE_SIZE)
        count = page[inode & _SLOT]
        if count < _MOST:
            page[inode & _SLOT] = count + 1
        else:
            self._above[inode] = self._above.get(inode, 0) + 1

    def add_each(self, inodes: Iterable[int]) -> None:
        """One more for each."""
        pages = self._pages
        for inode in inodes:
            page = pages.get(inode >> _PAGE_BITS)
            slot = inode & _SLOT
            if page is not None and page[slot] < _MOST:
                page[slot] += 1
            else:
                self.add(inode)

    def subtract(self, inode: int, count: int) -> bool:
        """So many less. Whether none is left; more than there were count as all."""
        page = self._pages.get(inode >> _PAGE_BITS)
        if page is None:
            return True
        left = page[inode & _SLOT] - count
        if self._above and inode in self._above:
            left += self._above.pop(inode)
            if left > _MOST:
                self._above[inode] = left - _MOST
                left = _MOST
        if left > 0:
            page[inode & _SLOT] = left
            return False
        page[inode & _SLOT] = 0
        if page == _NONE:
            del self._pages[inode >> _PAGE_BITS]
        return True

    def clear(self) -> None:
        """Forget all."""
        self._pages.clear()
        self._above.clear()
