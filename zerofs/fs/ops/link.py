"""Further names, and where symbolic links lead."""

import errno

from zerofs.errors import FsError
from zerofs.fs.access import EXECUTE, Caller, require, require_change
from zerofs.fs.attributes import Attributes, attributes_of
from zerofs.fs.context import Context
from zerofs.fs.dentries import require_name
from zerofs.fs.ops.times import note_access
from zerofs.fs.ports import Row


async def link(ctx: Context, caller: Caller, inode: int, parent: int, name: bytes) -> Attributes:
    """Another name for something that is no directory; symlinks may be linked too. Counts one lookup.

    The first one of a file that `create.tmpfile` made, unless it was told otherwise.
    Raises EEXIST, EPERM (a directory), EMLINK, ENOENT (the inode or the parent has no name any more), EACCES, ENOTDIR,
    ENAMETOOLONG, EINVAL, EROFS, ESTALE.
    """
    require_name(name)
    await ctx.admit()
    directory = await ctx.directory(parent)
    with await ctx.locks.hold(inode, parent):
        node = await ctx.inodes.get(inode)
        require(caller, directory, EXECUTE)
        if await ctx.dentries.find(parent, name) is not None:
            raise FsError(errno.EEXIST)
        require_change(caller, directory)
        if node.is_directory:
            raise FsError(errno.EPERM)
        if not directory.nlink or not (node.nlink or ctx.orphans.is_linkable(node)):
            raise FsError(errno.ENOENT)
        if node.nlink >= ctx.options.max_links:
            raise FsError(errno.EMLINK)
        ctx.require_writable()

        now_ns = ctx.now()
        rows: list[Row] = [(node.key, node), (directory.key, directory)]
        if not node.nlink:
            ctx.orphans.stage_named(rows, node)
        node.nlink += 1
        node.ctime_ns = now_ns
        directory.mtime_ns = directory.ctime_ns = now_ns
        ctx.dentries.stage_add(rows, directory, name, node)
        ctx.commit(rows)
        ctx.handles.count_lookup(inode)
        return attributes_of(node)


async def readlink(ctx: Context, inode: int) -> bytes:
    """The target of a symbolic link. Raises EINVAL if it is none, ESTALE."""
    node = await ctx.inodes.get(inode)
    if not node.is_symlink:
        raise FsError(errno.EINVAL)
    note_access(ctx, node)
    return node.content
