"""The foreign table of a manifest: whose objects a clone still reads (docs/format/objects.md, decision 0016).

    …     source count (varint, at least 1: a volume without sources has no table at all), then for each, by last epoch:
              URL (length, bytes), volume id (16), last epoch (varint), name of the pin (length, bytes; empty: none),
              key generation count (varint; 0: nothing is read from it any more), then for each, by key id:
              key id (varint), subkey of blocks (32 bytes), subkey of chunks (32 bytes)

The epoch of an SST says whose it is: the first source whose last epoch is not below it, else this volume.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from zerofs.crypto.aead import KEY_SIZE
from zerofs.errors import CorruptionError
from zerofs.ids import VOLUME_ID_SIZE, KeyId
from zerofs.lsm.format.names import MAX_EPOCH
from zerofs.wire import Reader, Writer

MAX_SOURCES = 64
MAX_URL_SIZE = 4096
MAX_PIN_SIZE = 255
MAX_GENERATIONS = 1024
MAX_KEY_ID = 2**32 - 1


@dataclass(slots=True, frozen=True, kw_only=True)
class Foreign:
    """Another volume whose SSTs this one reads, up to an epoch. Holds secrets, which its repr leaves out."""

    url: str
    volume_id: bytes
    last_epoch: int
    pin: str = ""
    """The checkpoint there that holds them for this volume; empty when another source's pin does."""
    block_keys: Mapping[KeyId, bytes] = field(default_factory=dict, repr=False)
    """Subkeys of blocks by generation. Without any, nothing is read from there any more."""
    chunk_keys: Mapping[KeyId, bytes] = field(default_factory=dict, repr=False)
    """Subkeys of chunks, of the same generations."""

    @property
    def is_read(self) -> bool:
        """Whether objects may still be read from there; else only its pin is left to be released."""
        return bool(self.block_keys)

    def without_keys(self) -> "Foreign":
        """What is left of it when nothing is read from there any more."""
        return replace(self, block_keys={}, chunk_keys={})


def last_foreign_epoch(table: Iterable[Foreign]) -> int:
    """SSTs of epochs up to this one are another volume's; 0 when all are this volume's own."""
    return max((source.last_epoch for source in table if source.is_read), default=0)


def write_table(out: Writer, table: tuple[Foreign, ...]) -> None:
    """Append the table; nothing when there are no sources."""
    if not table:
        return
    out.uvarint(len(table))
    for source in table:
        out.sized(source.url.encode("utf-8", "surrogateescape")).raw(source.volume_id).uvarint(source.last_epoch)
        out.sized(source.pin.encode()).uvarint(len(source.block_keys))
        for key_id, key in sorted(source.block_keys.items()):
            out.uvarint(key_id).raw(key).raw(source.chunk_keys[key_id])


def read_table(reader: Reader, epoch: int, name: str) -> tuple[Foreign, ...]:
    """The table in the rest of a manifest of `epoch`; empty when nothing is left. Raises CorruptionError."""
    if not reader.remaining():
        return ()
    count = reader.bounded(MAX_SOURCES)
    if not count:
        raise CorruptionError(f"{name}: its foreign table is empty")
    table = tuple(_read_source(reader, name) for _ in range(count))
    epochs = [*(source.last_epoch for source in table), epoch]
    if any(left >= right for left, right in itertools.pairwise(epochs)):
        raise CorruptionError(f"{name}: the epochs of its foreign table do not ascend to its own")
    return table


def _read_source(reader: Reader, name: str) -> Foreign:
    url = reader.sized(MAX_URL_SIZE).decode("utf-8", "surrogateescape")
    volume_id, last_epoch = reader.raw(VOLUME_ID_SIZE), reader.bounded(MAX_EPOCH)
    try:
        pin = reader.sized(MAX_PIN_SIZE).decode()
    except UnicodeDecodeError as error:
        raise CorruptionError(f"{name}: the name of a pin is not UTF-8") from error
    block_keys: dict[KeyId, bytes] = {}
    chunk_keys: dict[KeyId, bytes] = {}
    last = -1
    for _ in range(reader.bounded(MAX_GENERATIONS)):
        key_id = KeyId(reader.bounded(MAX_KEY_ID))
        if key_id <= last:
            raise CorruptionError(f"{name}: the key ids of a source do not ascend")
        last = key_id
        block_keys[key_id], chunk_keys[key_id] = reader.raw(KEY_SIZE), reader.raw(KEY_SIZE)
    return Foreign(
        url=url, volume_id=volume_id, last_epoch=last_epoch, pin=pin, block_keys=block_keys, chunk_keys=chunk_keys
    )
