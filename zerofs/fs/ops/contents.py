"""How every change of a file's contents ends: space counted, privileges taken, times set, all of it committed."""

from zerofs.fs.access import PRIVILEGES, mode_without_privileges
from zerofs.fs.context import Context
from zerofs.fs.format.records import FLAG_CAPABILITY, Inode
from zerofs.fs.ops.xattr import stage_without_capability
from zerofs.fs.ports import KeyRange, Row
from zerofs.fs.usage import charge


def commit_contents(
    ctx: Context,
    rows: list[Row],
    node: Inode,
    counted: int,
    *,
    privileges_go: bool,
    ranges: list[KeyRange] | tuple[KeyRange, ...] = (),
    keep_times: bool = False,
) -> None:
    """Commit `rows` and `ranges`, which changed what `node` holds; before, it counted `counted` bytes.

    `privileges_go`: for anybody but root, who leaves a program its privileges.
    """
    count_growth(ctx, rows, node, counted)
    if privileges_go and (node.mode & PRIVILEGES or node.flags & FLAG_CAPABILITY):
        strip_privileges(rows, node)
    if not keep_times:
        node.mtime_ns = node.ctime_ns = ctx.now()
    ctx.commit(rows, ranges)


def count_growth(ctx: Context, rows: list[Row], node: Inode, counted: int) -> None:
    """Note what `node` counts more, or less, than before, when it counted `counted` bytes."""
    growth = charge(node) - counted
    if growth:
        ctx.usage.counters.used_bytes += growth
        rows.append(ctx.usage.row)


def strip_privileges(rows: list[Row], node: Inode) -> None:
    """What a change of contents or owner takes from a program: setuid, setgid, capabilities."""
    node.mode = mode_without_privileges(node.mode)
    stage_without_capability(rows, node)
