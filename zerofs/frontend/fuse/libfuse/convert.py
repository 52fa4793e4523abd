"""The vocabulary of pyfuse3 and that of `zerofs.fs`, each in terms of the other. No request is handled here."""

from pyfuse3 import EntryAttributes, SetattrFields, StatvfsData

from zerofs.fs.attributes import AttributeChanges, Attributes, FilesystemStatistics


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
