"""The vocabulary of pyfuse3 and that of `zerofs.fs`, each in terms of the other. No request is handled here."""

from functools import partial
from pathlib import Path

from pyfuse3 import EntryAttributes, RequestContext, SetattrFields, StatvfsData

from zerofs.fs.access import Caller
from zerofs.fs.attributes import AttributeChanges, Attributes, FilesystemStatistics

_CALLERS_KEPT = 256


def entry(attributes: Attributes, lifetime_s: float) -> EntryAttributes:
    """What the kernel is told about an inode, and for how long it may believe it."""
    # On every request's path: plain assignments, no loop.
    found = EntryAttributes()
    found.st_ino = attributes.inode
    found.st_mode = attributes.mode
    found.st_nlink = attributes.nlink
    found.st_uid = attributes.uid
    found.st_gid = attributes.gid
    found.st_rdev = attributes.rdev
    found.st_size = attributes.size_bytes
    found.st_blocks = attributes.blocks
    found.st_atime_ns = attributes.atime_ns
    found.st_mtime_ns = attributes.mtime_ns
    found.st_ctime_ns = attributes.ctime_ns
    found.entry_timeout = lifetime_s
    found.attr_timeout = lifetime_s
    return found


def absent_entry(lifetime_s: float) -> EntryAttributes:
    """The answer that a name does not exist, in the form that lets the kernel remember it: inode 0."""
    nothing = EntryAttributes()
    nothing.st_ino = 0
    nothing.entry_timeout = lifetime_s
    return nothing


def changes(wanted: EntryAttributes, fields: SetattrFields) -> AttributeChanges:
    """The attributes that a SETATTR names, and no others.

    The binding has replaced "now" by the present time already, so times are always explicit here.
    """
    return AttributeChanges(
        mode=wanted.st_mode & 0o7777 if fields.update_mode else None,
        uid=wanted.st_uid if fields.update_uid else None,
        gid=wanted.st_gid if fields.update_gid else None,
        size_bytes=wanted.st_size if fields.update_size else None,
        atime_ns=wanted.st_atime_ns if fields.update_atime else None,
        mtime_ns=wanted.st_mtime_ns if fields.update_mtime else None,
        ctime_ns=wanted.st_ctime_ns if fields.update_ctime else None,
    )


def statvfs(statistics: FilesystemStatistics) -> StatvfsData:
    """What statfs(2) shows."""
    shown = StatvfsData()
    shown.f_bsize = shown.f_frsize = statistics.block_size
    shown.f_blocks = statistics.blocks_total
    shown.f_bfree = shown.f_bavail = statistics.blocks_free
    shown.f_files = statistics.files_total
    shown.f_ffree = shown.f_favail = statistics.files_free
    shown.f_namemax = statistics.name_max
    return shown


def supplementary_groups(pid: int) -> frozenset[int]:
    """The groups of a process or thread; none when it has ended or lives in another pid namespace.

    Source: proc_pid_status(5), line `Groups:`.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return frozenset()
    for line in status.splitlines():
        if line.startswith(b"Groups:"):
            return frozenset(map(int, line.split()[1:]))
    return frozenset()


class Callers:
    """Makes a `Caller` of a request's context. The kernel has checked permissions, so it says `checked`.

    One process sends many requests: the last few hundred callers are kept. Groups are read when asked for and not
    remembered, so a caller that is kept never answers with old ones.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], Caller] = {}

    def __call__(self, context: RequestContext) -> Caller:
        """The process on whose behalf the request runs."""
        key = (context.uid, context.gid, context.pid, context.umask)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _CALLERS_KEPT:
                self._known.clear()
            uid, gid, pid, umask = key
            known = self._known[key] = Caller(
                uid=uid, gid=gid, pid=pid, umask=umask, groups=partial(supplementary_groups, pid), checked=True
            )
        return known
