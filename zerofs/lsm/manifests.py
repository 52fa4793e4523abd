"""Loading the latest manifest, and creating the next one: the compare-and-swap of the volume (decision 0003)."""

import hashlib
from dataclasses import replace

from zerofs.errors import CorruptionError, FencedError, PreconditionFailedError
from zerofs.lsm.floor import Floor
from zerofs.lsm.format.header import (
    HEADER_SIZE,
    MANIFEST_MAGIC,
    Header,
    decode_whole_header,
    encode_header,
    header_identity,
)
from zerofs.lsm.format.manifest import MAX_MANIFEST_SIZE, NO_DIGEST, Manifest, decode_manifest, encode_manifest
from zerofs.lsm.format.names import FLOOR_NAME, MANIFEST_PREFIX, manifest_name, parse_manifest_name
from zerofs.lsm.storage import Storage, missing
from zerofs.world import Lane

OFFLOAD_FROM_BYTES = 1 << 20


class ManifestLost(Exception):
    """Somebody else created the manifest with the id that we wanted."""


class ManifestStore:
    """The chain of manifests of one volume. Remembers the digest of the newest one that it saw."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.floor = Floor(storage)
        self._digest = NO_DIGEST
        self._digest_of = 0

    async def latest(self) -> Manifest | None:
        """The newest manifest, verified against its predecessor; None when there is no manifest at all.

        A LIST may lag behind, so the ids above what it shows are asked for by name until one is absent.
        """
        names = [info.name for info in await self._storage.store.list(MANIFEST_PREFIX) if info.name != FLOOR_NAME]
        if not names:
            return None
        manifest_id = int(parse_manifest_name(names[-1]))
        body = await self._storage.store.get(names[-1])
        while (newer := await self._storage.get_or_none(manifest_name(manifest_id + 1))) is not None:
            manifest_id += 1
            body = newer
        manifest = self._open(manifest_id, body)
        await self._check_predecessor(manifest)
        self._remember(manifest_id, body)
        return manifest

    async def load(self, manifest_id: int) -> Manifest:
        """The manifest of an id that something refers to. Raises CorruptionError, MissingObjectError."""
        body = await self._storage.get_or_none(manifest_name(manifest_id))
        if body is None:
            raise missing(manifest_name(manifest_id))
        return self._open(manifest_id, body)

    async def newer_than(self, manifest: Manifest) -> Manifest | None:
        """The newest manifest above the given one, or None. Two GETs when there is none.

        The next id may have been created and deleted again while its predecessor's writer slept. The floor tells.
        """
        newest = None
        manifest_id = manifest.manifest_id + 1
        while (body := await self._storage.get_or_none(manifest_name(manifest_id))) is not None:
            newest = self._open(manifest_id, body)
            manifest_id += 1
        if newest is None and await self.floor.get() > manifest.manifest_id:
            newest = await self.latest()
        return newest

    async def create(self, manifest: Manifest) -> Manifest:
        """Create `manifest` under its id, naming its predecessor, and return it as stored.

        Raises ManifestLost when the id is taken, or was once taken and deleted (the floor).
        """
        storage = self._storage
        put_id = storage.new_put_id()
        digest = self._digest if self._digest_of == manifest.manifest_id - 1 else NO_DIGEST
        manifest = replace(manifest, put_id=put_id, predecessor_digest=digest)
        text = encode_manifest(manifest)
        name = manifest_name(manifest.manifest_id)
        header = Header(
            magic=MANIFEST_MAGIC, epoch=manifest.epoch, put_id=put_id, volume_id=storage.volume_id, first_length=0
        )
        place = name.encode("ascii") + b"\0" + header_identity(header)
        seal = storage.sealers.manifest.seal
        nonce = storage.nonces(1)
        if len(text) >= OFFLOAD_FROM_BYTES:
            frame = await storage.world.offload(Lane.CPU, seal, text, place, nonce)
        else:
            frame = seal(text, place, nonce)
        body = encode_header(replace(header, first_length=len(frame))) + frame
        try:
            await storage.create(name, [body], put_id)
        except PreconditionFailedError as error:
            raise ManifestLost(name) from error
        if await self.floor.get() > manifest.manifest_id:
            raise ManifestLost(f"{name}: below the floor")
        self._remember(manifest.manifest_id, body)
        storage.metrics.add("manifests")
        return manifest

    def _open(self, manifest_id: int, body: bytes) -> Manifest:
        storage = self._storage
        name = manifest_name(manifest_id)
        header = decode_whole_header(body, magic=MANIFEST_MAGIC, volume_id=storage.volume_id, name=name)
        place = name.encode("ascii") + b"\0" + header_identity(header)
        try:
            text = storage.sealers.manifest.open(body[HEADER_SIZE:], place, MAX_MANIFEST_SIZE)
        except CorruptionError as error:
            raise CorruptionError(f"{name}: {error}") from error
        manifest = decode_manifest(text, epoch=header.epoch, put_id=header.put_id, name=name)
        if manifest.manifest_id != manifest_id:
            raise CorruptionError(f"{name}: holds manifest {manifest.manifest_id}")
        return manifest

    async def _check_predecessor(self, manifest: Manifest) -> None:
        """The predecessor, while it is still there, must be the object that its successor was made from."""
        if manifest.predecessor_digest == NO_DIGEST:
            return
        name = manifest_name(manifest.manifest_id - 1)
        body = await self._storage.get_or_none(name)
        if body is None:
            # A predecessor below the floor may be gone. One that is deleted at this moment is below it, too.
            if await self.floor.get() < manifest.manifest_id:
                raise CorruptionError(f"{name}: missing, although its successor builds on it")
        elif hashlib.sha256(body).digest() != manifest.predecessor_digest:
            raise CorruptionError(f"{name}: not the manifest that its successor was made from")

    def _remember(self, manifest_id: int, body: bytes) -> None:
        self._digest = hashlib.sha256(body).digest()
        self._digest_of = manifest_id


def fenced(manifest: Manifest) -> FencedError:
    """The error of a writer that finds a newer writer's manifest."""
    writer = manifest.writer
    return FencedError(
        f"another writer took over this volume: pid {writer.pid} on {writer.host}, "
        f"mountpoint {writer.mountpoint or '(none)'}"
    )
