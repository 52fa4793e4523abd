"""Objects in a dict: `memory://`, and the ground that simulated stores stand on. Nothing survives the process."""

from typing import final

from zerofs.errors import ObjectNotFoundError, PreconditionFailedError
from zerofs.objectstore.api import Body, ObjectInfo, check_limit, check_name, check_prefix, join_body, range_size


@final
class MemoryStore:
    """An ObjectStore that answers at once, without a checkpoint. Closing it keeps the objects: it can be used again."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._puts = 0

    @property
    def url(self) -> str:
        """Always `memory://`."""
        return "memory://"

    async def get(
        self, name: str, start: int = 0, length: int | None = None, *, limit_bytes: int | None = None
    ) -> bytes:
        """See ObjectStore.get."""
        data, _ = self._find(name)
        size = range_size(name, len(data), start, length)
        check_limit(name, self.url, size, limit_bytes)
        return data if size == len(data) else data[start : start + size]

    async def get_versioned(self, name: str, *, limit_bytes: int | None = None) -> tuple[bytes, str]:
        """See ObjectStore.get_versioned."""
        data, version = self._find(name)
        check_limit(name, self.url, len(data), limit_bytes)
        return data, version

    async def head(self, name: str) -> ObjectInfo:
        """See ObjectStore.head."""
        data, version = self._find(name)
        return ObjectInfo(name=name, size_bytes=len(data), version=version)

    async def put(self, name: str, body: Body) -> None:
        """See ObjectStore.put."""
        self._store(check_name(name), body)

    async def put_if_absent(self, name: str, body: Body, put_id: bytes) -> None:
        """See ObjectStore.put_if_absent. The put-id is in the body."""
        if check_name(name) in self._objects:
            raise PreconditionFailedError(f"{name} exists already in {self.url}")
        self._store(name, body)

    async def put_if_match(self, name: str, body: Body, version: str, put_id: bytes) -> None:
        """See ObjectStore.put_if_match. The put-id is in the body."""
        found = self._objects.get(check_name(name))
        if found is None or found[1] != version:
            raise PreconditionFailedError(f"{name} in {self.url} is no longer at version {version}")
        self._store(name, body)

    async def delete(self, name: str) -> None:
        """See ObjectStore.delete."""
        self._objects.pop(check_name(name), None)

    async def list(self, prefix: str, start_after: str = "") -> list[ObjectInfo]:
        """See ObjectStore.list."""
        check_prefix(prefix)
        return [
            ObjectInfo(name=name, size_bytes=len(data), version=version)
            for name, (data, version) in sorted(self._objects.items())
            if name.startswith(prefix) and name > start_after
        ]

    async def aclose(self) -> None:
        """Nothing to free."""

    def _find(self, name: str) -> tuple[bytes, str]:
        found = self._objects.get(check_name(name))
        if found is None:
            raise ObjectNotFoundError(f"there is no {name} in {self.url}")
        return found

    def _store(self, name: str, body: Body) -> None:
        self._puts += 1
        self._objects[name] = (join_body(body), str(self._puts))
