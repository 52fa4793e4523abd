"""A value that must not be seen: passwords, keys.

Python cannot guarantee that no copy of a secret is left in memory. This class keeps secrets out of what is *written*:
repr, str, format, pickle, deep copies, comparisons that leak by timing. It is no protection against a debugger.
"""

import hmac
from typing import NoReturn, final


@final
class Secret:
    """Bytes that show themselves only through `reveal`.

    A secret has no `==` and no hash: use `matches`. It cannot be pickled or copied, so it never crosses to another
    process by accident.
    """

    __slots__ = ("_buffer",)

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: bytes | bytearray) -> None:
        self._buffer = bytearray(value)

    def reveal(self) -> bytes:
        """The bytes. Keep the result in a local variable, for as short a time as possible."""
        return bytes(self._buffer)

    def matches(self, other: "Secret") -> bool:
        """Whether both hold the same bytes, in a time that depends on their lengths only."""
        return hmac.compare_digest(self._buffer, other._buffer)

    def wipe(self) -> None:
        """Overwrite the bytes and forget them. Best effort: copies that `reveal` gave are beyond reach."""
        self._buffer[:] = bytes(len(self._buffer))
        self._buffer.clear()

    def __repr__(self) -> str:
        return "Secret(…)"

    def __format__(self, format_spec: str) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secrets are compared with matches()")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")
