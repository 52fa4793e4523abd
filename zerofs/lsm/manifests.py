"""Loading the latest manifest, and creating the next one: the compare-and-swap of the volume (decision 0003)."""

import hashlib
from dataclasses import replace

from zerofs.errors import CorruptionError, FencedError, NoVolumeError, PreconditionFailedError, ZerofsError
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
from zerofs.lsm.format.names import MANIFEST_PREFIX, manifest_name, parse_manifest_name
from zerofs.lsm.storage import Storage, missing
from zerofs.transform.frame import FRAME_OVERHEAD
from zerofs.world import Lane

OFFLOAD_FROM_SSTS = 100
"""A manifest with more is encoded, checked and sealed on a thread: about 8 µs each that no request should wait for."""

LIST_TRIES = 4

MAX_MANIFEST_OBJECT_SIZE = HEADER_SIZE + MAX_MANIFEST_SIZE + FRAME_OVERHEAD


class ManifestLost(Exception):
    """Somebody else created the manifest with the id that we wanted."""


class ManifestStore:
    """The chain of manifests of one volume. Remembers the digest of the newest one that it saw."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.floor = Floor(storage)
        self._loaded: Manifest | None = None
        self._digest = NO_DIGEST
        self._digest_of = 0

    async def latest(self, *, to_claim: bool = False) -> Manifest | None:
        """The newest manifest, verified against its predecessor; None when there is no manifest at all.

        A LIST may lag behind, so the ids above what it shows are asked for by name until one is absent. Not so
        `to_claim`: whoever is about to create the next id is told by that if it is taken.
        """
        for _ in range(LIST_TRIES):
            ids = await self._storage.list_ids(MANIFEST_PREFIX, parse_manifest_name)
            if not ids:
                return None
            manifest_id = int(ids[-1])
            body = await self._get(manifest_id)
            if body is None or not to_claim:
                while (newer := await self._get(manifest_id + 1)) is not None:
                    manifest_id += 1
                    body = newer
            if body is not None:
                break  # else it was collected since it was listed
        else:
            raise missing(manifest_name(manifest_id))
        manifest = self._open(manifest_id, body)
        await self._check_predecessor(manifest)
        self._remember(manifest_id, body)
        self._loaded = manifest
        return manifest

    def take_loaded(self) -> Manifest | None:
        """What `latest` gave last, once: for whoever goes on with it, and will notice if it is not the newest."""
        loaded, self._loaded = self._loaded, None
        return loaded

    async def load(self, manifest_id: int) -> Manifest:
        """The manifest of an id that something refers to. Raises CorruptionError, MissingObjectError."""
        body = await self._get(manifest_id)
        if body is None:
            raise missing(manifest_name(manifest_id))
        return self._open(manifest_id, body)

    async def newer_than(self, manifest: Manifest) -> Manifest | None:
        """The newest manifest above the given one, or None. Two GETs when there is none.

        The next ids may have been created and deleted again while this one's writer slept, or be created by nobody who
        counts, below a gap. The floor tells.
        """
        newest = None
        manifest_id = manifest.manifest_id + 1
        while (body := await self._get(manifest_id)) is not None:
            newest = self._open(manifest_id, body)
            manifest_id += 1
        if await self.floor.get() > (newest or manifest).manifest_id:
            newest = await self.latest()
        return newest

    async def create(self, manifest: Manifest) -> Manifest:
        """Create `manifest` under its id, naming its predecessor, and return it as stored.

        Raises ManifestLost when the id is taken, or was once taken and deleted (the floor); ZerofsError, before
        anything was stored, for a manifest that could not be read back.
        """
        storage = self._storage
        put_id = storage.new_put_id()
        digest = self._digest if self._digest_of == manifest.manifest_id - 1 else NO_DIGEST
        manifest = replace(manifest, put_id=put_id, predecessor_digest=digest)
        name = manifest_name(manifest.manifest_id)
        nonce = storage.nonces(1)
        if manifest.sst_count >= OFFLOAD_FROM_SSTS:
            body = await storage.world.offload(Lane.CPU, self._seal, manifest, nonce)
        else:
            body = self._seal(manifest, nonce)
        try:
            await storage.create(name, [body], put_id)
        except PreconditionFailedError as error:
            raise ManifestLost(name) from error
        if await self.floor.get() > manifest.manifest_id:
            raise ManifestLost(f"{name}: below the floor")
        self._remember(manifest.manifest_id, body)
        storage.metrics.add("manifests")
        return manifest

    def _seal(self, manifest: Manifest, nonce: bytes) -> bytes:
        """The object of a manifest. Its own reader has the last word: what that refuses would be the volume's end."""
        name = manifest_name(manifest.manifest_id)
        text = encode_manifest(manifest)
        try:
            if len(text) > MAX_MANIFEST_SIZE:
                raise CorruptionError(f"{len(text)} bytes exceed the limit of {MAX_MANIFEST_SIZE}")
            decode_manifest(text, epoch=manifest.epoch, put_id=manifest.put_id, name=name)
        except CorruptionError as error:
            raise ZerofsError(f"{name} was not stored, because it could not be read back: {error}") from error
        header = Header(
            magic=MANIFEST_MAGIC,
            epoch=manifest.epoch,
            put_id=manifest.put_id,
            volume_id=self._storage.volume_id,
            first_length=0,
        )
        place = name.encode("ascii") + b"\0" + header_identity(header)
        frame = self._storage.sealers.manifest.seal(text, place, nonce)
        return encode_header(replace(header, first_length=len(frame))) + frame

    async def _get(self, manifest_id: int) -> bytes | None:
        return await self._storage.get_or_none(manifest_name(manifest_id), MAX_MANIFEST_OBJECT_SIZE)

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
        storage.origins.learn(manifest.foreign)
        return manifest

    async def _check_predecessor(self, manifest: Manifest) -> None:
        """The predecessor, while it is still there, must be the object that its successor was made from."""
        if manifest.predecessor_digest == NO_DIGEST:
            return
        name = manifest_name(manifest.manifest_id - 1)
        body = await self._get(manifest.manifest_id - 1)
        if body is None:
            # A predecessor below the floor may be gone. One that is deleted at this moment is below it, too.
            if await self.floor.get() < manifest.manifest_id:
                raise CorruptionError(f"{name}: missing, although its successor builds on it")
        elif hashlib.sha256(body).digest() != manifest.predecessor_digest:
            raise CorruptionError(f"{name}: not the manifest that its successor was made from")

    def _remember(self, manifest_id: int, body: bytes) -> None:
        self._digest = hashlib.sha256(body).digest()
        self._digest_of = manifest_id


async def newest_manifest(storage: Storage) -> Manifest:
    """The newest manifest of a volume. Raises NoVolumeError when there is none, CorruptionError, UnavailableError."""
    newest = await ManifestStore(storage).latest()
    if newest is None:
        raise NoVolumeError(f"there is no volume at {storage.store.url}")
    return newest


def fenced(manifest: Manifest) -> FencedError:
    """The error of a writer that finds a newer writer's manifest."""
    writer = manifest.writer
    return FencedError(
        f"another writer took over this volume: pid {writer.pid} on {writer.host}, "
        f"mountpoint {writer.mountpoint or '(none)'}"
    )
