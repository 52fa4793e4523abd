"""Work for threads: bytes in, bytes out, no shared object touched."""

from collections.abc import Sequence
from dataclasses import dataclass

from zerofs.lsm.chunk import Frame, Text
from zerofs.lsm.format.bloom import build_bloom
from zerofs.lsm.format.header import HEADER_SIZE
from zerofs.lsm.format.pointer import NONCE_SIZE
from zerofs.lsm.format.rows import Row, encode_rows, split_rows
from zerofs.lsm.format.sst import encode_index, place
from zerofs.lsm.ranges import KeyRanges
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


SstSealers = tuple[Sealer, Sealer]
"""Of blocks and of indexes."""


@dataclass(slots=True, frozen=True, kw_only=True)
class SealedSst:
    """The sections of a meta SST, and what the manifest says of it."""

    blocks: list[bytes]
    index: bytes
    first_key: bytes
    last_key: bytes
    row_count: int

    @property
    def blocks_length(self) -> int:
        """Bytes of the first section."""
        return sum(map(len, self.blocks))


def seal_meta_sst(
    rows: Sequence[Row],
    ranges: KeyRanges,
    *,
    block_size_bytes: int,
    name: str,
    token: bytes,
    nonces: bytes,
    sealers: SstSealers,
) -> SealedSst:
    """Rows in ascending key order, and the run's range deletes, as the sections of the meta SST called `name`.

    `nonces` holds at least `nonces_needed(rows, block_size_bytes)` fresh nonces, joined.
    """
    block_sealer, index_sealer = sealers
    nonce = iter([nonces[i : i + NONCE_SIZE] for i in range(0, len(nonces), NONCE_SIZE)])
    frames: list[bytes] = []
    table: list[tuple[int, bytes]] = []
    offset = HEADER_SIZE
    for block in split_rows(rows, block_size_bytes):
        frame = block_sealer.seal(encode_rows(block), place(name, offset, token), next(nonce))
        frames.append(frame)
        table.append((len(frame), block[-1][0]))
        offset += len(frame)
    bloom = build_bloom((row[0] for row in rows), len(rows))
    index = encode_index(row_count=len(rows), blocks=table, range_deletes=ranges, bloom=bloom)
    return SealedSst(
        blocks=frames,
        index=index_sealer.seal(index, place(name, offset, token), next(nonce)),
        first_key=rows[0][0] if rows else b"",
        last_key=rows[-1][0] if rows else b"",
        row_count=len(rows),
    )


def nonces_needed(rows: Sequence[Row], block_size_bytes: int) -> int:
    """Frames that `seal_meta_sst` may make of these rows, index included; never too few."""
    return 2 + 2 * sum(len(key) + len(value) + 7 for key, _, value in rows) // block_size_bytes
