"""fallocate(2): room for bytes that are still to come, and ranges that become zeros or holes."""

import errno

from zerofs.errors import FsError
from zerofs.fs import content
from zerofs.fs.chunking import MAX_FILE_SIZE
from zerofs.fs.context import Context
from zerofs.fs.ops.contents import commit_contents
from zerofs.fs.ports import KeyRange, Row
from zerofs.fs.usage import charge

# Source: linux/falloc.h
KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10

_ALLOCATE = (0, KEEP_SIZE)
_ZERO = (PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE)


async def allocate(ctx: Context, number: int, mode: int, offset: int, size: int) -> None:
    """What fallocate(2) does to [offset, offset + size) of an open file, by its `mode`.

    0 and KEEP_SIZE see that the quota has room for all of it now; they reserve nothing, as zeros take no space here.
    PUNCH_HOLE and ZERO_RANGE make it read as zeros and give its chunks back. 0 and ZERO_RANGE alone let the file grow.
    Each is a change of contents: times change, privileges go. Raises EBADF (not open for writing), EISDIR, EINVAL
    (nothing, or before the start), EFBIG, ENODEV (no regular file), EOPNOTSUPP (other modes), ENOSPC, EROFS.
    """
    handle = ctx.handles.file(number)
    node = handle.node
    if not handle.writable:
        raise FsError(errno.EBADF)
    if offset < 0 or size <= 0:
        raise FsError(errno.EINVAL)
    if mode not in _ALLOCATE and mode not in _ZERO:
        raise FsError(errno.EOPNOTSUPP)
    if not node.is_regular:
        raise FsError(errno.ENODEV)
    end = offset + size
    if end > MAX_FILE_SIZE:
        raise FsError(errno.EFBIG)
    await ctx.admit()
    with await ctx.locks.hold(node.number):
        new_size = node.size if mode & KEEP_SIZE else max(node.size, end)
        if mode in _ALLOCATE:
            growth = await content.growth_of_allocation(ctx.engine, node, offset, end, new_size)
            zeroing = None
        else:
            growth = content.growth_of_resize(node, new_size)
            zeroing = await content.plan_zeroing(ctx.engine, node, offset, end)
        ctx.usage.require_room(growth)
        ctx.require_writable()
        counted = charge(node)
        rows: list[Row] = [(node.key, node)]
        ranges: list[KeyRange] = []
        if zeroing is not None:
            content.stage_zeroing(rows, ranges, node, zeroing)
        if new_size > node.size:
            content.stage_resize(rows, ranges, node, content.Resize(new_size))
        commit_contents(ctx, rows, node, counted, privileges_go=handle.takes_privileges, ranges=ranges)
