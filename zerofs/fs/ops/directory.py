"""Open directories: listing them in the order of cookies."""

import errno

from zerofs.errors import FsError
from zerofs.fs.access import READ, Caller, require
from zerofs.fs.attributes import DirectoryEntry
from zerofs.fs.context import Context
from zerofs.fs.format.keys import MAX_COOKIE
from zerofs.fs.ops.times import note_access


async def opendir(ctx: Context, caller: Caller, inode: int) -> int:
    """A handle on a directory. Raises ENOTDIR, EACCES, ESTALE."""
    node = await ctx.directory(inode)
    require(caller, node, READ)
    return ctx.handles.open(node, 0, caller.takes_privileges)


async def readdir(ctx: Context, number: int, after_cookie: int, limit: int) -> list[DirectoryEntry]:
    """Up to `limit` entries behind a cookie (0 = from the start), each counting one lookup; empty only at the end.

    An entry that is there all the time while a directory is read is seen exactly once, whatever else happens in it.
    "." and ".." are not among them. Raises EBADF, ENOTDIR, EINVAL.
    """
    node = ctx.handles.directory(number).node
    if limit <= 0 or not 0 <= after_cookie <= MAX_COOKIE:
        raise FsError(errno.EINVAL)
    entries: list[DirectoryEntry] = []
    while not entries:
        renewals = ctx.inodes.renewals
        page = await ctx.dentries.list(node.number, after_cookie, limit)
        if not page:
            break
        shown = await ctx.inodes.show_many([inode for _, inode, _ in page])
        if renewals != ctx.inodes.renewals:
            continue  # names of one state, inodes of another
        entries = [
            DirectoryEntry(name, cookie, found)
            for (cookie, _, name), found in zip(page, shown, strict=True)
            if found is not None and found.nlink  # else the name was taken while the inodes were fetched
        ]
        after_cookie = page[-1][0]
    ctx.handles.count_lookups([attributes.inode for _, _, attributes in entries])
    note_access(ctx, node)
    return entries
