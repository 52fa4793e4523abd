"""A meta SST in the making. Its rows are sealed as they come, block by block.

What is held is what will be stored, eight bytes for each row, and the rows of one block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from zerofs.crypto import aead
from zerofs.lsm.format.bloom import build_bloom, hash_keys
from zerofs.lsm.format.header import HEADER_SIZE
from zerofs.lsm.format.pointer import NONCE_SIZE
from zerofs.lsm.format.rows import Row, encode_rows, split_rows
from zerofs.lsm.format.sst import encode_index, place
from zerofs.lsm.ranges import KeyRanges
from zerofs.transform.frame import Sealer


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


class SstBuilder:
    """Makes the sections of the meta SST called `name`. Its methods are work for threads, one at a time.

    `seed`: the first nonce, random and fresh. What is sealed under one seed shares a derived key (`crypto.aead`).
    """

    def __init__(
        self, *, name: str, token: bytes, block_size_bytes: int, block: Sealer, index: Sealer, seed: bytes
    ) -> None:
        self._name = name
        self._token = token
        self._block_size_bytes = block_size_bytes
        self._block_sealer = block
        self._index_sealer = index
        self._seed = seed
        self._nonces_used = 0
        self._rest: list[Row] = []
        """Less than a block, or one."""
        self._frames: list[bytes] = []
        self._table: list[tuple[int, bytes]] = []
        """Of each block: the length of its frame, its last key."""
        self._hashes: list[bytes] = []
        self._first_key = b""
        self._count = 0
        self._offset = HEADER_SIZE

    def add(self, rows: Sequence[Row]) -> None:
        """Rows in ascending key order, behind all that came before."""
        if not rows:
            return
        if not self._count:
            self._first_key = rows[0][0]
        self._count += len(rows)
        self._hashes.append(hash_keys(row[0] for row in rows))
        *whole, self._rest = split_rows([*self._rest, *rows], self._block_size_bytes)
        self._seal_blocks(whole)

    def finish(self, ranges: KeyRanges) -> SealedSst:
        """The SST, with the range deletes of its run. Nothing may be added any more."""
        last_key = b""
        if self._rest:
            last_key = self._rest[-1][0]
            self._seal_blocks([self._rest])
        bloom = build_bloom(self._hashes)
        index = encode_index(row_count=self._count, blocks=self._table, range_deletes=ranges, bloom=bloom)
        where = place(self._name, self._offset, self._token)
        return SealedSst(
            blocks=self._frames,
            index=self._index_sealer.seal(index, where, self._nonces(1)),
            first_key=self._first_key,
            last_key=last_key,
            row_count=self._count,
        )

    def _nonces(self, count: int) -> bytes:
        nonces = aead.nonces(self._seed, count, self._nonces_used)
        self._nonces_used += count
        return nonces

    def _seal_blocks(self, blocks: Sequence[Sequence[Row]]) -> None:
        nonces = self._nonces(len(blocks))
        for number, block in enumerate(blocks):
            nonce = nonces[number * NONCE_SIZE : (number + 1) * NONCE_SIZE]
            where = place(self._name, self._offset, self._token)
            frame = self._block_sealer.seal(encode_rows(block), where, nonce)
            self._frames.append(frame)
            self._table.append((len(frame), block[-1][0]))
            self._offset += len(frame)
