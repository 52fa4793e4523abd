"""Open files: opening, reading, writing, making durable, closing, and where the holes are."""

import contextlib
import errno
import os
from collections.abc import Sequence

from zerofs.errors import FsError, ObjectStoreError, ZerofsError
from zerofs.fs import chunks, content
from zerofs.fs.access import Caller
from zerofs.fs.chunking import MAX_FILE_SIZE
from zerofs.fs.chunks import Data
from zerofs.fs.context import Context
from zerofs.fs.format.records import INLINE_LIMIT, Inode
from zerofs.fs.ops.contents import commit_contents
from zerofs.fs.ops.create import open_held
from zerofs.fs.ops.times import note_access
from zerofs.fs.ports import Base, Row
from zerofs.fs.readahead import ReadAhead
from zerofs.fs.usage import charge


async def open_(ctx: Context, caller: Caller, inode: int, flags: int, keep_times: bool = False) -> int:
    """A handle on something that is no directory; O_TRUNC empties it, and with `keep_times` leaves the times alone.

    O_APPEND does nothing here: the offsets that a kernel sends are final. Raises EACCES, EISDIR, ELOOP, EROFS, ESTALE.
    """
    with await ctx.locks.hold(inode):
        node = await ctx.inodes.get(inode)
        await open_held(ctx, caller, node, flags, keep_times=keep_times)
        return ctx.handles.open(node, flags, caller.takes_privileges)


def release(ctx: Context, number: int) -> None:
    """Close a handle; an orphan that nobody refers to any more is reclaimed. Raises EBADF."""
    ctx.orphans.released(ctx.handles.close(number).number)


async def read(ctx: Context, number: int, offset: int, size: int) -> Sequence[Data]:
    """Up to `size` bytes at `offset`, in pieces; fewer at the end of the file only.

    Also through a handle that was opened for writing only: a kernel with a writeback cache fills pages that way.
    Raises EBADF, EISDIR, EINVAL.
    """
    handle = ctx.handles.file(number)
    node = handle.node
    if offset < 0 or size < 0 or not node.is_regular:
        raise FsError(errno.EINVAL)
    if node.size <= INLINE_LIMIT:
        data: Sequence[Data] = (node.content[offset : offset + size],)
    else:
        if handle.read_ahead is None:
            handle.read_ahead = ReadAhead(ctx.streams)
        _fetch_ahead(ctx, node, handle.read_ahead, offset, size)
        data = await content.read(ctx.engine, ctx.locks, node, offset, size)
        if handle.stale:
            raise FsError(errno.ESTALE)
    ctx.read_bytes += sum(map(len, data))
    if not handle.flags & os.O_NOATIME:
        note_access(ctx, node)
    return data


def _fetch_ahead(ctx: Context, node: Inode, state: ReadAhead, offset: int, size: int) -> None:
    """Before a read: begin to fetch what the next ones will need, if that helps; see `ReadAhead.after`."""
    ahead = state.after(offset, size, node.size, ctx.engine.misses)
    if ahead is not None and not ctx.engine.prefetch(chunks.keys_of(node, *ahead)):
        state.refused(ahead[0])


async def write(
    ctx: Context, number: int, offset: int, data: bytes | memoryview, *, keep_times: bool, privileges_go: bool
) -> int:
    """Put `data` at `offset`, all of it or nothing; its length. Nothing happens for no data.

    `keep_times`: a kernel that caches writes keeps the times itself. It sends them when it thinks that they changed,
    which is not each time it sends data; so a write that comes out of its cache must leave them alone. `privileges_go`:
    also where whoever opened the file may leave a program its privileges.

    Raises EBADF (not open for writing), EISDIR, EINVAL, EFBIG, ENOSPC, EROFS. Whatever is raised for want of room or
    store is raised again by fsync and flush of every handle that is open on the file now.
    """
    handle = ctx.handles.file(number)
    node = handle.node
    size = len(data)
    if not handle.writable:
        raise FsError(errno.EBADF)
    if offset < 0 or not node.is_regular:
        raise FsError(errno.EINVAL)
    if not size:
        return 0
    if offset + size > MAX_FILE_SIZE:
        raise FsError(errno.EFBIG)
    try:
        await ctx.admit(size, held=True)
        if ctx.locks.is_held(node.number):
            await _look_up_ahead(ctx, node, offset, data)
        with await ctx.locks.hold(node.number):
            found = await _existing(ctx, node, offset, data) if node.size > INLINE_LIMIT else {}
            ctx.usage.require_room(content.growth_of_write(node, offset, size, found))
            ctx.require_writable()

            counted = charge(node)
            rows: list[Row] = [(node.key, node)]
            content.stage_write(rows, node, offset, data, found)
            commit_contents(
                ctx, rows, node, counted, privileges_go=handle.takes_privileges or privileges_go, keep_times=keep_times
            )
    except ZerofsError as error:
        ctx.note_refused_write(node.number, error)
        raise
    ctx.written_bytes += size
    return size


async def _look_up_ahead(ctx: Context, node: Inode, offset: int, data: Data) -> None:
    """Have in memory what the write will look up: then those that wait for one lock wait for the store together."""
    with contextlib.suppress(ZerofsError):  # the lookup that counts comes with the lock, and tells
        await content.existing(ctx.engine, node, offset, len(data), data)


async def _existing(ctx: Context, node: Inode, offset: int, data: Data) -> dict[int, Base]:
    """What the write has to know of the chunks that it changes; an outage holds it."""
    try:
        return await content.existing(ctx.engine, node, offset, len(data), data)
    except ObjectStoreError:
        return await ctx.patiently(lambda: content.existing(ctx.engine, node, offset, len(data), data))


def flush(ctx: Context, number: int) -> None:
    """What close(2) reports: the refused writes of the handle, and EIO if what was written cannot become durable."""
    handle = ctx.handles.known(number)
    if handle.writable and not ctx.options.read_only and (ctx.data_lost or not ctx.is_alive()):
        raise FsError(errno.EIO, "what was written cannot be made durable")
    if handle.error:
        raise FsError(handle.error, "an earlier write to this file was refused")


async def fsync(ctx: Context, number: int) -> None:
    """Return when everything written before, anywhere, is durable. Raises the errno of a refused write; EIO."""
    handle = ctx.handles.get(number)
    await sync(ctx)
    if handle.error:
        raise FsError(handle.error, "an earlier write to this file was refused")


async def sync(ctx: Context) -> None:
    """Return when everything that was written before is durable. Raises EIO on a mount that lost a write."""
    if not ctx.options.read_only:
        await ctx.engine.sync()
        if ctx.data_lost or ctx.broken:
            raise FsError(errno.EIO, "a write was refused and lost; see the mount's status")


async def seek(ctx: Context, number: int, offset: int, *, hole: bool) -> int:
    """The first byte at or behind `offset` that is in a hole, or in none. The end of the file counts as a hole.

    Raises ENXIO at or behind the end, and when no data follows; EBADF, EISDIR, EINVAL.
    """
    node = ctx.handles.file(number).node
    if not node.is_regular:
        raise FsError(errno.EINVAL)
    if offset < 0:
        raise FsError(errno.ENXIO)
    with await ctx.locks.hold(node.number):
        if offset >= node.size:
            raise FsError(errno.ENXIO)
        if node.is_inline:
            return node.size if hole else offset
        if hole:
            return await chunks.find_hole(ctx.engine, node, offset)
        found = await chunks.find_data(ctx.engine, node, offset)
        if found is None:
            raise FsError(errno.ENXIO)
        return found
