"""JSON taken apart field by field: what a message lacks, or has too much of, is refused and never repeated. Pure."""

import re
from typing import NoReturn, final

from zerofs.lsm.compaction.framing import MessageError
from zerofs.lsm.format.rows import MAX_KEY_SIZE

_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_MAX_INT = 2**63 - 1


@final
class Fields:
    """A JSON object whose fields are taken one by one; at the end none may be left."""

    __slots__ = ("_left",)

    def __init__(self, value: object) -> None:
        self._left: dict[str, object] = dict(value) if isinstance(value, dict) else refuse("an object is missing")

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self._left

    def take(self, name: str) -> object:
        """A field of any kind."""
        return self._left.pop(name) if name in self._left else refuse(f"the field {name} is missing")

    def into(self, name: str) -> "Fields":
        """An object."""
        return Fields(self.take(name))

    def items(self, name: str) -> list[object]:
        """A list."""
        return as_items(self.take(name))

    def text(self, name: str) -> str:
        """A string."""
        return as_text(self.take(name))

    def text_or_none(self, name: str) -> str | None:
        """A string or null."""
        value = self.take(name)
        return None if value is None else as_text(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.take(name)
        return value if isinstance(value, bool) else refuse(f"the field {name} is neither true nor false")

    def number(self, name: str, limit: int = _MAX_INT) -> int:
        """An integer from 0 to `limit`."""
        return as_number(self.take(name), limit)

    def seconds(self, name: str) -> float:
        """A duration."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            refuse(f"the field {name} is no duration")
        return float(value)

    def data(self, name: str, size: int | None = None) -> bytes:
        """Bytes: exactly `size` of them, or any that a key could have."""
        return as_data(self.take(name), size)

    def end(self) -> None:
        """Nothing may be left."""
        if self._left:
            refuse("there are unknown fields")


def as_items(value: object, count: int | None = None) -> list[object]:
    """A list, of `count` items if that is given."""
    if not isinstance(value, list) or (count is not None and len(value) != count):
        refuse("a list is missing, or of another length")
    return value


def as_text(value: object) -> str:
    """A string."""
    return value if isinstance(value, str) else refuse("a string is missing")


def as_number(value: object, limit: int = _MAX_INT) -> int:
    """An integer from 0 to `limit`."""
    if type(value) is not int or not 0 <= value <= limit:  # not isinstance: true is no number
        refuse("a number is missing or out of range")
    return value


def as_data(value: object, size: int | None = None) -> bytes:
    """Bytes in hexadecimal: exactly `size` of them, or any that a key could have."""
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        refuse("bytes are missing")
    data = bytes.fromhex(value)
    if len(data) != size and (size is not None or len(data) > MAX_KEY_SIZE):
        refuse("bytes are of another length")
    return data


def refuse(problem: str) -> NoReturn:
    """Says what is wrong, and nothing of what was there."""
    raise MessageError(f"a message of the compaction worker is malformed: {problem}")
