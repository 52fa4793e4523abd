"""Messages on a pipe: where one ends and the next begins. Pure.

    message     length, u32 little-endian ‖ so many bytes, at most MESSAGE_LIMIT_BYTES

What they say is the business of `messages`.
"""

import struct
from typing import final

from zerofs.errors import ZerofsError
from zerofs.units import MIB

MESSAGE_LIMIT_BYTES = 64 * MIB
"""A job of a hundred thousand SSTs."""

_LENGTH = struct.Struct("<I")


class MessageError(ZerofsError):
    """A message that breaks the rules of the conversation between writer and worker."""


def frame(payload: bytes) -> bytes:
    """A payload as it travels. Raises MessageError for one that is too long."""
    if len(payload) > MESSAGE_LIMIT_BYTES:
        raise MessageError(f"a message of {len(payload)} bytes; at most {MESSAGE_LIMIT_BYTES} may be sent")
    return _LENGTH.pack(len(payload)) + payload


@final
class Unframer:
    """Cuts what arrives, in whatever pieces, into payloads."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """Bytes that arrived."""
        self._buffer += data

    def take(self) -> bytes | None:
        """The next payload that is complete. Raises MessageError as soon as one announces too many bytes."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer)
        if size > MESSAGE_LIMIT_BYTES:
            raise MessageError(f"a message announces {size} bytes; at most {MESSAGE_LIMIT_BYTES} may come")
        stop = _LENGTH.size + size
        if len(self._buffer) < stop:
            return None
        payload = bytes(self._buffer[_LENGTH.size : stop])
        del self._buffer[:stop]
        return payload

    def end(self) -> None:
        """Nothing more comes. Raises MessageError when that cuts a message short."""
        if self._buffer:
            raise MessageError("the conversation ended within a message")
