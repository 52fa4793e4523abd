"""Registers and back-references: how much of a chunk SST is referred to, and by whom (docs/format/objects.md, 0009).

Register
    key     `spaceL` ‖ epoch, u32 big-endian ‖ counter, u64 big-endian
    value   live bytes, u64 little-endian ‖ frame bytes, u64 little-endian

Live bytes are the sum of the frame lengths of all pointer rows in the runs of the chunk tree, hidden rows included.
There is no row for an SST that nothing refers to.

Back-reference: a frame has one more key than the one in the directory of its SST.
    key     `spaceB` ‖ epoch, u32 big-endian ‖ counter, u64 big-endian ‖ offset, u32 big-endian ‖ the other key
    value   empty
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple, final

from zerofs.errors import CorruptionError
from zerofs.lsm.format.names import MAX_COUNTER, MAX_EPOCH, SstId
from zerofs.lsm.format.pointer import IN_SST, Pointer, decode_pointer
from zerofs.lsm.format.rows import POINTER, Row

REGISTERS = (b"spaceL", b"spaceM")
"""The key range of all registers."""

_BACK_REFERENCE = b"spaceB"

_KEY = struct.Struct(">6sIQ")
_OFFSET = struct.Struct(">I")
_VALUE = struct.Struct("<QQ")


@final
class Register(NamedTuple):
    """One chunk SST: bytes of frames that are referred to, bytes of all its frames."""

    live_bytes: int
    frame_bytes: int


def register_key(sst: SstId) -> bytes:
    """The key of the register of a chunk SST."""
    return _KEY.pack(REGISTERS[0], *sst)


def parse_register_key(key: bytes) -> SstId:
    """The chunk SST that a register is for. Raises CorruptionError for any other key."""
    if len(key) != _KEY.size or not key.startswith(REGISTERS[0]):
        raise CorruptionError("a row among the registers has a key of another form")
    _, epoch, counter = _KEY.unpack(key)
    if epoch > MAX_EPOCH or counter > MAX_COUNTER:
        raise CorruptionError("a register is for an SST that cannot be")
    return epoch, counter


def encode_register(register: Register) -> bytes:
    """The 16 bytes of a register."""
    return _VALUE.pack(*register)


def decode_register(value: bytes) -> Register:
    """A register from its 16 bytes. Raises CorruptionError: wrong length, or nothing live."""
    if len(value) != _VALUE.size:
        raise CorruptionError(f"register of {len(value)} bytes instead of {_VALUE.size}")
    register = Register._make(_VALUE.unpack(value))
    if not register.live_bytes:
        raise CorruptionError("a register with nothing live")
    return register


def back_reference_key(pointer: Pointer, key: bytes) -> bytes:
    """The key of the row that says: `key`, too, points to this frame."""
    return _KEY.pack(_BACK_REFERENCE, pointer.epoch, pointer.number) + _OFFSET.pack(pointer.offset) + key


def back_references(sst: SstId) -> tuple[bytes, bytes]:
    """The key range of all back-references into a chunk SST."""
    epoch, counter = sst
    return _KEY.pack(_BACK_REFERENCE, epoch, counter), _KEY.pack(_BACK_REFERENCE, epoch, counter + 1)


def parse_back_reference(key: bytes) -> tuple[int, bytes]:
    """Offset of the frame, and the key that points to it, of one back-reference. Raises CorruptionError."""
    start = _KEY.size + _OFFSET.size
    if len(key) <= start or not key.startswith(_BACK_REFERENCE):
        raise CorruptionError("a row among the back-references has a key of another form")
    return _OFFSET.unpack_from(key, _KEY.size)[0], key[start:]


def referred_bytes(rows: Iterable[Row]) -> dict[SstId, int]:
    """Bytes of frames that the pointer rows among `rows` refer to, by chunk SST."""
    referred: dict[SstId, int] = {}
    for _, kind, value in rows:
        if kind == POINTER:
            pointer = decode_pointer(value)
            if pointer.holder == IN_SST:
                sst = pointer.epoch, pointer.number
                referred[sst] = referred.get(sst, 0) + pointer.length
    return referred
