"""Where a chunk's frame lies: the value of a POINTER row (docs/format/objects.md).

offset  size  field (little-endian)
     0     1  holder: 0 = chunk SST, 1 = WAL object
     1     4  epoch of the SST; 0 for a WAL object
     5     8  counter of the SST; id of the WAL object
    13     4  offset of the frame in the object, bytes
    17     4  length of the frame, bytes
    21     2  size of the chunk when opened, bytes (1 to 32,768)
    23    24  nonce of the frame: its identity
"""

import struct
from typing import NamedTuple, final

from zerofs.errors import CorruptionError
from zerofs.lsm.format.names import sst_name, wal_name
from zerofs.units import CHUNK_SIZE

IN_SST = 0
IN_WAL = 1
NONCE_SIZE = 24
POINTER_SIZE = 47

_LAYOUT = struct.Struct("<BIQIIH24s")


@final
class Pointer(NamedTuple):
    """A frame's place, size when opened, and identity."""

    holder: int
    epoch: int
    number: int
    offset: int
    length: int
    size: int
    nonce: bytes

    @property
    def object_name(self) -> str:
        """The object that holds the frame."""
        return wal_name(self.number) if self.holder == IN_WAL else sst_name((self.epoch, self.number))


def encode_pointer(pointer: Pointer) -> bytes:
    """The 47 bytes of a pointer."""
    return _LAYOUT.pack(*pointer)


def decode_pointer(data: bytes) -> Pointer:
    """A pointer from its 47 bytes. Raises CorruptionError for a wrong length, holder or size."""
    if len(data) != POINTER_SIZE:
        raise CorruptionError(f"chunk pointer: {len(data)} bytes instead of {POINTER_SIZE}")
    fields = _LAYOUT.unpack(data)
    holder, epoch, size = fields[0], fields[1], fields[5]
    if holder > IN_WAL or not 0 < size <= CHUNK_SIZE or (holder == IN_WAL and epoch):
        raise CorruptionError("chunk pointer: holder or size out of range")
    return tuple.__new__(Pointer, fields)
