"""Volumes with keys of their own, and clones of them, each in a store in memory."""

from tests.unit.lsm.kit import WRITER, Bed
from zerofs.admin.checkpoints import pin_name
from zerofs.admin.cloning import first_manifest
from zerofs.crypto.kdf import Purpose
from zerofs.crypto.secret import Secret
from zerofs.ids import KeyId
from zerofs.keys.format import Generation
from zerofs.keys.keyring import Keyring
from zerofs.lsm.checkpoints import find
from zerofs.lsm.format.foreign import Foreign
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.recovery import create_volume
from zerofs.objectstore.faults import FaultyStore
from zerofs.testing.world import SimWorld
from zerofs.transform.compression import DEFAULT_COMPRESSION
from zerofs.volume import make_sealers


class Family:
    """Volumes that may read each other, by URL. `reach`: how a clone's machine reaches a store."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.beds: dict[str, Bed] = {}
        self.faulty: dict[str, FaultyStore] = {}

    def bed(self, url: str) -> Bed:
        """A new volume's place, with keys and an id of its own."""
        bed = Bed(self.folder)
        number = len(self.beds) + 1
        bed.world = SimWorld(number)  # two volumes never draw the same nonces
        bed.volume_id = bytes([number]) * 16
        generation = Generation(key_id=KeyId(number), created_at_ns=0, dek=Secret(bytes([number]) * 32))
        bed.keyring = Keyring(volume_id=bed.volume_id, generations=[generation])
        bed.sealers = make_sealers(bed.keyring, DEFAULT_COMPRESSION)
        bed.open_source = self.open
        bed.url = url
        self.beds[url] = bed
        return bed

    def open(self, url: str):
        """What a clone opens a source with: read-only by nature, so a test may let it fail."""
        bed = self.beds[url]
        return self.faulty.setdefault(url, FaultyStore(bed.store, bed.world.random))

    async def source(self, url: str = "memory://source") -> Bed:
        bed = self.bed(url)
        storage = bed.storage()
        await create_volume(storage, ManifestStore(storage), WRITER)
        return bed

    async def clone(self, source: Bed, name: str, url: str = "memory://clone") -> Bed:
        """A clone of a checkpoint, pinned in the source."""
        bed = self.bed(url)
        pin = pin_name(bed.volume_id)
        async with source.open() as engine:
            await engine.checkpoints.copy(pin, name)
            newest = engine.manifest
        state = await ManifestStore(source.storage()).load(find(newest, pin).manifest_id)
        first = first_manifest(state, entry(source), pin, b"t" * 16, 0)
        await ManifestStore(bed.storage()).create(first)
        return bed


def entry(bed: Bed) -> Foreign:
    """A volume as a clone's table names it."""
    return Foreign(
        url=bed.url,
        volume_id=bed.volume_id,
        last_epoch=0,
        block_keys=bed.keyring.subkeys(Purpose.BLOCKS),
        chunk_keys=bed.keyring.subkeys(Purpose.CHUNKS),
    )
