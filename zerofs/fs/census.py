"""Every inode and every name of a filesystem, in a few bytes each: what the checker keeps while it reads the rows.

Inodes come in ascending order and names in the order of their directories, because that is the order of the keys. So
columns of machine numbers do, and a binary search finds things: about 50 bytes for an inode and 17 for a name.
"""

from array import array
from bisect import bisect_left

from zerofs.fs.format.records import Inode


class Census:
    """Columns by inode (`position` gives the place of one), and columns by name."""

    def __init__(self) -> None:
        self.numbers = array("Q")
        self.kinds = bytearray()
        self.nlinks = array("I")
        self.parents = array("Q")
        self.sizes = array("Q")
        self.allocated = array("Q")
        self.names = array("I")
        """How many names lead to the inode; known after `count_names`."""
        self.chunks = array("Q")
        """Chunk rows of the inode."""
        self.orphans = array("Q")
        self.entry_directories = array("Q")
        self.entry_targets = array("Q")
        self.entry_kinds = bytearray()

    def add(self, node: Inode) -> None:
        """The next inode; its number is above all before it."""
        self.numbers.append(node.number)
        self.kinds.append(node.kind)
        self.nlinks.append(node.nlink)
        self.parents.append(node.parent)
        self.sizes.append(node.size if node.is_regular else 0)
        self.allocated.append(node.allocated)
        self.names.append(0)
        self.chunks.append(0)

    def add_entry(self, directory: int, target: int, kind: int) -> None:
        """The next name; its directory is not below that of the name before."""
        self.entry_directories.append(directory)
        self.entry_targets.append(target)
        self.entry_kinds.append(kind)

    def position(self, number: int) -> int | None:
        """Where an inode stands in the columns; None when there is none of that number."""
        position = bisect_left(self.numbers, number)
        return position if position < len(self.numbers) and self.numbers[position] == number else None

    def is_orphan(self, number: int) -> bool:
        """Whether the inode is marked as one that waits to be reclaimed."""
        position = bisect_left(self.orphans, number)
        return position < len(self.orphans) and self.orphans[position] == number

    def entries_of(self, directory: int) -> range:
        """The places of a directory's names in the columns of names."""
        return range(bisect_left(self.entry_directories, directory), bisect_left(self.entry_directories, directory + 1))
