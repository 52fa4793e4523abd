"""Rename in all shapes: onto a free name, onto an existing one, exchanging two.

Rules, in the order in which they are checked (POSIX rename, Linux rename(2)): flags; both names valid; the source
exists; NOREPLACE and EXCHANGE; a directory does not move below itself; two names of one inode: nothing to do;
permissions on both sides, sticky bits included; kinds match; a directory that is replaced is empty; link counts.
"""

import errno
import stat
from typing import NamedTuple

from zerofs.errors import FsError
from zerofs.fs.access import EXECUTE, WRITE, Caller, require, require_change, require_removal
from zerofs.fs.context import Context
from zerofs.fs.dentries import require_name
from zerofs.fs.format.records import Dentry, Inode
from zerofs.fs.locks import TREE
from zerofs.fs.ops.remove import require_removable, stage_name_lost
from zerofs.fs.ports import KeyRange, Row

NOREPLACE = 1
EXCHANGE = 2

_DIRECTORY = stat.S_IFDIR >> 12


class _Side(NamedTuple):
    """One end of a rename: a name in a directory."""

    directory: Inode
    name: bytes


class _End(NamedTuple):
    """What stands at a side."""

    dentry: Dentry
    node: Inode


async def rename(
    ctx: Context, caller: Caller, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
) -> None:
    """Move a name; what stood at the new one is replaced, kept (NOREPLACE), or moved the other way (EXCHANGE).

    Raises ENOENT, EEXIST, EINVAL, EISDIR, ENOTDIR, ENOTEMPTY, EACCES, EPERM, EMLINK, EBUSY, ENAMETOOLONG, EROFS.
    """
    if flags not in (0, NOREPLACE, EXCHANGE):
        raise FsError(errno.EINVAL)
    _require_names(name, new_name, flags)
    await ctx.admit()
    old = _Side(await ctx.directory(parent), name)
    new = _Side(await ctx.directory(new_parent), new_name)
    while True:
        source = await _find(ctx, caller, old)
        target = await _find(ctx, caller, new)
        if source is None:
            raise FsError(errno.ENOENT)
        with await ctx.locks.hold(*_lock_numbers(old, new, source, target)):
            if await _find(ctx, caller, old) != source or await _find(ctx, caller, new) != target:
                continue
            from_end = _End(source, await ctx.target(parent, source))
            to_end = _End(target, await ctx.target(new_parent, target)) if target else None
            await _rename_held(ctx, caller, old, new, from_end, to_end, flags)
            return


def _require_names(name: bytes, new_name: bytes, flags: int) -> None:
    dots = (b".", b"..")
    if name in dots or new_name in dots:
        raise FsError(errno.EEXIST if flags & NOREPLACE and new_name in dots else errno.EBUSY)
    require_name(name)
    require_name(new_name)


async def _find(ctx: Context, caller: Caller, side: _Side) -> Dentry | None:
    require(caller, side.directory, EXECUTE)
    return await ctx.dentries.find(side.directory.number, side.name)


def _lock_numbers(old: _Side, new: _Side, source: Dentry, target: Dentry | None) -> set[int]:
    """Both directories, both inodes, and the tree when a directory gets another parent."""
    numbers = {old.directory.number, new.directory.number, source.inode}
    if target is not None:
        numbers.add(target.inode)
    moves = old.directory is not new.directory
    if moves and (source.kind == _DIRECTORY or (target is not None and target.kind == _DIRECTORY)):
        numbers.add(TREE)
    return numbers


async def _rename_held(
    ctx: Context, caller: Caller, old: _Side, new: _Side, source: _End, target: _End | None, flags: int
) -> None:
    exchange = flags == EXCHANGE
    if not new.directory.nlink:
        raise FsError(errno.ENOENT, "the directory was removed")
    if target is not None and flags == NOREPLACE:
        raise FsError(errno.EEXIST)
    if target is None and exchange:
        raise FsError(errno.ENOENT)
    if old.directory is not new.directory:
        if source.node.is_directory and await _is_within(ctx, new.directory, source.node):
            raise FsError(errno.EINVAL, "a directory cannot move below itself")
        if target is not None and target.node.is_directory and await _is_within(ctx, old.directory, target.node):
            raise FsError(errno.EINVAL if exchange else errno.ENOTEMPTY)
    if target is not None and target.node is source.node:
        return
    _require_allowed(ctx, caller, old, new, source, target, exchange=exchange)
    ctx.require_writable()

    now_ns = ctx.now()
    rows: list[Row] = [(old.directory.key, old.directory)]
    ranges: list[KeyRange] = []
    if new.directory is not old.directory:
        rows.append((new.directory.key, new.directory))
    if target is None:
        _stage_move(ctx, rows, old, new, source)
    elif exchange:
        _stage_exchange(ctx, rows, old, new, source, target)
        target.node.ctime_ns = now_ns
    else:
        _stage_replace(ctx, rows, old, new, source, target)
        stage_name_lost(ctx, rows, ranges, target.node, now_ns)
    source.node.ctime_ns = now_ns
    rows.append((source.node.key, source.node))
    for directory in (old.directory, new.directory):
        directory.mtime_ns = directory.ctime_ns = now_ns
    ctx.commit(rows, ranges)


async def _is_within(ctx: Context, directory: Inode, ancestor: Inode) -> bool:
    """Whether `directory` is `ancestor` or lies below it. The tree's lock is held, so the way up does not change."""
    while directory is not ancestor:
        if directory.number == directory.parent:
            return False
        directory = await ctx.directory(directory.parent)
    return True


def _require_allowed(
    ctx: Context, caller: Caller, old: _Side, new: _Side, source: _End, target: _End | None, *, exchange: bool
) -> None:
    moved = old.directory is not new.directory
    require_removal(caller, old.directory, source.node)
    if target is None:
        require_change(caller, new.directory)
    else:
        require_removal(caller, new.directory, target.node)
    if target is not None and not exchange:
        require_removable(target.node, wants_directory=source.node.is_directory)
    if moved:
        # Its ".." changes, so the directory itself is written to.
        if source.node.is_directory:
            require(caller, source.node, WRITE)
        if target is not None and exchange and target.node.is_directory:
            require(caller, target.node, WRITE)
    arrivals = [(new.directory, source.node, target)]
    if exchange and target is not None:
        arrivals.append((old.directory, target.node, source))
    for directory, node, replaced in arrivals:
        gained = moved and node.is_directory and not (replaced is not None and replaced.node.is_directory)
        if gained and directory.nlink >= ctx.options.max_links:
            raise FsError(errno.EMLINK)


def _stage_move(ctx: Context, rows: list[Row], old: _Side, new: _Side, source: _End) -> None:
    if old.directory is new.directory:
        ctx.dentries.stage_forget_name(rows, old.directory, old.name)
        ctx.dentries.stage_set(rows, new.directory, new.name, source.dentry)
        return
    ctx.dentries.stage_remove(rows, old.directory, old.name, source.dentry.cookie)
    ctx.dentries.stage_add(rows, new.directory, new.name, source.node)
    _change_parent(source.node, old.directory, new.directory)


def _stage_replace(ctx: Context, rows: list[Row], old: _Side, new: _Side, source: _End, target: _End) -> None:
    ctx.dentries.stage_remove(rows, old.directory, old.name, source.dentry.cookie)
    ctx.dentries.stage_set(rows, new.directory, new.name, source.dentry._replace(cookie=target.dentry.cookie))
    if target.node.is_directory:
        new.directory.nlink -= 1
    _change_parent(source.node, old.directory, new.directory)


def _stage_exchange(ctx: Context, rows: list[Row], old: _Side, new: _Side, source: _End, target: _End) -> None:
    ctx.dentries.stage_set(rows, old.directory, old.name, target.dentry._replace(cookie=source.dentry.cookie))
    ctx.dentries.stage_set(rows, new.directory, new.name, source.dentry._replace(cookie=target.dentry.cookie))
    _change_parent(source.node, old.directory, new.directory)
    _change_parent(target.node, new.directory, old.directory)
    rows.append((target.node.key, target.node))


def _change_parent(node: Inode, old: Inode, new: Inode) -> None:
    if node.is_directory and old is not new:
        node.parent = new.number
        old.nlink -= 1
        new.nlink += 1
