"""Access times: relatime, for the reads that reach the filesystem."""

from zerofs.fs.context import Context
from zerofs.fs.format.records import Inode
from zerofs.units import NS_PER_S

_DAY_NS = 24 * 3600 * NS_PER_S


def note_access(ctx: Context, node: Inode) -> None:
    """Set the access time if it is not younger than the last change, or a day old.

    Not on a mount that cannot write, and not with `noatime`. Source: mount(8), relatime.
    """
    atime_ns = node.atime_ns
    if ctx.options.noatime:
        return
    now_ns = ctx.now()
    if node.mtime_ns < atime_ns and node.ctime_ns < atime_ns and now_ns - atime_ns < _DAY_NS:
        return
    if atime_ns != now_ns and ctx.is_writable():
        node.atime_ns = now_ns
        ctx.commit([(node.key, node)])
