"""Reading and changing registers: the rows that say how much of a chunk SST is referred to (decision 0009)."""

from collections.abc import AsyncGenerator, Mapping

import trio

from zerofs.errors import CorruptionError
from zerofs.lsm.format.header import CHUNK_SST_MAGIC, HEADER_SIZE, Header, decode_header
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.names import SstId, sst_name
from zerofs.lsm.format.register import (
    REGISTERS,
    Register,
    back_references,
    decode_register,
    encode_register,
    parse_register_key,
    register_key,
)
from zerofs.lsm.format.rows import DELETE, PUT, Row
from zerofs.lsm.format.trees import SPACE_PREFIX
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.reader import TreeView, merge_slices
from zerofs.lsm.sst import SstReader
from zerofs.lsm.storage import Storage

SCAN_ROWS = 1024
LOOKUPS_AT_ONCE = 64


class RegisterView:
    """The registers of one version."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self._storage = storage
        self._view = TreeView(manifest.tree(SPACE_PREFIX), SstReader(storage, manifest.tokens))

    async def get(self, sst: SstId) -> Register | None:
        """The register of a chunk SST; None when the chunk tree of this version does not refer to it."""
        row = await self._view.get(register_key(sst))
        return None if row is None else decode_register(row[2])

    async def all(self) -> AsyncGenerator[tuple[SstId, Register], None]:
        """Every register, in the order of the SSTs' names."""
        start, stop = REGISTERS
        while start < stop:
            rows, start = merge_slices(await self._view.slices(start, stop, SCAN_ROWS), stop)
            for key, _, value in rows:
                assert type(value) is bytes, "trees hold encoded rows"
                yield parse_register_key(key), decode_register(value)
            await trio.lowlevel.checkpoint()  # with everything cached, requests would wait for the last page

    async def changed(
        self, changes: Mapping[SstId, int], sizes: Mapping[SstId, int]
    ) -> tuple[list[Row], KeyRanges, "Changed"]:
        """What adds `changes` (bytes, negative for less) to the registers, and what they say then.

        Rows in key order, and range deletes: the back-references of SSTs that nothing points into any more.
        `sizes`: frame bytes of SSTs that have no register yet; asked from the store for one that is not in it.
        Raises CorruptionError when a register would fall below zero.
        """
        rows: list[Row] = []
        ranges = KeyRanges()
        after: dict[SstId, Register | None] = {}
        for number, (sst, change) in enumerate(sorted(changes.items())):
            if number % LOOKUPS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            before = await self.get(sst)
            live_bytes = (before.live_bytes if before is not None else 0) + change
            if live_bytes < 0:
                raise CorruptionError(f"{sst_name(sst)}: its register would fall to {live_bytes} bytes")
            if not live_bytes:
                after[sst] = None
                if before is not None:
                    rows.append((register_key(sst), DELETE, b""))
                start, stop = back_references(sst)
                if any(piece.rows for piece in await self._view.slices(start, stop, 1)):
                    ranges.add(start, stop)
                continue
            size = before.frame_bytes if before is not None else sizes.get(sst)
            if size is None:
                size = (await chunk_sst_header(self._storage, sst)).first_length
            after[sst] = register = Register(live_bytes, size)
            rows.append((register_key(sst), PUT, encode_register(register)))
        return rows, ranges, after


async def chunk_sst_header(storage: Storage, sst: SstId) -> Header:
    """The header of a chunk SST. Raises CorruptionError, UnavailableError."""
    name, origin = sst_name(sst), storage.origins.of(sst[0])
    head = await origin.get_part(name, 0, HEADER_SIZE)
    return decode_header(head, magic=CHUNK_SST_MAGIC, volume_id=origin.volume_id, name=name)


Changed = Mapping[SstId, Register | None]
"""Registers after a change; None for an SST that nothing refers to any more."""


class KnownRegisters:
    """What this process knows of the current registers without asking: those that changed, or all after `learn`."""

    def __init__(self) -> None:
        self.by_sst: dict[SstId, Register] = {}
        self._complete = False

    def note(self, changed: Changed) -> None:
        """A version with these registers is in force now."""
        for sst, register in changed.items():
            if register is None:
                self.by_sst.pop(sst, None)
            else:
                self.by_sst[sst] = register

    async def learn(self, view: RegisterView) -> None:
        """Know them all: read the registers of the current version, once."""
        if not self._complete:
            self._complete = True
            try:
                found = {sst: register async for sst, register in view.all()}
            except BaseException:
                self._complete = False
                raise
            self.by_sst = found | self.by_sst
