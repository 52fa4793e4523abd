"""Sealers under keys that everybody knows: for tests and simulation."""

from zerofs.ids import KeyId
from zerofs.lsm.storage import Sealers
from zerofs.transform.compression import Compression
from zerofs.transform.frame import Kind, Sealer


def simulated_sealers(volume_id: bytes) -> Sealers:
    """Sealers under keys that everybody knows."""
    compression = Compression.parse("zstd-1")

    def sealer(kind: Kind) -> Sealer:
        return Sealer(
            volume_id=volume_id,
            kind=kind,
            subkeys={KeyId(1): bytes([kind]) * 32},
            current=KeyId(1),
            compression=compression,
        )

    return Sealers(
        block=sealer(Kind.META_BLOCK),
        index=sealer(Kind.META_INDEX),
        chunk=sealer(Kind.CHUNK),
        directory=sealer(Kind.CHUNK_DIRECTORY),
        wal=sealer(Kind.WAL),
        manifest=sealer(Kind.MANIFEST),
    )
