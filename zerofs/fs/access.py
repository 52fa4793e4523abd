"""Who may do what: the rules of POSIX and Linux, as pure functions of caller and inode.

Not the place where inodes are loaded or changed. A frontend whose kernel has judged already (FUSE with
`default_permissions`, which also knows capabilities) says so with `Caller.checked`; then only the rules that change a
mode or an owner apply here.

Sources: POSIX.1-2017 XBD 4.5, XSH 2.3; Linux path_resolution(7), chmod(2), chown(2), unlink(2), utimensat(2), xattr(7).
"""

import errno
import stat
from collections.abc import Callable
from dataclasses import dataclass

from zerofs.errors import FsError
from zerofs.fs.format.records import Inode

READ = 4
WRITE = 2
EXECUTE = 1
"""The bits of a mask, as in access(2)."""


def _no_groups() -> frozenset[int]:
    return frozenset()


@dataclass(slots=True, frozen=True, kw_only=True)
class Caller:
    """On whose behalf a request runs."""

    uid: int
    gid: int
    pid: int = 0
    umask: int = 0
    groups: Callable[[], frozenset[int]] = _no_groups
    """The supplementary groups; called only when the answer depends on them."""
    checked: bool = False
    """The frontend's kernel has applied the permission rules to this request already."""
    without_fsetid: bool = False
    """The frontend's kernel says that even if this is root, its changes take privileges (CAP_FSETID)."""

    @property
    def takes_privileges(self) -> bool:
        """Whether a change of contents takes setuid, setgid and capabilities from a program."""
        return self.uid != 0 or self.without_fsetid

    @property
    def exempt(self) -> bool:
        """Whether permissions are not to be checked: root, or somebody else did."""
        return self.uid == 0 or self.checked

    def in_group(self, gid: int) -> bool:
        """Whether the caller belongs to a group."""
        return gid == self.gid or gid in self.groups()


SYSTEM = Caller(uid=0, gid=0)
"""The filesystem itself, and a kernel writing back."""


def may(caller: Caller, node: Inode, mask: int) -> bool:
    """Whether all of `mask` is granted. Exactly one class counts: owner, else group, else others.

    Root may everything, except execute a file that nobody may execute.
    """
    if caller.checked:
        return True
    mode = node.mode
    if caller.uid == 0:
        return not mask & EXECUTE or node.is_directory or bool(mode & 0o111)
    if caller.uid == node.uid:
        granted = mode >> 6
    elif mask & (mode ^ mode >> 3) & 7 and caller.in_group(node.gid):
        granted = mode >> 3  # asked for only where group and others differ in a wanted bit
    else:
        granted = mode
    return granted & mask == mask


def require(caller: Caller, node: Inode, mask: int) -> None:
    """Raise EACCES unless all of `mask` is granted."""
    if not may(caller, node, mask):
        raise FsError(errno.EACCES)


def require_change(caller: Caller, directory: Inode) -> None:
    """Raise EACCES unless names may be added to or taken from the directory."""
    if not caller.exempt and not may(caller, directory, WRITE | EXECUTE):
        raise FsError(errno.EACCES)


def require_removal(caller: Caller, directory: Inode, victim: Inode) -> None:
    """Raise EACCES or, by the sticky bit, EPERM unless the victim's name may be taken from the directory."""
    if caller.exempt:
        return
    require_change(caller, directory)
    if directory.mode & stat.S_ISVTX and caller.uid not in (victim.uid, directory.uid):
        raise FsError(errno.EPERM, "sticky directory: only the owner of the file or of the directory may do that")


def require_owner(caller: Caller, node: Inode) -> None:
    """Raise EPERM unless the caller owns the inode."""
    if not caller.exempt and caller.uid != node.uid:
        raise FsError(errno.EPERM)


def require_chown(caller: Caller, node: Inode, uid: int | None, gid: int | None) -> None:
    """Raise EPERM unless owner and group may be set so: nobody gives files away, owners choose among their groups."""
    if caller.exempt:
        return
    require_owner(caller, node)
    if uid is not None and uid != node.uid:
        raise FsError(errno.EPERM)
    if gid is not None and gid != node.gid and not caller.in_group(gid):
        raise FsError(errno.EPERM)


def require_times(caller: Caller, node: Inode, *, explicit: bool) -> None:
    """Raise EPERM (explicit times) or EACCES (the current time) unless the times may be set."""
    if caller.exempt or caller.uid == node.uid:
        return
    if explicit:
        raise FsError(errno.EPERM)
    require(caller, node, WRITE)


def mode_after_chmod(caller: Caller, mode: int, gid: int) -> int:
    """The permission bits that a chmod of a file of that group gives: only members keep setgid."""
    mode &= 0o7777
    if mode & stat.S_ISGID and not caller.exempt and not caller.in_group(gid):
        mode &= ~stat.S_ISGID
    return mode


PRIVILEGES = stat.S_ISUID | stat.S_ISGID
"""Mode bits that `mode_without_privileges` may take."""


def mode_without_privileges(mode: int) -> int:
    """The mode of a file after a write, truncate or chown: setuid goes, setgid too where it means execution.

    Setgid without group execution is a mark for mandatory locking, and stays. Directories keep theirs.
    """
    if stat.S_ISDIR(mode):
        return mode
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode


def ownership_of_new(caller: Caller, directory: Inode, mode: int) -> tuple[int, int, int]:
    """(mode, uid, gid) of something created in `directory`.

    A setgid directory passes its group on, and to directories the bit as well; a setgid program in a group that its
    maker does not belong to loses the bit.
    """
    gid = caller.gid
    if directory.mode & stat.S_ISGID:
        gid = directory.gid
        if stat.S_ISDIR(mode):
            mode |= stat.S_ISGID
        elif mode & stat.S_ISGID and mode & stat.S_IXGRP and not caller.exempt and not caller.in_group(gid):
            mode &= ~stat.S_ISGID
    return mode, caller.uid, gid


def require_xattr(caller: Caller, node: Inode, name: bytes, *, change: bool) -> None:
    """Raise unless the caller may read or change the attribute of that name.

    user: like the contents, on files and directories only, in sticky directories for owners only. trusted: root.
    security: read by all, changed by root. POSIX ACLs and every other namespace: EOPNOTSUPP. A reader who may not
    know of an attribute gets ENODATA.
    """
    if name.startswith(b"user."):
        if not (node.is_regular or node.is_directory):
            raise FsError(errno.EPERM if change else errno.ENODATA)
        if change and node.is_directory and node.mode & stat.S_ISVTX:
            require_owner(caller, node)
        require(caller, node, WRITE if change else READ)
    elif name.startswith(b"trusted."):
        if not caller.exempt:
            raise FsError(errno.EPERM if change else errno.ENODATA)
    elif name.startswith(b"security."):
        if change and not caller.exempt:
            raise FsError(errno.EPERM)
    else:
        raise FsError(errno.EOPNOTSUPP, "only the namespaces user, trusted and security are kept; no POSIX ACLs")
