"""Any object of a volume, taken apart for a person: what `zerofs debug` shows. Reads only, opens no engine.

Never shown: keys, epoch tokens (their tags are), anything sealed that is not opened. Contents only on request.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from zerofs.admin.rows import describe_key, describe_row
from zerofs.errors import CorruptionError
from zerofs.keys.format import PasswordProtector, Sidecar, Slot, decode_sidecar
from zerofs.lsm.audit import load_views
from zerofs.lsm.floor import MAX_FLOOR_SIZE, Floor
from zerofs.lsm.format.header import (
    CHUNK_SST_MAGIC,
    FLOOR_MAGIC,
    HEADER_SIZE,
    MANIFEST_MAGIC,
    META_SST_MAGIC,
    WAL_MAGIC,
    Header,
    decode_header,
    decode_whole_header,
)
from zerofs.lsm.format.manifest import Manifest, tag_of
from zerofs.lsm.format.names import SST_PREFIX, parse_manifest_name, parse_sst_name, parse_wal_name
from zerofs.lsm.format.rows import decode_rows
from zerofs.lsm.format.sst import (
    MAX_BLOCK_SIZE,
    MAX_DIRECTORY_SIZE,
    MAX_INDEX_SIZE,
    decode_directory,
    decode_index,
    place,
)
from zerofs.lsm.format.wal import FENCE
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.origins import Origin
from zerofs.lsm.storage import Storage
from zerofs.lsm.wal import read_wal_object
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.transform.frame import frame_nonce
from zerofs.units import CHUNK_SIZE

KINDS = {
    MANIFEST_MAGIC: "manifest",
    WAL_MAGIC: "wal",
    META_SST_MAGIC: "meta sst",
    CHUNK_SST_MAGIC: "chunk sst",
    FLOOR_MAGIC: "floor",
}


@dataclass(slots=True, frozen=True, kw_only=True)
class Wanted:
    """How much to show. `values` brings file contents, and the rows with them."""

    rows: bool = False
    values: bool = False


@dataclass(slots=True, kw_only=True)
class Opened:
    """What is needed to open objects of a volume: keys, and the epoch tokens that its manifests hold."""

    storage: Storage
    tokens: dict[int, bytes] = field(default_factory=dict)

    def store_of(self, name: str) -> ObjectStore:
        """Where an object lies: that of an SST perhaps in a source of this clone. Raises CorruptionError."""
        origins = self.storage.origins
        return origins.of(parse_sst_name(name)[0]).store if name.startswith(SST_PREFIX) else origins.own.store


async def open_volume_objects(storage: Storage) -> Opened:
    """The tokens of the newest version and of every checkpoint's. Without a readable manifest there are none."""
    opened = Opened(storage=storage)
    try:
        newest = await ManifestStore(storage).latest()
    except CorruptionError:
        return opened
    if newest is not None:
        for view in reversed((await load_views(storage, newest))[0]):
            opened.tokens |= view.tokens
    return opened


def decode_clear(name: str, body: bytes) -> dict[str, Any]:
    """The clear fields of an object. Raises CorruptionError, UnsupportedFormatError."""
    magic = body[:4]
    if magic not in KINDS:
        raise CorruptionError(f"{name}: not an object of a volume (it begins with {magic.hex() or 'nothing'})")
    if len(body) < HEADER_SIZE:
        raise CorruptionError(f"{name}: {len(body)} bytes, shorter than a header")
    header = decode_header(body, magic=magic, volume_id=body[32:48], name=name)
    return {"object": name, "kind": KINDS[magic], "size": len(body), "header": _header(header)}


async def decode_object(opened: Opened, name: str, body: bytes, wanted: Wanted) -> dict[str, Any]:
    """An object, opened. Raises CorruptionError when it is not what its name says, or not of this volume."""
    shown = decode_clear(name, body)
    magic = body[:4]
    if magic == MANIFEST_MAGIC:
        return shown | _manifest(await _alone(opened.storage, name, body))
    if magic == FLOOR_MAGIC:
        return shown | {"floor": await _floor(opened.storage, name, body)}
    if magic == WAL_MAGIC:
        return shown | _wal(opened, name, body, wanted)
    origin = opened.storage.origins.of(parse_sst_name(name)[0])
    header = decode_whole_header(body, magic=magic, volume_id=origin.volume_id, name=name)
    if magic == META_SST_MAGIC:
        return shown | _meta_sst(origin, _token(opened.tokens, header.epoch, name), name, body, wanted)
    return shown | _chunk_sst(origin, header, name, body, wanted)


def decode_key_object(name: str, body: bytes) -> dict[str, Any]:
    """The clear fields of a key sidecar. Raises CorruptionError, UnsupportedFormatError."""
    sidecar: Sidecar = decode_sidecar(body)
    return {
        "object": name,
        "kind": "key sidecar",
        "size": len(body),
        "put_id": sidecar.put_id.hex(),
        "volume_id": sidecar.volume_id.hex(),
        "authority": sidecar.authority.hex(),
        "slots": [_slot(slot) for slot in sidecar.slots],
        "sealed_keyring_size": len(sidecar.sealed_keyring),
    }


def _slot(slot: Slot) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": slot.kind, "label": slot.label, "created_at_ns": slot.created_at_ns}
    if isinstance(slot.protector, PasswordProtector):
        shown |= {"kdf": "argon2id", "cost": asdict(slot.protector.cost), "salt": slot.protector.salt.hex()}
    return shown


def _header(header: Header) -> dict[str, Any]:
    return {
        "epoch": header.epoch,
        "put_id": header.put_id.hex(),
        "volume_id": header.volume_id.hex(),
        "first_length": header.first_length,
        "second_length": header.second_length,
    }


async def _alone(storage: Storage, name: str, body: bytes) -> Manifest:
    """A manifest on its own, as its store opens it."""
    return await ManifestStore(await _of(storage, name, body)).load(parse_manifest_name(name))


async def _floor(storage: Storage, name: str, body: bytes) -> int:
    if len(body) > MAX_FLOOR_SIZE:
        raise CorruptionError(f"{name}: {len(body)} bytes; a floor has at most {MAX_FLOOR_SIZE}")
    return await Floor(await _of(storage, name, body)).get()


async def _of(storage: Storage, name: str, body: bytes) -> Storage:
    """The same volume with a store that has this one object."""
    store = MemoryStore()
    await store.put(name, body)
    return Storage(
        store=store,
        world=storage.world,
        sealers=storage.sealers,
        volume_id=storage.volume_id,
        metrics=storage.metrics,
        cache_memory_bytes=0,
        origins=storage.origins,
    )


def _manifest(manifest: Manifest) -> dict[str, Any]:
    return {
        "manifest_id": manifest.manifest_id,
        "predecessor_digest": manifest.predecessor_digest.hex(),
        "created_at_ns": manifest.created_at_ns,
        "writer": asdict(manifest.writer),
        "closed": manifest.closed,
        "wal_mark": manifest.wal_mark,
        "wal_mark_put_id": manifest.wal_mark_put_id.hex(),
        "last_seqno": manifest.last_seqno,
        "epochs": {str(epoch): tag_of(token).hex() for epoch, token in sorted(manifest.tokens.items())},
        "trees": [
            {
                "prefix": tree.prefix.decode("ascii", "backslashreplace"),
                "runs": [
                    {
                        "range_deletes": run.has_range_deletes,
                        "ssts": [
                            {
                                "object": sst.name,
                                "size": sst.size_bytes,
                                "rows": sst.row_count,
                                "first_key": describe_key(sst.first_key),
                                "last_key": describe_key(sst.last_key),
                            }
                            for sst in run.ssts
                        ],
                    }
                    for run in tree.runs
                ],
            }
            for tree in manifest.trees
        ],
        "checkpoints": [
            {"name": it.name, "id": it.checkpoint_id.hex(), "manifest_id": it.manifest_id}
            for it in manifest.checkpoints
        ],
        "history": [
            {"epoch": era.epoch, "tag": era.tag.hex(), "manifest_id": era.manifest_id, "wal_id": era.wal_id}
            for era in manifest.history
        ],
        "sources": [
            {
                "url": it.url,
                "volume_id": it.volume_id.hex(),
                "last_epoch": it.last_epoch,
                "pin": it.pin,
                "key_ids": sorted(it.block_keys),
            }
            for it in manifest.foreign
        ],
    }


def _wal(opened: Opened, name: str, body: bytes, wanted: Wanted) -> dict[str, Any]:
    storage = opened.storage
    wal_object = read_wal_object(
        body,
        wal_id=parse_wal_name(name),
        tokens=opened.tokens,
        volume_id=storage.volume_id,
        sealer=storage.sealers.wal,
    )
    record = wal_object.record
    shown: dict[str, Any] = {
        "record": "fence" if record.kind == FENCE else "rows",
        "previous_put_id": record.previous_put_id.hex(),
        "first_seqno": record.first_seqno,
        "last_seqno": record.last_seqno,
        "range_deletes": _ranges(record.range_deletes),
        "row_count": len(record.rows),
    }
    return shown | _rows(list(record.rows), wanted)


def _meta_sst(origin: Origin, token: bytes, name: str, body: bytes, wanted: Wanted) -> dict[str, Any]:
    header = decode_header(body, magic=META_SST_MAGIC, volume_id=origin.volume_id, name=name)
    start = HEADER_SIZE + header.first_length
    try:
        text = origin.index.open(body[start:], place(name, start, token), MAX_INDEX_SIZE)
        index = decode_index(text, blocks_length=header.first_length, what=name)
        blocks = []
        rows = []
        for number, last_key in enumerate(index.last_keys):
            offset, stop = index.offsets[number], index.offsets[number + 1]
            opened_block = origin.block.open(body[offset:stop], place(name, offset, token), MAX_BLOCK_SIZE)
            found = list(decode_rows(opened_block, f"{name} at byte {offset}"))
            rows += found if wanted.rows or wanted.values else []
            blocks.append(
                {"offset": offset, "length": stop - offset, "rows": len(found), "last_key": describe_key(last_key)}
            )
    except CorruptionError as error:
        raise _named(name, error) from error
    shown = {
        "row_count": index.row_count,
        "range_deletes": _ranges(index.range_deletes),
        "bloom_size": len(index.bloom),
        "blocks": blocks,
    }
    return shown | _rows(rows, wanted)


def _chunk_sst(origin: Origin, header: Header, name: str, body: bytes, wanted: Wanted) -> dict[str, Any]:
    start = HEADER_SIZE + header.first_length
    frames = []
    offset = HEADER_SIZE
    try:
        text = origin.directory.open(body[start:], place(name, start, header.put_id), MAX_DIRECTORY_SIZE)
        for entry in decode_directory(text, frames_length=header.first_length, what=name):
            frame = body[offset : offset + entry.length]
            shown = {"key": describe_key(entry.key), "offset": offset, "length": entry.length, "size": entry.size}
            shown["nonce"] = entry.nonce.hex()
            if frame_nonce(frame) != entry.nonce:
                raise CorruptionError(f"frame at byte {offset}: another one than its directory names")
            if wanted.values:
                shown["value"] = origin.chunk.open(frame, b"", CHUNK_SIZE).hex()
            frames.append(shown)
            offset += entry.length
    except CorruptionError as error:
        raise _named(name, error) from error
    return {"frames": frames}


def _rows(rows: list[tuple[bytes, int, bytes]], wanted: Wanted) -> dict[str, Any]:
    if not (wanted.rows or wanted.values):
        return {}
    return {"rows": [describe_row(row, values=wanted.values) for row in rows]}


def _ranges(ranges: Any) -> list[dict[str, Any]]:
    return [{"start": describe_key(start), "stop": describe_key(stop)} for start, stop in ranges]


def _token(tokens: Mapping[int, bytes], epoch: int, name: str) -> bytes:
    token = tokens.get(epoch)
    if token is None:
        raise CorruptionError(
            f"{name}: written under epoch {epoch}, which no manifest of the volume knows any more; --clear shows what "
            "needs no key"
        )
    return token


def _named(name: str, error: CorruptionError) -> CorruptionError:
    return CorruptionError(str(error) if str(error).startswith(name) else f"{name}: {error}")
