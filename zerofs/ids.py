"""Names for numbers that must not be mixed up."""

from typing import NewType

KeyId = NewType("KeyId", int)
"""A DEK generation, u32, first in every frame."""

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

CHECKPOINT_ID_SIZE = 16
"""Bytes of the random id of a checkpoint."""
