"""From a name to an inode, and the counts that the kernel keeps of it."""

import errno

from zerofs.errors import FsError
from zerofs.fs.access import EXECUTE, Caller, may
from zerofs.fs.attributes import Attributes, attributes_of
from zerofs.fs.context import Context
from zerofs.fs.format.records import NAME_LIMIT, Inode


async def lookup(ctx: Context, caller: Caller, parent: int, name: bytes) -> Attributes:
    """The inode that a name leads to; counts one lookup. "." and ".." lead where they say.

    Raises ENOENT, ENOTDIR, EACCES (no search permission), ENAMETOOLONG, ESTALE.
    """
    node = await find(ctx, caller, parent, name)
    ctx.handles.count_lookup(node.number)
    return attributes_of(node)


async def find(ctx: Context, caller: Caller, parent: int, name: bytes) -> Inode:
    """Like lookup, without counting."""
    directory = await ctx.directory(parent)
    if not caller.checked and not may(caller, directory, EXECUTE):
        raise FsError(errno.EACCES)
    if len(name) > NAME_LIMIT:
        raise FsError(errno.ENAMETOOLONG)
    if name == b".":
        return directory
    if name == b"..":
        return await ctx.directory(directory.parent)
    dentries = ctx.dentries
    generation = dentries.generation
    dentry = await dentries.find(parent, name)
    if dentry is None:
        raise FsError(errno.ENOENT)
    node = ctx.inodes.cached(dentry.inode) or await ctx.inodes.find(dentry.inode)
    if node is not None and generation == dentries.generation:
        return node
    # Names changed while something was fetched, and what was found may be gone: once more, with the names held.
    with await ctx.locks.hold(parent):
        dentry = await dentries.find(parent, name)
        if dentry is None:
            raise FsError(errno.ENOENT)
        return await ctx.target(parent, dentry)


def forget(ctx: Context, inode: int, count: int) -> None:
    """The kernel gives up `count` lookups of an inode; an orphan that nobody refers to any more is reclaimed."""
    if ctx.handles.forget(inode, count):
        ctx.orphans.released(inode)
