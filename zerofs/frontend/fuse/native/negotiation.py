"""The first exchange with the kernel: which version, and what both sides can do. Pure."""

from typing import NamedTuple

from zerofs.frontend.fuse.native import protocol as p
from zerofs.frontend.fuse.native.protocol import Init
from zerofs.frontend.fuse.native.requests import MalformedRequestError, fields
from zerofs.frontend.fuse.options import FuseOptions

PAGE = 4096
MAX_WRITE = 1 << 20
"""The longest request, of 256 pages: what kernels allow without a sysctl."""

MAX_BACKGROUND = 64
"""Requests under way that nobody waits for: read-ahead and write-back."""

_WANTED = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC
    | Init.BIG_WRITES
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.HANDLE_KILLPRIV
    | Init.HANDLE_KILLPRIV_V2
    | Init.ABORT_ERROR
    | Init.MAX_PAGES
)
"""Asked for wherever the kernel offers it. Not: locks (the kernel's own exclude all processes of the only host that may
write, with waiting, deadlocks and signals done right), ACLs, and `.` and `..` in LOOKUP (for servers of NFS)."""


class Agreed(NamedTuple):
    """What both sides do from now on."""

    minor: int
    flags: Init
    max_write: int
    reply: bytes
    """What follows the header."""


def agree(body: memoryview, options: FuseOptions) -> Agreed | None:
    """Answer an INIT. None where the kernel speaks a newer major version: it then asks again, with ours.

    Raises MalformedRequestError: the message is too short, or its version too old.
    """
    major, minor, readahead, low = fields(p.INIT, body)
    if major > p.MAJOR:
        return None
    if major < p.MAJOR or minor < p.MINOR_MIN:
        raise MalformedRequestError(
            f"the kernel speaks FUSE {major}.{minor}; {p.MAJOR}.{p.MINOR_MIN} is the oldest here"
        )
    offered = Init(low)
    wanted = _WANTED
    if options.writeback and not options.read_only:
        wanted |= Init.WRITEBACK_CACHE
    # The pages of a symlink are kept for as long as its inode is: right for the only writer, not for a follower.
    wanted |= Init.CACHE_SYMLINKS if options.lifetime is None else Init.AUTO_INVAL_DATA
    flags = offered & wanted
    pages = MAX_WRITE // PAGE if flags & Init.MAX_PAGES else 32
    minor = min(minor, p.MINOR)
    reply = p.INIT_OUT.pack(
        p.MAJOR, minor, readahead, int(flags), MAX_BACKGROUND, MAX_BACKGROUND * 3 // 4, pages * PAGE, 1, pages, 0, 0
    )
    return Agreed(minor, flags, pages * PAGE, reply)


def only_our_major() -> bytes:
    """The answer to a newer major version."""
    return p.INIT_OUT.pack(p.MAJOR, p.MINOR, 0, 0, 0, 0, 0, 0, 0, 0, 0)
