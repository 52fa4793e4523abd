"""The 64 clear bytes at the start of every object that a writer creates (docs/format/objects.md).

    offset  size  field
         0     4  magic: "ZFSM" manifest, "ZFSW" WAL, "ZFSS" meta SST, "ZFSC" chunk SST, "ZFSF" floor
         4     2  format version, u16 little-endian: 1
         6     2  zero
         8     8  epoch, u64 little-endian
        16    16  put-id: random, tells our own conditional put from somebody else's
        32    16  volume id
        48     8  length of the first section, u64 little-endian
        56     8  length of the second section, u64 little-endian

The header is not secret. It is authenticated: manifests, the floor and WAL records take its first 48 bytes as AAD, SSTs
bind what follows to the epoch token that only the holder of the manifest knows; a wrong length cuts a section that then
does not open.
"""

import struct
from dataclasses import dataclass

from zerofs.errors import CorruptionError, UnsupportedFormatError

HEADER_SIZE = 64
FORMAT_VERSION = 1

MANIFEST_MAGIC = b"ZFSM"
FLOOR_MAGIC = b"ZFSF"
WAL_MAGIC = b"ZFSW"
META_SST_MAGIC = b"ZFSS"
CHUNK_SST_MAGIC = b"ZFSC"

_LAYOUT = struct.Struct("<4sHHQ16s16sQQ")


@dataclass(slots=True, frozen=True, kw_only=True)
class Header:
    """What an object says of itself in clear. Lengths in bytes."""

    magic: bytes
    epoch: int
    put_id: bytes
    volume_id: bytes
    first_length: int
    second_length: int = 0

    @property
    def object_size(self) -> int:
        """Bytes of the whole object."""
        return HEADER_SIZE + self.first_length + self.second_length


def encode_header(header: Header) -> bytes:
    """The 64 bytes of a header."""
    return _LAYOUT.pack(
        header.magic,
        FORMAT_VERSION,
        0,
        header.epoch,
        header.put_id,
        header.volume_id,
        header.first_length,
        header.second_length,
    )


def header_identity(header: Header) -> bytes:
    """The first 48 bytes: all but the lengths, which are not known yet when a section is sealed.

    Used as AAD. A wrong length needs no AAD to be found: the section that it cuts does not open.
    """
    return encode_header(header)[:48]


def decode_header(data: bytes, *, magic: bytes, volume_id: bytes, name: str) -> Header:
    """The header at the start of `data`, checked against the object's kind and volume.

    Raises CorruptionError naming the object: too short, wrong kind, another volume's; UnsupportedFormatError for one
    that says that it is of a newer version.
    """
    if len(data) < HEADER_SIZE:
        raise CorruptionError(f"{name}: {len(data)} bytes, shorter than a header")
    found, version, zero, epoch, put_id, volume, first, second = _LAYOUT.unpack_from(data)
    if found != magic or zero:
        raise CorruptionError(f"{name}: not an object of kind {magic.decode()}")
    if version > FORMAT_VERSION:
        raise UnsupportedFormatError(
            f"{name}: format version {version}; this zerofs reads version {FORMAT_VERSION}: use a newer zerofs, or "
            "restore the object from a backup if it was altered"
        )
    if version < FORMAT_VERSION:
        raise CorruptionError(f"{name}: format version {version}, which never was")
    if volume != volume_id:
        raise CorruptionError(f"{name}: belongs to another volume")
    return Header(magic=magic, epoch=epoch, put_id=put_id, volume_id=volume, first_length=first, second_length=second)


def decode_whole_header(data: bytes, *, magic: bytes, volume_id: bytes, name: str) -> Header:
    """Like `decode_header`, and the object must have exactly the size that its header tells."""
    header = decode_header(data, magic=magic, volume_id=volume_id, name=name)
    if header.object_size != len(data):
        raise CorruptionError(f"{name}: {len(data)} bytes, its header tells {header.object_size}")
    return header
