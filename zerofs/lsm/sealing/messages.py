"""What a mount and its sealing process say to each other: one packet a message, both of one version of zerofs.

    hello    version, layout, size of a slot  the child
    setup    volume id (16) ‖ key id (u32) ‖ key (32) ‖ compression as in the settings
    ready    a zero byte                     the child
    batch    slot of texts (u32) ‖ slot of frames (u32) ‖ number of chunks (u32)
    sealed   slot of texts (u32)             the child

The setup is secret. With it comes the arena's descriptor, after the hello: from then on nobody else can look into the
child.
"""

import struct
from dataclasses import dataclass, field

from zerofs import __version__
from zerofs.crypto.aead import KEY_SIZE
from zerofs.ids import VOLUME_ID_SIZE, KeyId
from zerofs.lsm.sealing.arena import LAYOUT, SLOT_SIZE
from zerofs.transform.compression import Compression

PACKET_MAX = 4096
"""Longer than any message."""

HELLO = f"zerofs {__version__} {LAYOUT} {SLOT_SIZE}".encode()
"""Differs where a newer package was installed under a mount: it might lay slots out in another way."""

READY = b"\0"

_SETUP = struct.Struct(f"<{VOLUME_ID_SIZE}sI{KEY_SIZE}s")
_BATCH = struct.Struct("<III")
_SEALED = struct.Struct("<I")


@dataclass(slots=True, frozen=True, kw_only=True)
class Setup:
    """What the child has to know: how to seal chunks, and nothing else. Holds a secret, which its repr leaves out."""

    volume_id: bytes
    key_id: KeyId
    key: bytes = field(repr=False)
    """The present subkey of `Purpose.CHUNKS`."""
    compression: Compression


def encode_setup(setup: Setup) -> bytes:
    """Secret: for the child's socket alone."""
    return _SETUP.pack(setup.volume_id, setup.key_id, setup.key) + str(setup.compression).encode()


def decode_setup(packet: bytes) -> Setup:
    """Raises struct.error, ConfigError, UnicodeDecodeError; none of them repeats the key."""
    volume_id, key_id, key = _SETUP.unpack_from(packet)
    compression = Compression.parse(packet[_SETUP.size :].decode())
    return Setup(volume_id=volume_id, key_id=KeyId(key_id), key=key, compression=compression)


def encode_batch(slot: int, target: int, count: int) -> bytes:
    """Seal what is in this slot into that one."""
    return _BATCH.pack(slot, target, count)


def decode_batch(packet: bytes) -> tuple[int, int, int]:
    """Slot of texts, slot of frames and number of chunks. Raises struct.error."""
    slot, target, count = _BATCH.unpack(packet)
    return slot, target, count


def encode_sealed(slot: int) -> bytes:
    """The texts of this slot are sealed."""
    return _SEALED.pack(slot)


def decode_sealed(packet: bytes) -> int:
    """The slot. Raises struct.error."""
    (slot,) = _SEALED.unpack(packet)
    return int(slot)
