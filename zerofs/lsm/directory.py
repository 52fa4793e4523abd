"""The directory of a chunk SST, read from the store: which frames stand in it, and where.

Header and lengths are what somebody with the store may have made up; nothing is asked for or allocated before they
were bounded.
"""

from collections.abc import Iterator

from zerofs.errors import CorruptionError
from zerofs.lsm.format.header import HEADER_SIZE, Header
from zerofs.lsm.format.names import SstId, sst_name
from zerofs.lsm.format.sst import MAX_DIRECTORY_SIZE, MAX_OBJECT_SIZE, DirectoryEntry, decode_directory, place
from zerofs.lsm.registers import chunk_sst_header
from zerofs.lsm.storage import Storage
from zerofs.world import Lane


async def read_directory(storage: Storage, sst: SstId, frames_length: int | None = None) -> list[DirectoryEntry]:
    """The frames of a chunk SST, in their order; the first one follows the header. See `placed` for where they are.

    Raises CorruptionError (also when its frames have another length than the one given), MissingObjectError,
    UnavailableError.
    """
    name, origin = sst_name(sst), storage.origins.of(sst[0])
    header = await chunk_sst_header(storage, sst)
    _check(header, name, frames_length)
    offset = HEADER_SIZE + header.first_length
    sealed = await origin.get_part(name, offset, header.second_length)
    where = place(name, offset, header.put_id)

    def work() -> list[DirectoryEntry]:
        try:
            text = origin.directory.open(sealed, where, MAX_DIRECTORY_SIZE)
        except CorruptionError as error:
            raise CorruptionError(f"{name}: directory{origin.where}: {error}") from error
        return decode_directory(text, frames_length=header.first_length, what=name)

    return await storage.world.offload(Lane.CPU, work)


def placed(entries: list[DirectoryEntry]) -> Iterator[tuple[int, DirectoryEntry]]:
    """Each entry with the offset of its frame in the object."""
    offset = HEADER_SIZE
    for entry in entries:
        yield offset, entry
        offset += entry.length


def _check(header: Header, name: str, frames_length: int | None) -> None:
    if frames_length is not None and header.first_length != frames_length:
        raise CorruptionError(f"{name}: {header.first_length} bytes of frames, its register says {frames_length}")
    if not 0 < header.second_length <= MAX_DIRECTORY_SIZE or header.object_size > MAX_OBJECT_SIZE:
        raise CorruptionError(f"{name}: its header tells impossible lengths")
