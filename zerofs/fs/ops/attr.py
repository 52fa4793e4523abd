"""Attributes: reading them, changing them (the size among them), asking for access."""

import errno
import stat

from zerofs.errors import FsError
from zerofs.fs.access import (
    WRITE,
    Caller,
    mode_after_chmod,
    require,
    require_chown,
    require_owner,
    require_times,
)
from zerofs.fs.attributes import AttributeChanges, Attributes, attributes_of
from zerofs.fs.chunking import MAX_FILE_SIZE
from zerofs.fs.content import growth_of_resize, plan_resize, stage_resize
from zerofs.fs.context import Context
from zerofs.fs.format.records import Inode, clamp_time
from zerofs.fs.ops.contents import commit_contents, count_growth, strip_privileges
from zerofs.fs.ports import KeyRange, Row
from zerofs.fs.usage import charge

_NO_CHANGES = AttributeChanges()


async def getattr_(ctx: Context, inode: int) -> Attributes:
    """The attributes of an inode. Raises ESTALE."""
    return attributes_of(ctx.inodes.cached(inode) or await ctx.inodes.get(inode))


async def access(ctx: Context, caller: Caller, inode: int, mask: int) -> None:
    """Raise EACCES unless all of `mask` is granted, EROFS for W_OK on a mount that cannot write, EINVAL, ESTALE."""
    node = await ctx.inodes.get(inode)
    if mask & ~7:
        raise FsError(errno.EINVAL)
    if mask & WRITE and (node.is_regular or node.is_directory or node.is_symlink) and not ctx.is_writable():
        raise FsError(errno.EROFS)
    require(caller, node, mask)


async def setattr_(
    ctx: Context, caller: Caller, inode: int, changes: AttributeChanges, handle: int | None
) -> Attributes:
    """Change what is asked, all in one commit or nothing.

    A size may be set through a handle open for writing whatever the mode says. Raises EPERM, EACCES (the rules are in
    `access`), EINVAL, EISDIR, EFBIG, ENOSPC, EROFS, EBADF, ESTALE.
    """
    await ctx.admit(held=changes.are_written_back)
    with await ctx.locks.hold(inode):
        node = await ctx.inodes.get(inode)
        _require_allowed(ctx, caller, node, changes, handle)
        size = changes.size_bytes
        resize = None
        if size is not None:
            resize = await plan_resize(ctx.engine, node, size)
            ctx.usage.require_room(growth_of_resize(node, size))
        ctx.require_writable()

        now_ns = ctx.now()
        rows: list[Row] = [(node.key, node)]
        ranges: list[KeyRange] = []
        counted = charge(node)
        if resize is not None:
            stage_resize(rows, ranges, node, resize)
            node.mtime_ns = now_ns
        _apply(rows, caller, node, changes, now_ns)
        count_growth(ctx, rows, node, counted)
        if changes != _NO_CHANGES:
            node.ctime_ns = now_ns if changes.ctime_ns is None else clamp_time(changes.ctime_ns)
            ctx.commit(rows, ranges)
        return attributes_of(node)


async def truncate_held(ctx: Context, caller: Caller, node: Inode, size: int, *, keep_times: bool) -> None:
    """Give a regular file another size; its lock is held and permission was granted."""
    resize = await plan_resize(ctx.engine, node, size)
    ctx.usage.require_room(growth_of_resize(node, size))
    ctx.require_writable()
    rows: list[Row] = [(node.key, node)]
    ranges: list[KeyRange] = []
    counted = charge(node)
    stage_resize(rows, ranges, node, resize)
    commit_contents(
        ctx, rows, node, counted, privileges_go=caller.takes_privileges, ranges=ranges, keep_times=keep_times
    )


def _require_allowed(ctx: Context, caller: Caller, node: Inode, changes: AttributeChanges, handle: int | None) -> None:
    if changes.uid is not None or changes.gid is not None:
        require_chown(caller, node, changes.uid, changes.gid)
    if changes.mode is not None:
        require_owner(caller, node)
    if changes.times and changes.ctime_ns is None:  # with a ctime it is the kernel that writes back what it kept
        require_times(caller, node, explicit=changes.explicit_times)
    size = changes.size_bytes
    if size is None:
        return
    if node.is_directory:
        raise FsError(errno.EISDIR)
    if not node.is_regular or size < 0:
        raise FsError(errno.EINVAL)
    if size > MAX_FILE_SIZE:
        raise FsError(errno.EFBIG)
    if handle is None:
        require(caller, node, WRITE)
    elif not ctx.handles.file(handle).writable:
        raise FsError(errno.EINVAL)


def _apply(rows: list[Row], caller: Caller, node: Inode, changes: AttributeChanges, now_ns: int) -> None:
    if changes.uid is not None:
        node.uid = changes.uid
    if changes.gid is not None:
        node.gid = changes.gid
    owner_changed = changes.uid is not None or changes.gid is not None
    if not node.is_directory and (owner_changed or (changes.size_bytes is not None and caller.takes_privileges)):
        strip_privileges(rows, node)
    if changes.mode is not None:
        node.mode = stat.S_IFMT(node.mode) | mode_after_chmod(caller, changes.mode, node.gid)
    if changes.atime_now:
        node.atime_ns = now_ns
    elif changes.atime_ns is not None:
        node.atime_ns = clamp_time(changes.atime_ns)
    if changes.mtime_now:
        node.mtime_ns = now_ns
    elif changes.mtime_ns is not None:
        node.mtime_ns = clamp_time(changes.mtime_ns)
