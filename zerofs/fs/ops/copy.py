"""copy_file_range(2): bytes from one file to another. Whole chunks are shared where they lie, the rest is copied."""

import errno
import os

from zerofs.errors import FsError
from zerofs.fs import content
from zerofs.fs.chunking import MAX_FILE_SIZE
from zerofs.fs.context import Context
from zerofs.fs.format.keys import chunk_key
from zerofs.fs.handles import Handle
from zerofs.fs.ops.contents import commit_contents
from zerofs.fs.ops.times import note_access
from zerofs.fs.ports import Row
from zerofs.fs.usage import charge
from zerofs.units import CHUNK_SIZE, MIB

SHARED_MAX = 256
"""Chunks of one call. Those that are not in the store yet are copied in memory, so this bounds it: 8 MiB."""

COPIED_MAX_BYTES = MIB
"""Bytes of one call that are copied because they do not lie at chunk borders."""


async def copy_range(ctx: Context, source: int, source_offset: int, target: int, target_offset: int, size: int) -> int:
    """Copy up to `size` bytes; how many were. 0 only at the end of the source, or for a size of 0.

    Fewer than asked is usual: callers repeat, as for copy_file_range(2). Each call is one operation, all or nothing.
    Raises EBADF (not open for reading, or for writing, or for appending), EISDIR, EINVAL (no regular files, negative
    numbers, ranges of one file that overlap), EFBIG, ENOSPC, EROFS.
    """
    origin, destination = ctx.handles.file(source), ctx.handles.file(target)
    size = _checked_size(origin, source_offset, destination, target_offset, size)
    if not size:
        return 0
    await ctx.admit(min(size, SHARED_MAX * CHUNK_SIZE))
    with await ctx.locks.hold(origin.node.number, destination.node.number):
        size = min(size, origin.node.size - source_offset)
        if size <= 0:
            return 0
        if origin.node is destination.node and abs(source_offset - target_offset) < size:
            raise FsError(errno.EINVAL, "the ranges overlap")
        into_chunk = source_offset % CHUNK_SIZE
        alike = into_chunk == target_offset % CHUNK_SIZE
        if alike and not into_chunk and size >= CHUNK_SIZE:
            count = min(size // CHUNK_SIZE, SHARED_MAX)
            await _share(ctx, origin, source_offset, destination, target_offset, count)
            size = count * CHUNK_SIZE
        else:
            # Where both begin at the same place in a chunk, the next call can share.
            size = min(size, CHUNK_SIZE - into_chunk if alike else COPIED_MAX_BYTES)
            await _copy(ctx, origin, source_offset, destination, target_offset, size)
    note_access(ctx, origin.node)
    return size


def _checked_size(origin: Handle, source_offset: int, destination: Handle, target_offset: int, size: int) -> int:
    """How much may be copied at most. Raises as `copy_range`."""
    if origin.flags & os.O_ACCMODE == os.O_WRONLY or not destination.writable or destination.flags & os.O_APPEND:
        raise FsError(errno.EBADF)
    if min(source_offset, target_offset, size) < 0 or not (origin.node.is_regular and destination.node.is_regular):
        raise FsError(errno.EINVAL)
    if not size:
        return 0
    if target_offset >= MAX_FILE_SIZE:
        raise FsError(errno.EFBIG)
    return min(size, MAX_FILE_SIZE - target_offset)


async def _share(
    ctx: Context, origin: Handle, source_offset: int, destination: Handle, target_offset: int, count: int
) -> None:
    source, target = origin.node, destination.node
    first, size = source_offset // CHUNK_SIZE, count * CHUNK_SIZE
    found = await content.existing(ctx.engine, target, target_offset, size)
    keys = [chunk_key(source.number, index) for index in range(first, first + count)]
    growth = content.growth_of_write(target, target_offset, size, found)
    _require_room(ctx, growth)
    values = await ctx.engine.shareable(keys)
    # atomic from here: what is shared is held for this instant only
    _require_room(ctx, growth)
    content.require_no_loss(source, first, values)
    counted = charge(target)
    rows: list[Row] = [(target.key, target)]
    content.stage_share(rows, target, target_offset // CHUNK_SIZE, values, found)
    commit_contents(ctx, rows, target, counted, privileges_go=destination.takes_privileges)


async def _copy(
    ctx: Context, origin: Handle, source_offset: int, destination: Handle, target_offset: int, size: int
) -> None:
    target = destination.node
    data = b"".join(await content.read(ctx.engine, ctx.locks, origin.node, source_offset, size))
    found = await content.existing(ctx.engine, target, target_offset, size, data)
    _require_room(ctx, content.growth_of_write(target, target_offset, size, found))
    counted = charge(target)
    rows: list[Row] = [(target.key, target)]
    content.stage_write(rows, target, target_offset, data, found)
    commit_contents(ctx, rows, target, counted, privileges_go=destination.takes_privileges)


def _require_room(ctx: Context, growth: int) -> None:
    ctx.usage.require_room(growth)
    ctx.require_writable()
