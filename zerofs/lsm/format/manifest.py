"""The manifest: one version of the whole volume (docs/format/objects.md, decision 0003).

    manifest object   header ‖ body frame                     sections: body, nothing

    body, opened (fixed fields little-endian, others varint):
        8     manifest id
        16    epoch token of this manifest's epoch
        32    SHA-256 of the predecessor object; zero for the first
        8     created at, ns since 1970, i64: shown to people, never decides anything
        …     writer: host (length, bytes), pid (varint), mountpoint (length, bytes)
        1     closed, u8: 1 when the writer ended cleanly with this manifest
        8     WAL mark: rows of WAL objects up to this id are all in the trees; 0 = none
        16    put-id of the WAL object at the mark
        8     last sequence number in the trees
        …     token count, then for each: epoch (varint), token (16 bytes)
        …     tree count, then for each: prefix (length, bytes), run count, then for each run, newest first:
                  flags (varint; 1 = its first SST holds range deletes), SST count, then for each SST:
                  epoch, counter, object size, index length, row count, first key, last key
        …     checkpoint count, then for each, oldest first: name (length, bytes), id (16 bytes), manifest id (varint),
                  created at (8, i64)
        …     history: era count, then for each earlier epoch, oldest first: epoch (varint), tag (8 bytes), id of the
                  last manifest of it that this one builds on (varint), last WAL id before the next epoch's fence,
                  plus 1 (varint; 0 = not known yet)
        …     foreign table, of a clone only: see `foreign`

The epoch itself and the put-id stand in the header, whose first 48 bytes are AAD of the body.
"""

import hashlib
import itertools
from dataclasses import dataclass, field, replace

from zerofs.errors import CorruptionError
from zerofs.ids import CHECKPOINT_ID_SIZE, EPOCH_TOKEN_SIZE, PUT_ID_SIZE
from zerofs.lsm.format.foreign import Foreign, read_table, write_table
from zerofs.lsm.format.names import MAX_COUNTER, MAX_EPOCH, SstId, sst_name
from zerofs.lsm.format.rows import MAX_KEY_SIZE
from zerofs.lsm.format.sst import MAX_INDEX_SIZE, MAX_OBJECT_SIZE
from zerofs.lsm.format.wal import NO_PUT_ID
from zerofs.units import MIB
from zerofs.wire import Reader, Writer

DIGEST_SIZE = 32
NO_DIGEST = bytes(DIGEST_SIZE)
MAX_MANIFEST_SIZE = 256 * MIB
MAX_SSTS = 1 << 20
MAX_RUNS = 1 << 16
MAX_TOKENS = 1 << 20
MAX_TREES = 16
MAX_TEXT_SIZE = 4096
MAX_CHECKPOINTS = 1 << 16
MAX_CHECKPOINT_NAME_SIZE = 255
MAX_ERAS = 1024
"""Earlier epochs that a manifest remembers: one is added with each opening for writing, then the oldest go."""

TAG_SIZE = 8


@dataclass(slots=True, frozen=True, kw_only=True)
class SstInfo:
    """A meta SST as the manifest knows it. Keys are inclusive; an SST of range deletes alone has no keys."""

    sst: SstId
    size_bytes: int
    index_length: int
    row_count: int
    first_key: bytes
    last_key: bytes

    @property
    def name(self) -> str:
        """The object name."""
        return sst_name(self.sst)


@dataclass(slots=True, frozen=True, kw_only=True)
class Run:
    """SSTs with ascending, disjoint key ranges; `has_range_deletes`: the index of the first one holds some."""

    ssts: tuple[SstInfo, ...]
    has_range_deletes: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class Tree:
    """All rows whose keys start with `prefix`: runs, newest first."""

    prefix: bytes
    runs: tuple[Run, ...] = ()

    def with_newest(self, run: Run | None) -> "Tree":
        """The tree with one more run, the newest; the same for None."""
        return self if run is None else replace(self, runs=(run, *self.runs))


@dataclass(slots=True, frozen=True, kw_only=True)
class WriterInfo:
    """Who wrote a manifest: shown to whoever takes the volume over."""

    host: str
    pid: int
    mountpoint: str


@dataclass(slots=True, frozen=True, kw_only=True)
class Checkpoint:
    """A name for a manifest, which stays readable with everything that it refers to (decision 0011)."""

    name: str
    checkpoint_id: bytes
    manifest_id: int
    created_at_ns: int


@dataclass(slots=True, frozen=True, kw_only=True)
class Era:
    """What a manifest builds on of one earlier epoch (decision 0003, point 11).

    An epoch, told from another of the same number by its tag, has one writer, which makes one line of manifests and
    one line of WAL objects. So two numbers say all of it that is in the history, and that nothing else of it is.
    """

    epoch: int
    tag: bytes
    manifest_id: int
    """Its last manifest that the history holds."""
    wal_id: int | None
    """The last WAL id before the next epoch's fence; None until the manifest after that fence."""


def tag_of(token: bytes) -> bytes:
    """What tells an epoch from another of the same number, to be shown to anybody: nothing of the token is."""
    return hashlib.sha256(token).digest()[:TAG_SIZE]


@dataclass(slots=True, frozen=True, kw_only=True)
class Manifest:
    """One version of the volume. `tokens` holds the token of every epoch that a live object was made under."""

    manifest_id: int
    epoch: int
    token: bytes
    put_id: bytes
    predecessor_digest: bytes = NO_DIGEST
    created_at_ns: int
    writer: WriterInfo
    closed: bool = False
    """Whether the writer ended cleanly with this manifest, so that nobody is taken over."""
    wal_mark: int = 0
    wal_mark_put_id: bytes = NO_PUT_ID
    last_seqno: int = 0
    tokens: dict[int, bytes] = field(default_factory=dict)
    trees: tuple[Tree, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    """Oldest first; names and ids are unique."""
    history: tuple[Era, ...] = ()
    """The earlier epochs, oldest first, as many as MAX_ERAS."""
    foreign: tuple[Foreign, ...] = ()
    """Whose objects the trees may refer to besides this volume's own, by last epoch: of a clone."""

    @property
    def tag(self) -> bytes:
        """The tag of its own epoch."""
        return tag_of(self.token)

    @property
    def sst_count(self) -> int:
        """How many SSTs it lists: what its size depends on."""
        return sum(len(run.ssts) for tree in self.trees for run in tree.runs)

    def tree(self, prefix: bytes) -> Tree:
        """The tree of a prefix. Raises CorruptionError if there is none."""
        for tree in self.trees:
            if tree.prefix == prefix:
                return tree
        raise CorruptionError(f"manifest {self.manifest_id} has no tree {prefix!r}")

    def with_trees(self, *trees: Tree) -> "Manifest":
        """The same with some of its trees replaced."""
        new = {tree.prefix: tree for tree in trees}
        return replace(self, trees=tuple(new.get(tree.prefix, tree) for tree in self.trees))


def encode_manifest(manifest: Manifest) -> bytes:
    """The body of a manifest; epoch and put-id travel in the header."""
    out = Writer().u64(manifest.manifest_id).raw(manifest.token).raw(manifest.predecessor_digest)
    out.i64(manifest.created_at_ns)
    out.sized(manifest.writer.host.encode()).uvarint(manifest.writer.pid).sized(
        manifest.writer.mountpoint.encode("utf-8", "surrogateescape")
    )
    out.u8(int(manifest.closed)).u64(manifest.wal_mark).raw(manifest.wal_mark_put_id).u64(manifest.last_seqno)
    out.uvarint(len(manifest.tokens))
    for epoch, token in sorted(manifest.tokens.items()):
        out.uvarint(epoch).raw(token)
    out.uvarint(len(manifest.trees))
    for tree in manifest.trees:
        out.sized(tree.prefix).uvarint(len(tree.runs))
        for run in tree.runs:
            out.uvarint(int(run.has_range_deletes)).uvarint(len(run.ssts))
            for sst in run.ssts:
                out.uvarint(sst.sst[0]).uvarint(sst.sst[1]).uvarint(sst.size_bytes).uvarint(sst.index_length)
                out.uvarint(sst.row_count).sized(sst.first_key).sized(sst.last_key)
    out.uvarint(len(manifest.checkpoints))
    for checkpoint in manifest.checkpoints:
        out.sized(checkpoint.name.encode()).raw(checkpoint.checkpoint_id)
        out.uvarint(checkpoint.manifest_id).i64(checkpoint.created_at_ns)
    out.uvarint(len(manifest.history))
    for era in manifest.history:
        out.uvarint(era.epoch).raw(era.tag).uvarint(era.manifest_id).uvarint(
            0 if era.wal_id is None else era.wal_id + 1
        )
    write_table(out, manifest.foreign)
    return out.getvalue()


def decode_manifest(data: bytes, *, epoch: int, put_id: bytes, name: str) -> Manifest:
    """A manifest from its body and the two header fields. Raises CorruptionError naming the object."""
    reader = Reader(data, name)
    manifest = Manifest(
        manifest_id=reader.u64(),
        epoch=epoch,
        token=reader.raw(EPOCH_TOKEN_SIZE),
        put_id=put_id,
        predecessor_digest=reader.raw(DIGEST_SIZE),
        created_at_ns=reader.i64(),
        writer=_read_writer(reader),
        closed=bool(reader.u8()),
        wal_mark=reader.u64(),
        wal_mark_put_id=reader.raw(PUT_ID_SIZE),
        last_seqno=reader.u64(),
        tokens={reader.bounded(MAX_EPOCH): reader.raw(EPOCH_TOKEN_SIZE) for _ in range(reader.bounded(MAX_TOKENS))},
        trees=tuple(_read_tree(reader, name) for _ in range(reader.bounded(MAX_TREES))),
        checkpoints=tuple(_read_checkpoint(reader, name) for _ in range(reader.bounded(MAX_CHECKPOINTS))),
        history=tuple(_read_era(reader) for _ in range(reader.bounded(MAX_ERAS))),
        foreign=read_table(reader, epoch, name),
    )
    reader.expect_end()
    epochs = [*(era.epoch for era in manifest.history), epoch]
    if any(left >= right for left, right in itertools.pairwise(epochs)):
        raise CorruptionError(f"{name}: the epochs of its history do not ascend")
    if manifest.tokens.get(epoch) != manifest.token:
        raise CorruptionError(f"{name}: does not hold the token of its own epoch")
    return manifest


def _read_checkpoint(reader: Reader, name: str) -> Checkpoint:
    try:
        title = reader.sized(MAX_CHECKPOINT_NAME_SIZE).decode()
    except UnicodeDecodeError as error:
        raise CorruptionError(f"{name}: the name of a checkpoint is not UTF-8") from error
    return Checkpoint(
        name=title,
        checkpoint_id=reader.raw(CHECKPOINT_ID_SIZE),
        manifest_id=reader.uvarint(),
        created_at_ns=reader.i64(),
    )


def _read_era(reader: Reader) -> Era:
    epoch, tag = reader.bounded(MAX_EPOCH), reader.raw(TAG_SIZE)
    manifest_id, wal_end = reader.uvarint(), reader.uvarint()
    return Era(epoch=epoch, tag=tag, manifest_id=manifest_id, wal_id=wal_end - 1 if wal_end else None)


def _read_writer(reader: Reader) -> WriterInfo:
    host = reader.sized(MAX_TEXT_SIZE).decode("utf-8", "replace")
    pid = reader.uvarint()
    return WriterInfo(host=host, pid=pid, mountpoint=reader.sized(MAX_TEXT_SIZE).decode("utf-8", "surrogateescape"))


def _read_tree(reader: Reader, name: str) -> Tree:
    prefix = reader.sized(MAX_KEY_SIZE)
    return Tree(prefix=prefix, runs=tuple(_read_run(reader, name) for _ in range(reader.bounded(MAX_RUNS))))


def _read_run(reader: Reader, name: str) -> Run:
    flags = reader.bounded(1)
    ssts = tuple(_read_sst(reader) for _ in range(reader.bounded(MAX_SSTS)))
    if not ssts or any(left.last_key >= right.first_key for left, right in itertools.pairwise(ssts)):
        raise CorruptionError(f"{name}: a run is empty or its SSTs overlap")
    return Run(ssts=ssts, has_range_deletes=bool(flags))


def _read_sst(reader: Reader) -> SstInfo:
    return SstInfo(
        sst=(reader.bounded(MAX_EPOCH), reader.bounded(MAX_COUNTER)),
        size_bytes=reader.bounded(MAX_OBJECT_SIZE),
        index_length=reader.bounded(MAX_INDEX_SIZE),
        row_count=reader.uvarint(),
        first_key=reader.sized(MAX_KEY_SIZE),
        last_key=reader.sized(MAX_KEY_SIZE),
    )
