"""What all decorators share: every call of a store goes through one method, with a value that says what it is.

A decorator is an ObjectStore around another one. It overrides `_around` and nothing else.
"""

import enum
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from zerofs.objectstore.api import Body, ObjectInfo, ObjectStore, body_size

T = TypeVar("T")


class Kind(enum.StrEnum):
    """The calls of a store, as metrics name them. `get_versioned` counts as `get`."""

    GET = "get"
    HEAD = "head"
    PUT = "put"
    PUT_IF_ABSENT = "put_if_absent"
    PUT_IF_MATCH = "put_if_match"
    DELETE = "delete"
    LIST = "list"

    @property
    def conditional(self) -> bool:
        """Whether repeating the call could turn success into failure."""
        return self in (Kind.PUT_IF_ABSENT, Kind.PUT_IF_MATCH)

    @property
    def changes(self) -> bool:
        """Whether the call has an effect on the store."""
        return self.conditional or self in (Kind.PUT, Kind.DELETE)


class Request(NamedTuple):
    """One call: its kind, the name or prefix that it is about, and the bytes of body that it sends."""

    kind: Kind
    name: str
    sent_bytes: int = 0


class StoreDecorator:
    """Forwards everything through `_around`."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    async def _around(self, request: Request, call: Callable[[], Awaitable[T]]) -> T:
        """Answer `request`. `call` makes it on the inner store, once each time it is called."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The inner store's."""
        return self._inner.url

    async def get(
        self, name: str, start: int = 0, length: int | None = None, *, limit_bytes: int | None = None
    ) -> bytes:
        """See ObjectStore.get."""
        return await self._around(
            Request(Kind.GET, name), lambda: self._inner.get(name, start, length, limit_bytes=limit_bytes)
        )

    async def get_versioned(self, name: str, *, limit_bytes: int | None = None) -> tuple[bytes, str]:
        """See ObjectStore.get_versioned."""
        return await self._around(
            Request(Kind.GET, name), lambda: self._inner.get_versioned(name, limit_bytes=limit_bytes)
        )

    async def head(self, name: str) -> ObjectInfo:
        """See ObjectStore.head."""
        return await self._around(Request(Kind.HEAD, name), lambda: self._inner.head(name))

    async def put(self, name: str, body: Body) -> None:
        """See ObjectStore.put."""
        await self._around(Request(Kind.PUT, name, body_size(body)), lambda: self._inner.put(name, body))

    async def put_if_absent(self, name: str, body: Body, put_id: bytes) -> None:
        """See ObjectStore.put_if_absent."""
        request = Request(Kind.PUT_IF_ABSENT, name, body_size(body))
        await self._around(request, lambda: self._inner.put_if_absent(name, body, put_id))

    async def put_if_match(self, name: str, body: Body, version: str, put_id: bytes) -> None:
        """See ObjectStore.put_if_match."""
        request = Request(Kind.PUT_IF_MATCH, name, body_size(body))
        await self._around(request, lambda: self._inner.put_if_match(name, body, version, put_id))

    async def delete(self, name: str) -> None:
        """See ObjectStore.delete."""
        await self._around(Request(Kind.DELETE, name), lambda: self._inner.delete(name))

    async def list(self, prefix: str, start_after: str = "") -> list[ObjectInfo]:
        """See ObjectStore.list."""
        return await self._around(Request(Kind.LIST, prefix), lambda: self._inner.list(prefix, start_after))

    async def aclose(self) -> None:
        """Closes the inner store."""
        await self._inner.aclose()
