"""From an engine to a mounted filesystem: the first rows of an empty one, the checks of an existing one."""

import logging
import stat

from zerofs.errors import CorruptionError, NoVolumeError, UnsupportedFormatError
from zerofs.fs.context import Context
from zerofs.fs.format.keys import COUNTERS_KEY, META_RANGE, SUPERBLOCK_KEY, inode_key
from zerofs.fs.format.records import (
    FORMAT_VERSION,
    Counters,
    Inode,
    Superblock,
    decode_counters,
    decode_superblock,
    encode_superblock,
)
from zerofs.fs.options import FilesystemOptions
from zerofs.fs.ports import Engine
from zerofs.fs.usage import Usage
from zerofs.units import CHUNK_SIZE
from zerofs.world import World

ROOT_INODE = 1

_log = logging.getLogger(__name__)


async def open_context(engine: Engine, options: FilesystemOptions, world: World) -> Context:
    """See `Filesystem.mount`."""
    row = await engine.get(SUPERBLOCK_KEY)
    if row is None:
        await _make_filesystem(engine, options, world)
    else:
        _check_superblock(decode_superblock(_stored(row, "superblock")))
    row = await engine.get(COUNTERS_KEY)
    if row is None:
        raise CorruptionError("the filesystem's counters are missing although its superblock is there")
    counters = row if isinstance(row, Counters) else decode_counters(_stored(row, "counters"))
    context = Context(engine, options, world, Usage(counters, options.max_size_bytes))
    root = await context.inodes.find(ROOT_INODE)
    if root is None or not root.is_directory:
        raise CorruptionError("the root directory is missing although the superblock is there")
    if not options.read_only:
        count = await context.orphans.reclaim_left_over()
        if count:
            _log.info("reclaimed %d files that an earlier mount had unlinked while they were open", count)
    return context


def _stored(row: object, what: str) -> bytes:
    if not isinstance(row, bytes):
        raise CorruptionError(f"{what}: its row holds {type(row).__name__}")
    return row


def _check_superblock(superblock: Superblock) -> None:
    if superblock.version > FORMAT_VERSION or superblock.features:
        raise UnsupportedFormatError(
            f"the filesystem has format {superblock.version} with features {superblock.features:#x}; "
            f"this zerofs knows format {FORMAT_VERSION}: use the version that made it, or a newer one"
        )
    if superblock.version < 1 or superblock.chunk_size != CHUNK_SIZE:
        raise CorruptionError(f"superblock: version {superblock.version}, chunks of {superblock.chunk_size} bytes")


async def _make_filesystem(engine: Engine, options: FilesystemOptions, world: World) -> None:
    if await engine.scan(*META_RANGE, 1):
        raise CorruptionError("the superblock is missing although the filesystem holds other rows")
    if options.read_only:
        raise NoVolumeError("there is no filesystem yet; mount it once read-write to make one")
    now_ns = world.now_ns()
    root = Inode(
        ROOT_INODE,
        inode_key(ROOT_INODE),
        mode=stat.S_IFDIR | 0o755,
        uid=options.root_uid,
        gid=options.root_gid,
        now_ns=now_ns,
    )
    root.nlink = 2
    root.parent = ROOT_INODE
    engine.commit(
        [
            (SUPERBLOCK_KEY, encode_superblock(Superblock(created_ns=now_ns))),
            (COUNTERS_KEY, Counters(next_inode=ROOT_INODE + 1, used_inodes=1)),
            (root.key, root),
        ]
    )
