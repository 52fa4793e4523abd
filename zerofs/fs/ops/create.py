"""Making things: files, directories, symlinks, special files."""

import errno
import os
import stat

from zerofs.errors import FsError
from zerofs.fs.access import EXECUTE, READ, WRITE, Caller, ownership_of_new, require, require_change
from zerofs.fs.attributes import Attributes, attributes_of
from zerofs.fs.context import Context
from zerofs.fs.dentries import require_name
from zerofs.fs.format.keys import inode_key
from zerofs.fs.format.records import SYMLINK_LIMIT, Inode
from zerofs.fs.ops.attr import truncate_held
from zerofs.fs.ports import Row

_SPECIAL = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


async def mknod(ctx: Context, caller: Caller, parent: int, name: bytes, mode: int, rdev: int) -> Attributes:
    """A regular or special file, by the type in `mode` (none = regular). Counts one lookup.

    Raises EPERM for a device unless the caller is root, EINVAL for a type that has a call of its own, and as `_make`.
    """
    kind = stat.S_IFMT(mode) or stat.S_IFREG
    if kind != stat.S_IFREG and kind not in _SPECIAL:
        raise FsError(errno.EINVAL)
    if kind in _DEVICES and not caller.exempt:
        raise FsError(errno.EPERM)
    permissions = mode & 0o7777 & ~caller.umask
    return await _make(ctx, caller, parent, name, kind | permissions, rdev=rdev if kind in _DEVICES else 0)


async def mkdir(ctx: Context, caller: Caller, parent: int, name: bytes, mode: int) -> Attributes:
    """A directory. Counts one lookup. Raises EMLINK when the parent is full, and as `_make`."""
    return await _make(ctx, caller, parent, name, stat.S_IFDIR | (mode & 0o7777 & ~caller.umask))


async def symlink(ctx: Context, caller: Caller, parent: int, name: bytes, target: bytes) -> Attributes:
    """A symbolic link. Counts one lookup. Raises ENOENT (empty), ENAMETOOLONG, EINVAL (NUL), and as `_make`."""
    if not target:
        raise FsError(errno.ENOENT)
    if len(target) > SYMLINK_LIMIT:
        raise FsError(errno.ENAMETOOLONG)
    if b"\0" in target:
        raise FsError(errno.EINVAL)
    return await _make(ctx, caller, parent, name, stat.S_IFLNK | 0o777, content=target)


async def create(
    ctx: Context, caller: Caller, parent: int, name: bytes, mode: int, flags: int, keep_times: bool = False
) -> tuple[int, Attributes]:
    """Open a regular file, made if the name is free: (handle, attributes). Counts one lookup. See `io.open_`.

    Raises EEXIST (O_EXCL), EISDIR, ELOOP (a symlink is there), EACCES for an existing file, and as `_make`.
    """
    require_name(name)
    directory = await ctx.directory(parent)
    dentries = ctx.dentries
    generation = dentries.generation
    dentry = await dentries.find(parent, name)
    if dentry is None or flags & os.O_TRUNC:
        await ctx.admit()  # otherwise what exists is only opened: that changes nothing
    while True:
        if generation != dentries.generation:  # names changed meanwhile
            generation = dentries.generation
            dentry = await dentries.find(parent, name)
        with await ctx.locks.hold(parent, *((dentry.inode,) if dentry else ())):
            if generation != dentries.generation and await dentries.find(parent, name) != dentry:
                continue
            if dentry is None:
                permissions = mode & 0o7777 & ~caller.umask
                node = _make_held(ctx, caller, directory, name, stat.S_IFREG | permissions)
            else:
                require(caller, directory, EXECUTE)
                if flags & os.O_EXCL:
                    raise FsError(errno.EEXIST)
                node = await ctx.target(parent, dentry)
                await open_held(ctx, caller, node, flags, keep_times=keep_times)
            ctx.handles.count_lookup(node.number)
            return ctx.handles.open(node, flags, caller.takes_privileges), attributes_of(node)


async def tmpfile(ctx: Context, caller: Caller, parent: int, mode: int, flags: int) -> tuple[int, Attributes]:
    """Open a new regular file that has no name (O_TMPFILE): (handle, attributes). Counts one lookup.

    It goes with its last handle, or with a crash, unless `link` names it before, which O_EXCL forbids. Raises EACCES,
    ENOENT (the parent was removed), ENOTDIR, EINVAL (not for writing), ENOSPC, EROFS, ESTALE.
    """
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise FsError(errno.EINVAL)
    await ctx.admit()
    directory = await ctx.directory(parent)
    with await ctx.locks.hold(parent):
        _require_may_make(ctx, caller, directory, 0)
        rows: list[Row] = []
        node = _stage_new(ctx, rows, caller, directory, stat.S_IFREG | (mode & 0o7777 & ~caller.umask))
        node.nlink = 0
        handle = ctx.handles.open(node, flags, caller.takes_privileges)
        ctx.handles.count_lookup(node.number)
        ctx.orphans.stage_unnamed(rows, node, linkable=not flags & os.O_EXCL)
        ctx.commit(rows)
        return handle, attributes_of(node)


async def open_held(ctx: Context, caller: Caller, node: Inode, flags: int, *, keep_times: bool) -> None:
    """Check that something that exists may be opened so, and truncate it if asked; its lock is held."""
    if node.is_directory:
        raise FsError(errno.EISDIR)
    if node.is_symlink:
        raise FsError(errno.ELOOP)
    access = flags & os.O_ACCMODE
    mask = {os.O_RDONLY: READ, os.O_WRONLY: WRITE}.get(access, READ | WRITE)
    if flags & os.O_TRUNC:
        mask |= WRITE
    require(caller, node, mask)
    if mask & WRITE and node.is_regular:
        ctx.require_writable()
        ctx.require_no_long_outage()
    if flags & os.O_TRUNC and node.is_regular:
        await truncate_held(ctx, caller, node, 0, keep_times=keep_times)


async def _make(
    ctx: Context, caller: Caller, parent: int, name: bytes, mode: int, *, rdev: int = 0, content: bytes = b""
) -> Attributes:
    """Raises EEXIST, ENAMETOOLONG, EINVAL (the name), ENOENT (the parent was removed), EACCES, ENOTDIR, EROFS."""
    require_name(name)
    await ctx.admit()
    directory = await ctx.directory(parent)
    with await ctx.locks.hold(parent):
        require(caller, directory, EXECUTE)
        if await ctx.dentries.find(parent, name) is not None:
            raise FsError(errno.EEXIST)
        node = _make_held(ctx, caller, directory, name, mode, rdev=rdev, content=content)
        ctx.handles.count_lookup(node.number)
        return attributes_of(node)


def _make_held(
    ctx: Context,
    caller: Caller,
    directory: Inode,
    name: bytes,
    mode: int,
    *,
    rdev: int = 0,
    content: bytes = b"",
) -> Inode:
    """A new inode under a free name; the directory's lock is held. Does not await."""
    _require_may_make(ctx, caller, directory, len(content))
    is_directory = stat.S_ISDIR(mode)
    if is_directory and directory.nlink >= ctx.options.max_links:
        raise FsError(errno.EMLINK)
    rows: list[Row] = [(directory.key, directory)]
    node = _stage_new(ctx, rows, caller, directory, mode)
    node.rdev = rdev
    node.content = content
    ctx.usage.counters.used_bytes += len(content)
    if is_directory:
        node.nlink = 2
        node.parent = directory.number
        directory.nlink += 1
        ctx.dentries.note_new(node.number)
    directory.mtime_ns = directory.ctime_ns = node.ctime_ns
    ctx.dentries.stage_add(rows, directory, name, node)
    ctx.commit(rows)
    return node


def _require_may_make(ctx: Context, caller: Caller, directory: Inode, size: int) -> None:
    """Raise what keeps the caller from making something of `size` bytes in the directory, whose lock is held."""
    require_change(caller, directory)
    if not directory.nlink:
        raise FsError(errno.ENOENT, "the directory was removed")
    ctx.usage.require_room(size)
    ctx.require_writable()


def _stage_new(ctx: Context, rows: list[Row], caller: Caller, directory: Inode, mode: int) -> Inode:
    """The next inode, owned as the directory says; counted, but without a name yet."""
    counters = ctx.usage.counters
    number = counters.next_inode
    mode, uid, gid = ownership_of_new(caller, directory, mode)
    node = Inode(number, inode_key(number), mode=mode, uid=uid, gid=gid, now_ns=ctx.now())
    counters.next_inode = number + 1
    counters.used_inodes += 1
    rows += ((node.key, node), ctx.usage.row)
    ctx.inodes.add(node)
    return node
