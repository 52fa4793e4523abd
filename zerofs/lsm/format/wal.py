"""The WAL record: one cut, or a fence (docs/format/objects.md, decision 0004).

    WAL object   header ‖ record frame ‖ chunk frames         sections: record, frames

    record, opened:
        size  field (little-endian)
        1     kind: 0 rows, 1 fence
        16    put-id of the WAL object before this one; zero for the first of a volume
        8     first sequence number in the cut, u64
        8     last sequence number in the cut, u64
        …     range delete count (varint), then for each: start, stop (each length, bytes)
        rest  rows by columns (rows.py); POINTER rows may point into this very object: their offset
              then counts from the start of its frames section

A WAL object is valid when (1) header and record authenticate under its name, its header and the token of its epoch,
(2) its epoch is at least that of the object before, (3) it names the put-id of the object before, (4) no id below it
and above the mark is missing. Anything else is corruption, never the end of the log.
"""

from dataclasses import dataclass

from zerofs.errors import CorruptionError, ZerofsError
from zerofs.ids import PUT_ID_SIZE
from zerofs.lsm.format.header import HEADER_SIZE
from zerofs.lsm.format.rows import MAX_KEY_SIZE, Row, Rows, decode_rows, encode_rows
from zerofs.lsm.ranges import KeyRanges
from zerofs.transform.frame import FRAME_OVERHEAD
from zerofs.units import MIB
from zerofs.wire import Reader, Writer

ROWS = 0
FENCE = 1

MAX_RECORD_SIZE = 512 * MIB
"""A cut has at most a memtable and a little more; the largest memtable that can be configured is half of this."""

MAX_OBJECT_SIZE = HEADER_SIZE + MAX_RECORD_SIZE + FRAME_OVERHEAD + 128 * MIB
"""Of the whole object. The frames of a cut hold a MiB of data, each with an overhead."""

MAX_RANGES = 1 << 22

NO_PUT_ID = bytes(PUT_ID_SIZE)

FENCE_OBJECT_MAX_SIZE = HEADER_SIZE + FRAME_OVERHEAD + 1 + PUT_ID_SIZE + 8 + 8 + 1 + 4
"""Bytes of a WAL object that is a fence, at most: no range deletes, no rows."""


@dataclass(slots=True, frozen=True, kw_only=True)
class WalRecord:
    """An opened record: range deletes apply first, then rows."""

    kind: int
    previous_put_id: bytes
    first_seqno: int
    last_seqno: int
    range_deletes: KeyRanges
    rows: Rows


def encode_record(
    *, kind: int, previous_put_id: bytes, seqnos: tuple[int, int], range_deletes: KeyRanges, rows: list[Row]
) -> bytes:
    """The bytes of a record; `rows` in ascending key order. Raises ZerofsError for what nobody could read back."""
    out = Writer().u8(kind).raw(previous_put_id).u64(seqnos[0]).u64(seqnos[1]).uvarint(len(range_deletes))
    for start, stop in range_deletes:
        out.sized(start).sized(stop)
    record = out.raw(encode_rows(rows)).getvalue()
    if len(record) > MAX_RECORD_SIZE or len(range_deletes) > MAX_RANGES:
        raise ZerofsError(
            f"a WAL record of {len(record)} bytes and {len(range_deletes)} range deletes cannot be stored: at most "
            f"{MAX_RECORD_SIZE} and {MAX_RANGES} could be read back; set a smaller [lsm] memtable_size_mb"
        )
    return record


def decode_record(data: bytes, name: str) -> WalRecord:
    """A record from its bytes. Raises CorruptionError naming the object."""
    reader = Reader(data, name)
    kind = reader.u8()
    previous = reader.raw(PUT_ID_SIZE)
    first, last = reader.u64(), reader.u64()
    ranges = KeyRanges()
    for _ in range(reader.bounded(MAX_RANGES)):
        ranges.add(reader.sized(MAX_KEY_SIZE), reader.sized(MAX_KEY_SIZE))
    rows = decode_rows(reader.raw(reader.remaining()), name)
    if kind > FENCE or (kind == FENCE and (len(rows) or ranges)):
        raise CorruptionError(f"{name}: malformed WAL record")
    return WalRecord(
        kind=kind, previous_put_id=previous, first_seqno=first, last_seqno=last, range_deletes=ranges, rows=rows
    )
