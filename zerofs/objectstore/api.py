"""The contract of an object store. These docstrings are the law that every store and every decorator keeps.

`tests/contract` holds one suite for all of them. Nothing here does any work beyond checking names and ranges.

Names
    1 to 512 characters from `A-Z a-z 0-9 . _ -` in segments divided by single `/`. No segment is empty, `.`, `..`, or
    longer than 200 characters, and the first one is not `.zerofs_local` (the local store keeps its own things there).
    No object's name may be another's followed by `/…`: a directory could not hold both. Names sort by byte value.
    Anything else is refused with ObjectStoreError before a request is made.

Visibility
    Strong: once a put or delete has returned, every get, head and list that begins afterwards, by any client, shows it.
    An object appears whole or not at all. When a put or delete returns, its effect has reached stable storage.

What an error says about the effect
    PreconditionFailedError, ObjectNotFoundError, RangeError, and refusals of names: no effect, and that is known.
    UnavailableError: unknown. The request may have had its effect, may still have it later, or never. After a get,
    head or list this is harmless, and `put` and `delete` may simply be repeated. A conditional put may not: see
    `conditional`.
    Any other ObjectStoreError: permanent until somebody acts; a put or delete that ended so is also unknown.

Repetition
    Stores and decorators repeat get, head, list, put and delete as they like. Each call of put_if_absent and
    put_if_match sends exactly one request, once.

Scheduling
    All calls belong to the trio thread. A call may return without a checkpoint. Cancelling one leaves it as unknown as
    UnavailableError does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from zerofs.errors import CorruptionError, ObjectStoreError, RangeError

Piece = bytes | bytearray | memoryview
Body = Piece | Sequence[Piece]
"""Contents to put: one buffer, or pieces to be stored one after the other. Not to be changed until the put returns."""

MAX_NAME_SIZE = 512
MAX_SEGMENT_SIZE = 200

RESERVED_SEGMENT = ".zerofs_local"

_NAME = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_PREFIX = re.compile(r"(?:[A-Za-z0-9._-]+/)*[A-Za-z0-9._-]*")


@dataclass(slots=True, frozen=True, kw_only=True)
class ObjectInfo:
    """What a store knows about an object without reading it."""

    name: str
    size_bytes: int
    version: str
    """Opaque. Changes with every put of the object; compare for equality only."""


class ObjectStore(Protocol):
    """A flat namespace of immutable blobs that can be replaced whole. See the module for the general rules."""

    @property
    def url(self) -> str:
        """Where the objects are, for messages. Never holds credentials."""
        ...

    async def get(
        self, name: str, start: int = 0, length: int | None = None, *, limit_bytes: int | None = None
    ) -> bytes:
        """The bytes from `start`, `length` of them or up to the end; never fewer.

        Shape: 0 <= start; length >= 1 when given; the range lies inside the object. `start` 0 without a length is the
        whole object, which may be empty; any other `start` must be below the size. `limit_bytes`: the most that the
        answer may have; whoever asks for a whole object says how large its kind can be.
        Requests: one (S3: one for each 8 MiB of a length above 16 MiB).

        Raises:
            ObjectNotFoundError: there is no such object.
            UnavailableError: no answer, or fewer bytes than announced.
            RangeError: the range does not lie inside the object; the message has the size.
            CorruptionError: the answer would exceed `limit_bytes`. No memory was taken for it.
        """
        ...

    async def get_versioned(self, name: str, *, limit_bytes: int | None = None) -> tuple[bytes, str]:
        """The whole object and the version that these bytes have. Requests: one. Limit and errors as for `get`."""
        ...

    async def head(self, name: str) -> ObjectInfo:
        """Size and version. Requests: one. Raises ObjectNotFoundError, UnavailableError."""
        ...

    async def put(self, name: str, body: Body) -> None:
        """Store `body` under `name`, replacing what is there. Idempotent.

        A repeated put may land twice, the second time late: use it for names that are never deleted and put again.
        Requests: one (S3 above 64 MiB: one for each 16 MiB, and two).
        """
        ...

    async def put_if_absent(self, name: str, body: Body, put_id: bytes) -> None:
        """Store `body` unless the name is taken. Of any number of callers, exactly one succeeds.

        `put_id` is a random id, unique to this body, that also stands in the first 64 bytes of `body`; S3 keeps it in
        the object's metadata too. Requests: exactly one, never repeated.

        Raises:
            PreconditionFailedError: an object has the name, and it is durable. It may be this very put, if a proxy on
                the way repeated it: `conditional.create` looks.
            UnavailableError: unknown.
        """
        ...

    async def put_if_match(self, name: str, body: Body, version: str, put_id: bytes) -> None:
        """Replace the object if it still has `version`. Otherwise as `put_if_absent`.

        Raises:
            PreconditionFailedError: the object has another version, or is gone.
            UnavailableError: unknown.
        """
        ...

    async def delete(self, name: str) -> None:
        """Make the object not exist. Idempotent: one that is absent already is no error. Requests: one."""
        ...

    async def list(self, prefix: str, start_after: str = "") -> list[ObjectInfo]:
        """All objects whose names begin with the string `prefix` and sort after `start_after`, sorted by name.

        The prefix is a string, not a path: `a/b` finds `a/b`, `a/bc` and `a/b/c`. Complete for what existed during the
        whole call. Things in the store whose names break the rules above are not objects and are left out.
        Requests: one for each started thousand of results, at least one.
        """
        ...

    async def aclose(self) -> None:
        """Free connections. Idempotent; no other call may follow on a store that has any."""
        ...


def check_name(name: str) -> str:
    """The name itself. Raises ObjectStoreError if it breaks the rules of this module."""
    segments = name.split("/")
    if (
        not _NAME.fullmatch(name)
        or len(name) > MAX_NAME_SIZE
        or segments[0] == RESERVED_SEGMENT
        or any(segment in (".", "..") or len(segment) > MAX_SEGMENT_SIZE for segment in segments)
    ):
        raise ObjectStoreError(f"{name[:MAX_NAME_SIZE]!r} is not a name that an object may have")
    return name


def is_name(text: str) -> bool:
    """Whether `check_name` accepts the text."""
    try:
        check_name(text)
    except ObjectStoreError:
        return False
    return True


def check_prefix(prefix: str) -> str:
    """The prefix itself. Raises ObjectStoreError if no name can begin with it, or if it escapes."""
    folders = prefix.split("/")[:-1]
    if not _PREFIX.fullmatch(prefix) or any(folder in (".", "..") for folder in folders):
        raise ObjectStoreError(f"{prefix[:MAX_NAME_SIZE]!r} is not the beginning of any object's name")
    return prefix


def check_range(name: str, start: int, length: int | None) -> None:
    """Raise RangeError for a range that lies inside no object at all."""
    if start < 0 or (length is not None and length < 1):
        raise RangeError(f"{name}: start {start}, length {length} is not a range")


def range_size(name: str, size_bytes: int, start: int, length: int | None) -> int:
    """How many bytes `get` returns from an object of `size_bytes`. Raises RangeError as `get` does."""
    check_range(name, start, length)
    if length is None and (start < size_bytes or start == 0):
        return size_bytes - start
    if length is not None and start + length <= size_bytes:
        return length
    raise beyond_end(name, start, length, size_bytes)


def check_limit(name: str, url: str, size_bytes: int, limit_bytes: int | None) -> None:
    """Raise CorruptionError if `get` would return more than its caller expects of any object of that kind."""
    if limit_bytes is not None and size_bytes > limit_bytes:
        raise CorruptionError(f"{name} in {url}: {size_bytes} bytes; such an object has at most {limit_bytes}")


def beyond_end(name: str, start: int, length: int | None, size_bytes: int) -> RangeError:
    """The error for a range that does not lie inside its object."""
    return RangeError(f"{name}: {length or 'all'} bytes from {start} are not within its {size_bytes} bytes")


def body_pieces(body: Body) -> list[Piece]:
    """The pieces of a body; empty ones are left out. Nothing is copied."""
    if isinstance(body, bytes | bytearray | memoryview):
        return [body] if len(body) else []
    return [piece for piece in body if len(piece)]


def body_size(body: Body) -> int:
    """Bytes of a body."""
    if isinstance(body, bytes | bytearray | memoryview):
        return len(body)
    return sum(map(len, body))


def body_prefix(body: Body, size: int) -> bytes:
    """The first `size` bytes of a body, or all of a shorter one."""
    taken = bytearray()
    for piece in body_pieces(body):
        taken += memoryview(piece)[: size - len(taken)]
        if len(taken) >= size:
            break
    return bytes(taken)


def join_body(body: Body) -> bytes:
    """A body in one piece. Copies once, and not at all what is `bytes` already."""
    if isinstance(body, bytes):
        return body
    pieces = body_pieces(body)
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        return pieces[0]
    return b"".join(pieces)
