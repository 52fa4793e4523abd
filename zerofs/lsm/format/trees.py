"""The trees of a volume, told apart by the first bytes of their keys (decisions 0005, 0009)."""

META_PREFIX = b"meta"
"""The filesystem's rows."""

CHUNK_PREFIX = b"chunk"
"""Pointer rows, one for each chunk."""

SPACE_PREFIX = b"space"
"""The engine's own: registers and back-references of chunk SSTs."""

TREES = (META_PREFIX, CHUNK_PREFIX, SPACE_PREFIX)


def tree_of(key: bytes) -> bytes:
    """The prefix of the tree that a key of the filesystem or engine belongs to."""
    if key.startswith(CHUNK_PREFIX):
        return CHUNK_PREFIX
    return SPACE_PREFIX if key.startswith(SPACE_PREFIX) else META_PREFIX
