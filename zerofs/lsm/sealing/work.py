"""Work for threads: bytes in, bytes out, no shared object touched."""

from collections.abc import Sequence

from zerofs.lsm.chunk import Frame, Text
from zerofs.lsm.format.pointer import NONCE_SIZE
from zerofs.transform.frame import Sealer
from zerofs.units import CHUNK_SIZE


def seal_chunks(sealer: Sealer, texts: Sequence[Text], nonces: bytes) -> list[bytes]:
    """A frame for each chunk. `nonces`: as many fresh nonces, joined."""
    seal = sealer.seal
    return [
        seal(text, b"", nonces[start : start + NONCE_SIZE])
        for text, start in zip(texts, range(0, len(nonces), NONCE_SIZE), strict=True)
    ]


def open_chunks(sealers: Sequence[Sealer], frames: Sequence[Frame]) -> list[Text]:
    """The chunks in the frames, each with its sealer. Raises CorruptionError for a frame that does not open."""
    return [sealer.open_text(frame, b"", CHUNK_SIZE) for sealer, frame in zip(sealers, frames, strict=True)]
