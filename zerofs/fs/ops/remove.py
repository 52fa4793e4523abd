"""Taking names away: unlink, rmdir."""

import errno

from zerofs.errors import FsError
from zerofs.fs.access import EXECUTE, Caller, require, require_removal
from zerofs.fs.context import Context
from zerofs.fs.format.records import NAME_LIMIT, Dentry, Inode
from zerofs.fs.ports import KeyRange, Row


async def unlink(ctx: Context, caller: Caller, parent: int, name: bytes) -> None:
    """Take a name that leads to no directory; with its last name the inode goes as soon as nobody refers to it.

    Raises ENOENT, EISDIR, EACCES, EPERM (sticky), ENOTDIR, ESTALE, EROFS.
    """
    await _remove(ctx, caller, parent, name, wants_directory=False)


async def rmdir(ctx: Context, caller: Caller, parent: int, name: bytes) -> None:
    """Take an empty directory.

    Raises ENOENT, ENOTDIR, ENOTEMPTY, EINVAL ("."), EACCES, EPERM (sticky), ESTALE, EROFS.
    """
    if name == b".":
        raise FsError(errno.EINVAL)
    if name == b"..":
        raise FsError(errno.ENOTEMPTY)
    await _remove(ctx, caller, parent, name, wants_directory=True)


async def _remove(ctx: Context, caller: Caller, parent: int, name: bytes, *, wants_directory: bool) -> None:
    if len(name) > NAME_LIMIT:
        raise FsError(errno.ENAMETOOLONG)
    await ctx.admit()
    directory = await ctx.directory(parent)
    while True:
        dentry = await ctx.dentries.find(parent, name)
        if dentry is None:
            require(caller, directory, EXECUTE)
            raise FsError(errno.ENOENT)
        with await ctx.locks.hold(parent, dentry.inode):
            if await ctx.dentries.find(parent, name) != dentry:
                continue
            victim = await ctx.target(parent, dentry)
            require_removal(caller, directory, victim)
            require_removable(victim, wants_directory=wants_directory)
            ctx.require_writable()
            _remove_held(ctx, directory, name, dentry, victim)
            return


def require_removable(victim: Inode, *, wants_directory: bool) -> None:
    """Raise ENOTDIR, EISDIR or ENOTEMPTY unless it is what the caller wants to remove, and empty."""
    if wants_directory:
        if not victim.is_directory:
            raise FsError(errno.ENOTDIR)
        if victim.entries:
            raise FsError(errno.ENOTEMPTY)
    elif victim.is_directory:
        raise FsError(errno.EISDIR)


def _remove_held(ctx: Context, directory: Inode, name: bytes, dentry: Dentry, victim: Inode) -> None:
    now_ns = ctx.now()
    rows: list[Row] = [(directory.key, directory)]
    ranges: list[KeyRange] = []
    ctx.dentries.stage_remove(rows, directory, name, dentry.cookie)
    directory.mtime_ns = directory.ctime_ns = now_ns
    if victim.is_directory:
        directory.nlink -= 1
    stage_name_lost(ctx, rows, ranges, victim, now_ns)
    ctx.commit(rows, ranges)


def stage_name_lost(ctx: Context, rows: list[Row], ranges: list[KeyRange], victim: Inode, now_ns: int) -> None:
    """One name fewer leads to the inode; a directory has only one."""
    victim.ctime_ns = now_ns
    victim.nlink = 0 if victim.is_directory else victim.nlink - 1
    if victim.is_directory:
        ctx.dentries.note_gone(victim.number)
    if victim.nlink:
        rows.append((victim.key, victim))
    else:
        ctx.orphans.stage_unlinked(rows, ranges, victim)
