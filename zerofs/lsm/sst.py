"""Meta SSTs: written whole, read block by block through the caches."""

from collections.abc import Sequence

from zerofs.crypto import aead
from zerofs.errors import CorruptionError
from zerofs.lsm.blockfetcher import BlockFetcher
from zerofs.lsm.chunk import Frame
from zerofs.lsm.format.header import HEADER_SIZE, META_SST_MAGIC, Header, encode_header
from zerofs.lsm.format.manifest import SstInfo
from zerofs.lsm.format.names import SstId, sst_name
from zerofs.lsm.format.rows import Row, Rows, decode_rows
from zerofs.lsm.format.sst import MAX_BLOCK_SIZE, MAX_INDEX_SIZE, SstIndex, decode_index, place
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sstbuilder import SstBuilder
from zerofs.lsm.storage import Storage
from zerofs.transform.frame import Sealer
from zerofs.world import Lane


class SstWriter:
    """Makes one meta SST of rows that come in parts, and stores it."""

    def __init__(self, storage: Storage, sst: SstId, token: bytes, block_size_bytes: int) -> None:
        """`token`: of the epoch that `sst` was minted under."""
        self._storage = storage
        self._sst = sst
        self._builder = SstBuilder(
            name=sst_name(sst),
            token=token,
            block_size_bytes=block_size_bytes,
            block=storage.sealers.block,
            index=storage.sealers.index,
            seed=storage.world.entropy(aead.NONCE_SIZE),
        )

    async def add(self, rows: Sequence[Row]) -> None:
        """Rows in ascending key order, behind all that came before."""
        await self._storage.world.offload(Lane.CPU, self._builder.add, rows)

    async def put(self, ranges: KeyRanges) -> SstInfo:
        """Store the SST, which may have no rows if there are range deletes. Nothing may be added any more."""
        storage = self._storage
        sealed = await storage.world.offload(Lane.CPU, self._builder.finish, ranges)
        put_id = storage.new_put_id()
        header = encode_header(
            Header(
                magic=META_SST_MAGIC,
                epoch=self._sst[0],
                put_id=put_id,
                volume_id=storage.volume_id,
                first_length=sealed.blocks_length,
                second_length=len(sealed.index),
            )
        )
        body = [header, *sealed.blocks, sealed.index]
        info = SstInfo(
            sst=self._sst,
            size_bytes=sum(map(len, body)),
            index_length=len(sealed.index),
            row_count=sealed.row_count,
            first_key=sealed.first_key,
            last_key=sealed.last_key,
        )
        await storage.create(info.name, body, put_id)
        storage.metrics.add("meta_ssts")
        storage.metrics.add("meta_sst_bytes", info.size_bytes)
        return info


async def put_meta_sst(
    storage: Storage, sst: SstId, token: bytes, rows: Sequence[Row], ranges: KeyRanges, block_size_bytes: int
) -> SstInfo:
    """Store one SST of rows that are all there; see SstWriter."""
    writer = SstWriter(storage, sst, token, block_size_bytes)
    await writer.add(rows)
    return await writer.put(ranges)


class SstReader:
    """Reads the meta SSTs of a manifest. `tokens`: epoch → token, from that manifest."""

    def __init__(self, storage: Storage, tokens: dict[int, bytes], fetcher: BlockFetcher | None = None) -> None:
        self._storage = storage
        self._tokens = tokens
        self._fetcher = fetcher or BlockFetcher(storage)

    async def index(self, info: SstInfo) -> SstIndex:
        """The index of an SST: one GET of its tail when it is in no cache."""
        cached = self._storage.indexes.get(info.sst)
        if cached is not None:
            return cached
        offset = info.size_bytes - info.index_length
        frame = await self._fetcher.section(info, offset, info.index_length)
        text = await self._open(self._fetcher.origin(info).index, info, offset, frame, MAX_INDEX_SIZE)
        index = decode_index(text, blocks_length=offset - HEADER_SIZE, what=info.name)
        self._storage.indexes.put(info.sst, index, index.size_bytes)
        return index

    def block_in_memory(self, info: SstInfo, number: int) -> Rows | None:
        """A block if it is in memory. It has not been used before somebody says so: see `used`."""
        return self._storage.blocks.peek((info.sst, number))

    def used(self, info: SstInfo, number: int) -> None:
        """A block that was in memory had what was wanted."""
        self._storage.blocks.get((info.sst, number))

    async def block(self, info: SstInfo, index: SstIndex, number: int) -> Rows:
        """One block of an SST: from memory, the disk cache or the store, where those that follow may come with it."""
        place_in_cache = (info.sst, number)
        cached = self._storage.blocks.get(place_in_cache)
        while cached is None and await self._fetcher.others(info, number):
            cached = self._storage.blocks.peek(place_in_cache)
        if cached is not None:
            return cached
        offset = index.offsets[number]
        frame = await self._fetcher.block(info, index.offsets, number)
        text = await self._open(self._fetcher.origin(info).block, info, offset, frame, MAX_BLOCK_SIZE)
        rows = decode_rows(text, f"{info.name} at byte {offset}")
        self._storage.blocks.put(place_in_cache, rows, rows.size_bytes)
        return rows

    async def _open(self, sealer: Sealer, info: SstInfo, offset: int, frame: Frame, limit: int) -> bytes:
        """Open a frame; one that came damaged from the disk cache, or with others, is fetched again once."""
        where = place(info.name, offset, self._token(info))
        try:
            return sealer.open(frame, where, limit)
        except CorruptionError as error:
            again = await self._fetcher.again(info, offset, len(frame))
            at = f"{info.name} at byte {offset}{self._fetcher.origin(info).where}"
            if again == frame:
                raise CorruptionError(f"{at}: {error}") from error
            try:
                return sealer.open(again, where, limit)
            except CorruptionError as second:
                raise CorruptionError(f"{at}: {second}") from second

    def _token(self, info: SstInfo) -> bytes:
        try:
            return self._tokens[info.sst[0]]
        except KeyError:
            raise CorruptionError(f"{info.name}: the manifest holds no token for its epoch") from None
