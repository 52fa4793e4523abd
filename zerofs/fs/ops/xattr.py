"""Extended attributes: namespaces user, trusted and security; no POSIX ACLs. The rules are in `access`."""

import errno
import os

from zerofs.errors import CorruptionError, FsError
from zerofs.fs.access import Caller, require_xattr
from zerofs.fs.context import Context
from zerofs.fs.format.keys import decode_key, xattr_key, xattr_range
from zerofs.fs.format.records import FLAG_CAPABILITY, Inode
from zerofs.fs.ports import Row

NAME_LIMIT = 255
"""Bytes of a name with its namespace."""

VALUE_LIMIT = 65536
"""Bytes of a value."""

LIST_LIMIT = 65536
"""Bytes of a listxattr answer: all names of an inode, each with a NUL. More could not be listed."""

_CAPABILITY = b"security.capability"


async def getxattr(ctx: Context, caller: Caller, inode: int, name: bytes) -> bytes:
    """The value. Raises ENODATA, ERANGE (the name), EOPNOTSUPP, EACCES, ESTALE."""
    _require_name(name)
    node = ctx.inodes.cached(inode) or await ctx.inodes.get(inode)
    require_xattr(caller, node, name, change=False)
    if not node.xattr_list_size or (name == _CAPABILITY and not node.flags & FLAG_CAPABILITY):
        raise FsError(errno.ENODATA)  # asked for before every write: answered without a look at the rows
    value = await ctx.engine.get(xattr_key(inode, name))
    if value is None:
        raise FsError(errno.ENODATA)
    if not isinstance(value, bytes):
        raise CorruptionError(f"xattr of inode {inode}: its row holds {type(value).__name__}")
    return value


async def listxattr(ctx: Context, caller: Caller, inode: int) -> list[bytes]:
    """All names; those of the trusted namespace for root only. Raises ESTALE."""
    node = await ctx.inodes.get(inode)
    if not node.xattr_list_size:
        return []
    names = await _names(ctx, inode)
    return [name for name in names if caller.uid == 0 or not name.startswith(b"trusted.")]


async def setxattr(ctx: Context, caller: Caller, inode: int, name: bytes, value: bytes, flags: int) -> None:
    """Set a value. XATTR_CREATE: EEXIST if it is there; XATTR_REPLACE: ENODATA if it is not.

    Raises also ERANGE (the name), E2BIG (the value), ENOSPC (all names together), EINVAL, EOPNOTSUPP, EPERM, EACCES,
    EROFS, ESTALE.
    """
    _require_name(name)
    if len(value) > VALUE_LIMIT:
        raise FsError(errno.E2BIG)
    if flags not in (0, os.XATTR_CREATE, os.XATTR_REPLACE):
        raise FsError(errno.EINVAL)
    await ctx.admit(2048 + len(value))
    with await ctx.locks.hold(inode):
        node = await ctx.inodes.get(inode)
        require_xattr(caller, node, name, change=True)
        key = xattr_key(inode, name)
        exists = bool(node.xattr_list_size) and await ctx.engine.contains(key)
        if exists and flags == os.XATTR_CREATE:
            raise FsError(errno.EEXIST)
        if not exists and flags == os.XATTR_REPLACE:
            raise FsError(errno.ENODATA)
        grown = 0 if exists else len(name) + 1
        if node.xattr_list_size + grown > LIST_LIMIT:
            raise FsError(errno.ENOSPC, "too many extended attributes")
        ctx.require_writable()
        node.xattr_list_size += grown
        if name == _CAPABILITY:
            node.flags |= FLAG_CAPABILITY
        node.ctime_ns = ctx.now()
        ctx.commit([(key, bytes(value)), (node.key, node)])


async def removexattr(ctx: Context, caller: Caller, inode: int, name: bytes) -> None:
    """Remove a value. Raises ENODATA, ERANGE, EOPNOTSUPP, EPERM, EACCES, EROFS, ESTALE."""
    _require_name(name)
    await ctx.admit()
    with await ctx.locks.hold(inode):
        node = await ctx.inodes.get(inode)
        require_xattr(caller, node, name, change=True)
        if not node.xattr_list_size or not await ctx.engine.contains(xattr_key(inode, name)):
            raise FsError(errno.ENODATA)
        ctx.require_writable()
        rows: list[Row] = [(node.key, node)]
        _stage_removal(rows, node, name)
        node.ctime_ns = ctx.now()
        ctx.commit(rows)


def stage_without_capability(rows: list[Row], node: Inode) -> None:
    """Take a file's capabilities, if it has any; the inode's row is the caller's to put."""
    if node.flags & FLAG_CAPABILITY:
        _stage_removal(rows, node, _CAPABILITY)


def _stage_removal(rows: list[Row], node: Inode, name: bytes) -> None:
    rows.append((xattr_key(node.number, name), None))
    node.xattr_list_size -= len(name) + 1
    if name == _CAPABILITY:
        node.flags &= ~FLAG_CAPABILITY


def _require_name(name: bytes) -> None:
    if not 0 < len(name) <= NAME_LIMIT:
        raise FsError(errno.ERANGE)
    namespace, dot, rest = name.partition(b".")
    if b"\0" in name or (dot and namespace in (b"user", b"trusted", b"security") and not rest):
        raise FsError(errno.EINVAL)


async def _names(ctx: Context, inode: int) -> list[bytes]:
    start, stop = xattr_range(inode)
    rows = await ctx.engine.scan(start, stop, LIST_LIMIT)
    return [decode_key(key).name for key, _ in rows]
