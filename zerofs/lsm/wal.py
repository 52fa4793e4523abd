"""Writing and reading WAL objects. One writer, one PUT in flight, ids without gaps (decision 0004)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from zerofs.errors import CorruptionError, FencedError, PreconditionFailedError
from zerofs.lsm.chunk import Chunk, Frame
from zerofs.lsm.format.header import (
    HEADER_SIZE,
    WAL_MAGIC,
    Header,
    decode_whole_header,
    encode_header,
    header_identity,
)
from zerofs.lsm.format.names import wal_name
from zerofs.lsm.format.pointer import IN_SST, IN_WAL, Pointer, decode_pointer, encode_pointer
from zerofs.lsm.format.rows import DELETE, POINTER, PUT, Row, sort_in_steps
from zerofs.lsm.format.wal import FENCE, MAX_RECORD_SIZE, NO_PUT_ID, ROWS, WalRecord, decode_record, encode_record
from zerofs.lsm.memtable import Entry
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.storage import Storage
from zerofs.transform.frame import Sealer, frame_nonce
from zerofs.units import MIB
from zerofs.world import Lane

OFFLOAD_FROM_BYTES = MIB
"""A larger record is sealed on a thread; a smaller one is not worth the hop."""

OFFLOAD_FROM_ROWS = 500
"""A larger cut is encoded on a thread: about 2 µs a row that no request should wait for."""


@dataclass(slots=True, kw_only=True)
class Cut:
    """Everything committed since the cut before, taken at one instant. All or nothing in the store."""

    rows: dict[bytes, Entry]
    """Encoded: bytes, None or Chunk."""
    ranges: KeyRanges
    first_seqno: int
    last_seqno: int

    def chunks(self) -> list[Chunk]:
        """The chunks among the rows."""
        return [entry for entry in self.rows.values() if type(entry) is Chunk]


class WalWriter:
    """Appends to the WAL of one epoch."""

    def __init__(self, storage: Storage, *, epoch: int, token: bytes, last_id: int, last_put_id: bytes) -> None:
        self._storage = storage
        self._epoch = epoch
        self._token = token
        self.last_id = last_id
        """The newest WAL object that is known to be stored."""
        self.last_put_id = last_put_id

    def jump(self, last_id: int) -> None:
        """Go on above `last_id`, leaving a gap: only after an accepted roll-back, before a flush that marks the gap."""
        self.last_id = last_id
        self.last_put_id = NO_PUT_ID

    async def append(self, cut: Cut, carried: Sequence[Chunk]) -> None:
        """Store a cut as the next WAL object; the frames of `carried` ride in it and their chunks point there.

        Every other chunk of the cut is stored already. Raises FencedError when another writer took the id.
        """
        wal_id = self.last_id + 1
        pointers = self._carry(carried, wal_id)
        if len(cut.rows) >= OFFLOAD_FROM_ROWS:
            record = await self._storage.world.offload(Lane.CPU, _encode_cut, cut, pointers, self.last_put_id)
        else:
            record = _encode_cut(cut, pointers, self.last_put_id)
        put_id = self._storage.new_put_id()
        frames = [chunk.frame for chunk in carried if chunk.frame is not None]
        body = await build_wal_object(
            self._storage,
            wal_id=wal_id,
            epoch=self._epoch,
            token=self._token,
            put_id=put_id,
            record=record,
            frames=frames,
        )
        try:
            await self._storage.create(wal_name(wal_id), body, put_id)
        except PreconditionFailedError as error:
            raise FencedError(f"another writer took over this volume: {wal_name(wal_id)} is not ours") from error
        base = HEADER_SIZE + len(body[1])
        for chunk in carried:
            pointer = pointers[id(chunk)]
            chunk.pointer = pointer._replace(offset=pointer.offset + base)
        self.last_id = wal_id
        self.last_put_id = put_id
        self._storage.metrics.add("wal_objects")
        self._storage.metrics.add("wal_bytes", sum(map(len, body)))

    @staticmethod
    def _carry(carried: Sequence[Chunk], wal_id: int) -> dict[int, Pointer]:
        """Pointers with offsets from the start of the frames: the length of the record is not known yet."""
        pointers: dict[int, Pointer] = {}
        offset = 0
        for chunk in carried:
            length = len(chunk.frame or b"")
            pointers[id(chunk)] = Pointer(IN_WAL, 0, wal_id, offset, length, chunk.size, chunk.nonce)
            offset += length
        return pointers


def _encode_cut(cut: Cut, pointers: Mapping[int, Pointer], previous_put_id: bytes) -> bytes:
    """The record of a cut. May run in a thread: a cut is not changed any more."""
    return encode_record(
        kind=ROWS,
        previous_put_id=previous_put_id,
        seqnos=(cut.first_seqno, cut.last_seqno),
        range_deletes=cut.ranges,
        rows=encode_entries(sort_in_steps(list(cut.rows)), cut.rows, pointers),
    )


def encode_entries(keys: Iterable[bytes], entries: Mapping[bytes, Entry], pointers: Mapping[int, Pointer]) -> list[Row]:
    """The rows of entries of a memtable, in the order of `keys`.

    `pointers`: by chunk identity, in place of the chunk's own pointer.
    """
    # Most are bytes: they are not worth a call.
    return [
        (key, PUT, entry) if type(entry := entries[key]) is bytes else _encode_entry(key, entry, pointers)
        for key in keys
    ]


def _encode_entry(key: bytes, entry: Entry, pointers: Mapping[int, Pointer]) -> Row:
    if entry is None:
        return key, DELETE, b""
    assert type(entry) is Chunk, "live values are encoded by the cut"
    pointer = pointers.get(id(entry)) or entry.pointer
    assert pointer is not None, "a chunk is stored before its row is"
    return key, POINTER, encode_pointer(pointer)


async def build_wal_object(
    storage: Storage,
    *,
    wal_id: int,
    epoch: int,
    token: bytes,
    put_id: bytes,
    record: bytes,
    frames: Sequence[Frame],
) -> list[Frame]:
    """The pieces of a WAL object: header, sealed record, frames."""
    header = Header(
        magic=WAL_MAGIC, epoch=epoch, put_id=put_id, volume_id=storage.volume_id, first_length=0, second_length=0
    )
    place = record_place(wal_name(wal_id), header, token)
    nonce = storage.nonces(1)
    seal = storage.sealers.wal.seal
    if len(record) >= OFFLOAD_FROM_BYTES:
        sealed = await storage.world.offload(Lane.CPU, seal, record, place, nonce)
    else:
        sealed = seal(record, place, nonce)
    header = replace(header, first_length=len(sealed), second_length=sum(map(len, frames)))
    return [encode_header(header), sealed, *frames]


def record_place(name: str, header: Header, token: bytes) -> bytes:
    """What a record's AAD binds: object name, the header's identity, the token of its epoch."""
    return name.encode("ascii") + b"\0" + header_identity(header) + token


def fence_record(previous_put_id: bytes, seqno: int) -> bytes:
    """A record without rows that takes a WAL id away from every older writer."""
    return encode_record(
        kind=FENCE, previous_put_id=previous_put_id, seqnos=(seqno, seqno), range_deletes=KeyRanges(), rows=[]
    )


@dataclass(slots=True, frozen=True, kw_only=True)
class WalObject:
    """A verified WAL object, and its frames still sealed."""

    epoch: int
    put_id: bytes
    record: WalRecord
    body: bytes
    frames_offset: int

    def entry(self, row: Row) -> Entry:
        """The memtable entry of one of its rows."""
        key, kind, value = row
        if kind == DELETE:
            return None
        if kind == PUT:
            return value
        pointer = decode_pointer(value)
        if pointer.holder == IN_SST:
            return Chunk.at(key, pointer)
        start = self.frames_offset + pointer.offset
        frame = self.body[start : start + pointer.length]
        if len(frame) != pointer.length or frame_nonce(frame) != pointer.nonce:
            raise CorruptionError(f"{pointer.object_name}: frame at byte {start} is not the one that its row names")
        return Chunk.at(key, pointer._replace(offset=start), frame)


def read_wal_object(
    body: bytes, *, wal_id: int, tokens: Mapping[int, bytes], volume_id: bytes, sealer: Sealer
) -> WalObject:
    """Verify and decode a whole WAL object. Raises CorruptionError naming it."""
    name = wal_name(wal_id)
    header = decode_whole_header(body, magic=WAL_MAGIC, volume_id=volume_id, name=name)
    token = tokens.get(header.epoch)
    if token is None:
        raise CorruptionError(f"{name}: written under epoch {header.epoch}, which the manifest does not know")
    frames_offset = HEADER_SIZE + header.first_length
    try:
        text = sealer.open(body[HEADER_SIZE:frames_offset], record_place(name, header, token), MAX_RECORD_SIZE)
    except CorruptionError as error:
        raise CorruptionError(f"{name}: {error}") from error
    return WalObject(
        epoch=header.epoch,
        put_id=header.put_id,
        record=decode_record(text, name),
        body=body,
        frames_offset=frames_offset,
    )
