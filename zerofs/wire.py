"""A bounds-checked cursor over bytes, and its writing twin: what every format room is built on.

Not a serialisation framework: a format room names each field itself, in order. Integers are little-endian and of fixed
width, or LEB128 varints (`uvarint`). Any read beyond the end, any length above its stated limit, and any bytes left
over raise `CorruptionError` before memory is allocated for them.
"""

import struct
from functools import lru_cache

from zerofs.errors import CorruptionError

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_I64 = struct.Struct("<q")


class Reader:
    """Reads fields one after the other from `data`; `what` names the record in error messages."""

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self._data = data
        self._offset = 0
        self._what = what

    def _advance(self, size: int) -> int:
        start = self._offset
        if size > len(self._data) - start:
            raise CorruptionError(f"{self._what}: cut short at byte {start}: {size} more expected")
        self._offset = start + size
        return start

    def u8(self) -> int:
        """One byte."""
        return self._data[self._advance(1)]

    def u32(self) -> int:
        """Four bytes, little-endian."""
        return int(_U32.unpack_from(self._data, self._advance(4))[0])

    def u64(self) -> int:
        """Eight bytes, little-endian."""
        return int(_U64.unpack_from(self._data, self._advance(8))[0])

    def i64(self) -> int:
        """Eight bytes, little-endian, two's complement."""
        return int(_I64.unpack_from(self._data, self._advance(8))[0])

    def uvarint(self) -> int:
        """A LEB128 integer below 2**64, in its shortest form."""
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (byte == 0 and shift) or value >= 1 << 64:
                    raise CorruptionError(f"{self._what}: malformed varint before byte {self._offset}")
                return value
            shift += 7
            if shift > 63:
                raise CorruptionError(f"{self._what}: malformed varint before byte {self._offset}")

    def raw(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        start = self._advance(size)
        return bytes(self._data[start : start + size])

    def sized(self, limit: int) -> bytes:
        """A varint length of at most `limit`, then that many bytes."""
        return self.raw(self.bounded(limit))

    def bounded(self, limit: int) -> int:
        """A varint that must not exceed `limit`: a length or a count."""
        value = self.uvarint()
        if value > limit:
            raise CorruptionError(f"{self._what}: length {value} exceeds the limit of {limit}")
        return value

    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._offset

    def expect_end(self) -> None:
        """Raise CorruptionError if bytes are left over."""
        if self.remaining():
            raise CorruptionError(f"{self._what}: {self.remaining()} bytes left over")


@lru_cache(maxsize=4096)
def _uvarint(value: int) -> bytes:
    """A LEB128 integer. Cached: lengths are mostly the same few."""
    out = bytearray()
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Writer:
    """Collects fields; `getvalue` returns them joined. The caller keeps values within their field's width."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u8(self, value: int) -> "Writer":
        """One byte."""
        self._parts.append(value.to_bytes(1, "little"))
        return self

    def u32(self, value: int) -> "Writer":
        """Four bytes, little-endian."""
        self._parts.append(_U32.pack(value))
        return self

    def u64(self, value: int) -> "Writer":
        """Eight bytes, little-endian."""
        self._parts.append(_U64.pack(value))
        return self

    def i64(self, value: int) -> "Writer":
        """Eight bytes, little-endian, two's complement."""
        self._parts.append(_I64.pack(value))
        return self

    def uvarint(self, value: int) -> "Writer":
        """A LEB128 integer."""
        self._parts.append(_uvarint(value))
        return self

    def raw(self, data: bytes) -> "Writer":
        """The bytes as they are."""
        self._parts.append(data)
        return self

    def sized(self, data: bytes) -> "Writer":
        """A varint length, then the bytes."""
        return self.uvarint(len(data)).raw(data)

    def getvalue(self) -> bytes:
        """All fields so far."""
        return b"".join(self._parts)
