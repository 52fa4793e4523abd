"""Where SSTs lie and what opens them: this volume's own store and keys, or those of a clone's sources (decision 0016).

The one seam between an SST's id and its bytes. The epoch decides. A volume never gains a source after it was made, so
whatever manifest is opened may add to what is known here, and nothing has to be taken away.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from zerofs.errors import (
    ConfigError,
    CorruptionError,
    MissingObjectError,
    ObjectNotFoundError,
    ObjectStoreError,
    RangeError,
)
from zerofs.ids import KeyId
from zerofs.lsm.format.foreign import Foreign
from zerofs.lsm.format.names import MAX_EPOCH
from zerofs.objectstore.api import ObjectInfo, ObjectStore
from zerofs.objectstore.open import local_device
from zerofs.transform.compression import DEFAULT_COMPRESSION
from zerofs.transform.frame import Kind, Sealer
from zerofs.world import World

OpenSource = Callable[[str], ObjectStore]
"""The store at a URL; makes no request. Raises ConfigError."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Origin:
    """One volume's store, and the sealers of its SSTs. Those of a foreign one only open."""

    store: ObjectStore
    volume_id: bytes
    block: Sealer
    index: Sealer
    chunk: Sealer
    directory: Sealer
    last_epoch: int = MAX_EPOCH
    """SSTs of epochs up to this one lie here, but for those of an origin with a lower one."""
    source: str = ""
    """The URL of a foreign volume; empty for this volume itself."""
    device: int | None = None
    """The local disk that the store is on, if it is on one."""

    @property
    def where(self) -> str:
        """What to add to an object's name in a message: the source of a clone; nothing for this volume itself."""
        return f" in the source of this clone, {self.source}" if self.source else ""

    async def get_part(self, name: str, start: int, length: int) -> bytes:
        """Part of an object that something refers to. Missing or too short is corruption, named."""
        with self._naming(name), self._referred(name):
            return await self.store.get(name, start, length)

    async def get(self, name: str, limit_bytes: int) -> bytes:
        """A whole object that something refers to. Errors as of `get_part`."""
        with self._naming(name), self._referred(name):
            return await self.store.get(name, limit_bytes=limit_bytes)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """The objects below a prefix. Raises ObjectStoreError, which names a source."""
        with self._naming(prefix):
            return await self.store.list(prefix)

    @contextlib.contextmanager
    def _referred(self, name: str) -> Iterator[None]:
        try:
            yield
        except ObjectNotFoundError as error:
            raise MissingObjectError(f"{name}: missing{self.where}, although the volume refers to it") from error
        except RangeError as error:
            raise CorruptionError(f"{name}: cut short{self.where}: {error}") from error

    @contextlib.contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """An error of a source's store says whose it is."""
        try:
            yield
        except ObjectStoreError as error:
            if not self.source:
                raise
            raise type(error)(f"{name}{self.where}: {error}") from error


class Origins:
    """The origins of one volume's SSTs. To open a source makes no request."""

    def __init__(self, own: Origin, world: World, open_source: OpenSource | None = None) -> None:
        self.own = own
        self._world = world
        self._open_source = open_source
        self._foreign: list[Origin] = []
        self._stores: dict[str, ObjectStore] = {}
        self._opened: list[ObjectStore] = []

    def of(self, epoch: int) -> Origin:
        """Where the SSTs of an epoch lie."""
        for origin in self._foreign:
            if epoch <= origin.last_epoch:
                return origin
        return self.own

    def all(self) -> Sequence[Origin]:
        """Every origin, this volume's own last."""
        return [*self._foreign, self.own]

    def learn(self, table: Iterable[Foreign]) -> None:
        """Take in the foreign table of a manifest of this volume. Raises ConfigError when a source cannot be opened."""
        known = {origin.last_epoch for origin in self._foreign}
        for source in table:
            if source.is_read and source.last_epoch not in known:
                self._foreign.append(self._made(source))
                self._foreign.sort(key=lambda origin: origin.last_epoch)

    async def aclose(self) -> None:
        """Close the stores of the sources."""
        while self._opened:
            await self._opened.pop().aclose()

    def _made(self, source: Foreign) -> Origin:
        def sealer(kind: Kind, keys: Mapping[KeyId, bytes]) -> Sealer:
            # A worker is given the keys of blocks alone; under this one nothing opens, anywhere.
            subkeys = keys or {KeyId(0): self._world.entropy(32)}
            return Sealer(
                volume_id=source.volume_id,
                kind=kind,
                subkeys=subkeys,
                current=max(subkeys),
                compression=DEFAULT_COMPRESSION,  # what is foreign is never sealed
            )

        store = self._store_at(source.url)
        return Origin(
            store=store,
            volume_id=source.volume_id,
            block=sealer(Kind.META_BLOCK, source.block_keys),
            index=sealer(Kind.META_INDEX, source.block_keys),
            chunk=sealer(Kind.CHUNK, source.chunk_keys),
            directory=sealer(Kind.CHUNK_DIRECTORY, source.chunk_keys),
            last_epoch=source.last_epoch,
            source=source.url,
            device=local_device(store.url),
        )

    def _store_at(self, url: str) -> ObjectStore:
        if url not in self._stores:
            if self._open_source is None:
                raise ConfigError(f"this volume is a clone of {url}, which cannot be opened here")
            self._stores[url] = self._open_source(url)
            self._opened.append(self._stores[url])
        return self._stores[url]
