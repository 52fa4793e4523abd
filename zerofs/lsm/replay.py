"""WAL objects above a manifest's mark, read and applied one after the other to a memtable (decision 0003).

Whoever opens a volume replays up to the end that it knows; a follower goes on where it stopped.
"""

from zerofs.errors import CorruptionError
from zerofs.lsm.format.header import WAL_MAGIC, decode_whole_header
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.names import SstId, wal_name
from zerofs.lsm.format.register import referred_bytes
from zerofs.lsm.format.wal import FENCE, MAX_OBJECT_SIZE
from zerofs.lsm.memtable import Memtable
from zerofs.lsm.storage import Storage, missing
from zerofs.lsm.wal import WalObject, read_wal_object


class UnknownEpochError(CorruptionError):
    """A WAL object names an epoch that the manifest does not know: a newer writer's, or damage."""


async def read_wal(storage: Storage, manifest: Manifest, wal_id: int) -> WalObject:
    """A WAL object above the mark, verified. Raises MissingObjectError, UnknownEpochError, CorruptionError."""
    name = wal_name(wal_id)
    body = await storage.get_or_none(name, MAX_OBJECT_SIZE)
    if body is None:
        raise missing(name)
    header = decode_whole_header(body, magic=WAL_MAGIC, volume_id=storage.volume_id, name=name)
    if header.epoch not in manifest.tokens:
        raise UnknownEpochError(f"{name}: written under epoch {header.epoch}, which the manifest does not know")
    return read_wal_object(
        body, wal_id=wal_id, tokens=manifest.tokens, volume_id=storage.volume_id, sealer=storage.sealers.wal
    )


class Replay:
    """What the WAL objects above the mark of `manifest` make of an empty memtable, as far as they were added."""

    __slots__ = ("epoch", "last_id", "last_put_id", "last_wal_ids", "mark", "memtable", "referred", "seqno")

    def __init__(self, manifest: Manifest) -> None:
        self.mark = manifest.wal_mark
        self.memtable = Memtable()
        self.seqno = manifest.last_seqno
        self.referred: set[SstId] = set()
        """Chunk SSTs that rows point to, rows that later ones replaced included."""
        self.last_id = manifest.wal_mark
        self.last_put_id = manifest.wal_mark_put_id
        self.epoch = 0
        """Of the last object; 0 when none was added."""
        self.last_wal_ids: dict[int, int] = {}
        """For each epoch that wrote some of the objects, the last one."""

    def add(self, wal_object: WalObject) -> None:
        """Apply the object behind the last one. Raises CorruptionError when it does not continue what is there."""
        wal_id = self.last_id + 1
        if wal_object.record.previous_put_id != self.last_put_id:
            raise CorruptionError(f"{wal_name(wal_id)}: does not follow the WAL object before it")
        if wal_object.epoch < self.epoch:
            raise CorruptionError(f"{wal_name(wal_id)}: written under an older epoch than the WAL object before it")
        self.last_id, self.last_put_id, self.epoch = wal_id, wal_object.put_id, wal_object.epoch
        self.last_wal_ids[wal_object.epoch] = wal_id
        self.seqno = max(self.seqno, wal_object.record.last_seqno)
        if wal_object.record.kind != FENCE:
            for start, stop in wal_object.record.range_deletes:
                self.memtable.delete_range(start, stop)
            for row in wal_object.record.rows:
                self.memtable.put(row[0], wal_object.entry(row))
        self.referred.update(referred_bytes(wal_object.record.rows))

    def copy(self) -> "Replay":
        """The same, to be gone on with while others still read this one."""
        other = object.__new__(Replay)
        for name in Replay.__slots__:
            setattr(other, name, getattr(self, name))
        other.memtable = self.memtable.copy()
        other.referred, other.last_wal_ids = set(self.referred), dict(self.last_wal_ids)
        return other
