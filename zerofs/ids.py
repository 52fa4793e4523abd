"""Names for numbers that must not be mixed up."""

from typing import NewType

InodeId = NewType("InodeId", int)
"""An inode of one volume: 1 is the root, then 2, 3, …; never reused."""

ChunkIndex = NewType("ChunkIndex", int)
"""Which 32 KiB of a file: byte offset // CHUNK_SIZE."""

Cookie = NewType("Cookie", int)
"""A directory entry's readdir offset: unique in its directory, never reused."""

KeyId = NewType("KeyId", int)
"""A DEK generation, u32, first in every frame."""

Epoch = NewType("Epoch", int)
"""A writer generation: raised by one at every read-write open."""

SeqNo = NewType("SeqNo", int)
"""Position of a commit in the volume's single sequence."""

ManifestId = NewType("ManifestId", int)
"""Number of a manifest object; consecutive."""

WalId = NewType("WalId", int)
"""Number of a WAL object; consecutive, without gaps."""

VOLUME_ID_SIZE = 16
"""Bytes of the random volume id."""

PUT_ID_SIZE = 16
"""Bytes of the random id that tells our own conditional put from somebody else's."""

EPOCH_TOKEN_SIZE = 16
"""Bytes of the random token that binds meta blocks and WAL records to the writer that made them."""
