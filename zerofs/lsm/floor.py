"""The floor: the lowest manifest id that may still be created (decisions 0003, 0010).

Before old manifests are deleted the floor is raised above them: whoever then creates one of those ids again, having
slept for a long time, learns from the floor that the creation proves nothing. A small sealed object, replaced by
conditional put only; it never falls.
"""

from dataclasses import replace as replace_fields

from zerofs.errors import CorruptionError, ObjectNotFoundError, PreconditionFailedError
from zerofs.lsm.format.header import (
    FLOOR_MAGIC,
    HEADER_SIZE,
    Header,
    decode_whole_header,
    encode_header,
    header_identity,
)
from zerofs.lsm.format.names import FLOOR_NAME
from zerofs.lsm.storage import CREATE_DEADLINE_S, Storage
from zerofs.objectstore.conditional import create, replace
from zerofs.transform.frame import FRAME_OVERHEAD
from zerofs.wire import Reader, Writer

TEXT_SIZE = 8
MAX_FLOOR_SIZE = HEADER_SIZE + FRAME_OVERHEAD + TEXT_SIZE


class Floor:
    """The floor of one volume. `epoch`, in what it writes, tells people who raised it; nothing depends on it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def get(self) -> int:
        """The floor; 0 when no manifest was ever deleted. Waits for a store that does not answer, unless opening.

        Raises CorruptionError.
        """
        body = await self._storage.get_patiently(FLOOR_NAME, MAX_FLOOR_SIZE)
        return 0 if body is None else self._open(body)

    async def raise_to(self, manifest_id: int, epoch: int) -> int:
        """Make the floor at least `manifest_id`. Returns what it is afterwards, as read back from the store.

        Raises UnavailableError, CorruptionError.
        """
        storage = self._storage
        store, world = storage.store, storage.world
        while True:
            try:
                body, version = await store.get_versioned(FLOOR_NAME, limit_bytes=MAX_FLOOR_SIZE)
            except ObjectNotFoundError:
                floor, version = 0, ""
            else:
                floor = self._open(body)
            if floor >= manifest_id:
                return floor
            put_id = storage.new_put_id()
            sealed = self._seal(manifest_id, epoch, put_id)
            try:
                if version:
                    await replace(store, world, FLOOR_NAME, sealed, version, put_id, CREATE_DEADLINE_S)
                else:
                    await create(store, world, FLOOR_NAME, sealed, put_id, CREATE_DEADLINE_S)
            except PreconditionFailedError:
                continue  # somebody else raised it at the same moment

    def _seal(self, manifest_id: int, epoch: int, put_id: bytes) -> bytes:
        storage = self._storage
        header = Header(
            magic=FLOOR_MAGIC, epoch=epoch, put_id=put_id, volume_id=storage.volume_id, first_length=0, second_length=0
        )
        text = Writer().u64(manifest_id).getvalue()
        frame = storage.sealers.manifest.seal(text, _place(header), storage.nonces(1))
        return encode_header(replace_fields(header, first_length=len(frame))) + frame

    def _open(self, body: bytes) -> int:
        storage = self._storage
        header = decode_whole_header(body, magic=FLOOR_MAGIC, volume_id=storage.volume_id, name=FLOOR_NAME)
        try:
            text = storage.sealers.manifest.open(body[HEADER_SIZE:], _place(header), TEXT_SIZE)
        except CorruptionError as error:
            raise CorruptionError(f"{FLOOR_NAME}: {error}") from error
        reader = Reader(text, FLOOR_NAME)
        floor = reader.u64()
        reader.expect_end()
        return floor


def _place(header: Header) -> bytes:
    return FLOOR_NAME.encode("ascii") + b"\0" + header_identity(header)
