"""What a volume's newest manifest says, read without a mount by whoever knows the password."""

import contextlib

import trio

from zerofs.crypto.secret import Secret
from zerofs.keys import vault
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.storage import Storage
from zerofs.objectstore.open import open_store
from zerofs.objectstore.options import S3Options
from zerofs.telemetry.metrics import Metrics
from zerofs.transform.compression import Compression
from zerofs.volume import make_sealers
from zerofs.world import World


def newest_manifest(url: str, password: str) -> Manifest:
    """The newest manifest of the volume at a `file://` address."""

    async def read() -> Manifest:
        world, metrics = World(), Metrics()
        async with contextlib.aclosing(open_store(url, S3Options(), world, metrics)) as store:
            keyring = await vault.unseal(store, world, Secret(password.encode()))
            storage = Storage(
                store=store,
                world=world,
                sealers=make_sealers(keyring, Compression.parse("zstd-3")),
                volume_id=keyring.volume_id,
                metrics=metrics,
                cache_memory_bytes=0,
            )
            return await ManifestStore(storage).latest()

    return trio.run(read)
