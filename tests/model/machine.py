"""The machine: random system calls on two filesystems, which must answer alike. Names and attributes are here.

A subclass says what the two are (`ours`, which is tested, and `theirs`) and what goes on in their lives. Calls go
through `both`. Paths are chosen among those that exist in `theirs` by a number, so that examples shrink.
"""

import errno
import os
import stat
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.model.calls import LATELY_NS
from zerofs.units import CHUNK_SIZE as C

NOREPLACE, EXCHANGE = 1, 2

NAMES = [b"a", b"b", b"c", b"\xff\xfe", b"x" * 255]
names = st.sampled_from(NAMES)
picks = st.integers(0, 10**6)
modes = st.sampled_from([0o644, 0o755, 0o600, 0o6755, 0o2745, 0o1777, 0o777, 0])
times = st.integers((1 - 2**31) * 10**9, LATELY_NS - 1)
"""Not the very first second that ext4 knows: Linux takes the fraction from times within the last one of a filesystem's
range at either end (timestamp_truncate), and our range is a wider one."""
targets = st.sampled_from([b"a", b"b/c", b"./a", b"nowhere", b"t" * 300, b"."])
edges = [0, 1, 100, 1023, 1024, 1025, 4095, 4096, 4097, C - 1, C, C + 1, 2 * C, 3 * C - 5, 5 * C]
offsets = st.one_of(st.sampled_from(edges), st.integers(0, 5 * C))
data = st.builds(
    lambda size, fill: bytes([fill]) * size,
    st.one_of(st.sampled_from([1, 10, 1024, 1025, 4096, C, 2 * C]), st.integers(1, 3 * C)),
    st.sampled_from([0, 1, 97, 98, 255]),
)
values = st.one_of(st.binary(max_size=20), st.just(b"v" * 1100))
"""Three of the long ones still fit into the one block that ext4 has for them."""


def outcome(call: Any, arguments: tuple[Any, ...]) -> Any:
    """What a call returns, or the name of its errno."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


class Machine(RuleBasedStateMachine):
    """See the module."""

    ours: Any
    theirs: Any
    xattrs = (b"user.a", b"user.bb", b"trusted.t")
    others = (0, 1, 2, 3)
    """Owners and groups to give things to."""

    # helpers

    def both(self, call: str, *arguments: Any) -> Any:
        """The same call on both: they must give the same, or fail with the same errno. What they give."""
        left = outcome(getattr(self.ours, call), arguments)
        right = outcome(getattr(self.theirs, call), arguments)
        assert left == right, (call, arguments, left, right)
        return left

    def path(self, pick: int) -> bytes:
        """Something that exists."""
        paths = self.theirs.paths()
        return paths[pick % len(paths)]

    def directory(self, pick: int) -> bytes:
        """A directory, or something that a caller takes for one."""
        paths = self.theirs.paths()
        directories = [path for path in paths if stat.S_ISDIR(self.theirs.lstat(path).mode)]
        chosen = [*directories, *directories, paths[pick % len(paths)]]
        return chosen[pick % len(chosen)]

    def place(self, pick: int, name: bytes) -> bytes:
        """A path to something that may be there or not."""
        base = self.directory(pick)
        return base + b"/" + name if base else name

    def regular(self, pick: int) -> bytes | None:
        """A regular file, if there is one."""
        files = [path for path in self.theirs.paths() if stat.S_ISREG(self.theirs.lstat(path).mode)]
        return files[pick % len(files)] if files else None

    # making

    @initialize(sizes=st.lists(offsets, min_size=2, max_size=4))
    def begin(self, sizes: list[int]) -> None:
        """A tree to start with."""
        self.both("mkdir", b"a", 0o755)
        self.both("mkdir", b"a/b", 0o2755)
        self.both("symlink", b"a", b"b")
        for index, size in enumerate(sizes):
            path = [b"c", b"a/c", b"a/b/c", b"a/a"][index]
            self.both("mknod", path, stat.S_IFREG | 0o644)
            self.both("truncate", path, size)

    @rule(pick=picks, name=names, mode=modes)
    def mkdir(self, pick: int, name: bytes, mode: int) -> None:
        self.both("mkdir", self.place(pick, name), mode)

    @rule(pick=picks, name=names, mode=modes, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG]))
    def mknod(self, pick: int, name: bytes, mode: int, kind: int) -> None:
        self.both("mknod", self.place(pick, name), kind | mode)

    @rule(pick=picks, name=names, leads_to=targets)
    def symlink(self, pick: int, name: bytes, leads_to: bytes) -> None:
        self.both("symlink", leads_to, self.place(pick, name))

    @rule(pick=picks, other=picks, name=names)
    def link(self, pick: int, other: int, name: bytes) -> None:
        self.both("link", self.path(pick), self.place(other, name), False)

    @rule(pick=picks, other=picks, name=names)
    def link_what_a_symlink_leads_to(self, pick: int, other: int, name: bytes) -> None:
        self.both("link", self.path(pick), self.place(other, name), True)

    # taking away, moving

    @rule(pick=picks)
    def unlink(self, pick: int) -> None:
        if path := self.path(pick):
            self.both("unlink", path)

    @rule(pick=picks)
    def rmdir(self, pick: int) -> None:
        if path := self.path(pick):
            self.both("rmdir", path)

    @rule(pick=picks, name=names, directory=st.booleans())
    def remove_what_may_not_be_there(self, pick: int, name: bytes, directory: bool) -> None:
        self.both("rmdir" if directory else "unlink", self.place(pick, name))

    @rule(pick=picks, other=picks, name=names)
    def rename(self, pick: int, other: int, name: bytes) -> None:
        if path := self.path(pick):
            self.both("rename", path, self.place(other, name), 0)

    @rule(pick=picks, other=picks, name=names)
    def rename_without_replacing(self, pick: int, other: int, name: bytes) -> None:
        if path := self.path(pick):
            self.both("rename", path, self.place(other, name), NOREPLACE)

    @rule(pick=picks, other=picks)
    def exchange(self, pick: int, other: int) -> None:
        if (path := self.path(pick)) and (target := self.path(other)):
            self.both("rename", path, target, EXCHANGE)

    @rule(pick=picks, other=picks)
    def rename_onto(self, pick: int, other: int) -> None:
        if (path := self.path(pick)) and (target := self.path(other)):
            self.both("rename", path, target, 0)

    @rule(pick=picks, name=names, other=picks, new_name=names, flags=st.sampled_from([0, NOREPLACE, EXCHANGE]))
    def rename_what_may_not_be_there(self, pick: int, name: bytes, other: int, new_name: bytes, flags: int) -> None:
        self.both("rename", self.place(pick, name), self.place(other, new_name), flags)

    # looking

    @rule(pick=picks)
    def listdir(self, pick: int) -> None:
        self.both("listdir", self.directory(pick))

    @rule(pick=picks, name=names)
    def lookup(self, pick: int, name: bytes) -> None:
        self.both("lstat", self.place(pick, name))

    @rule(pick=picks, name=names)
    def stat(self, pick: int, name: bytes) -> None:
        self.both("stat", self.place(pick, name))

    @rule(pick=picks)
    def readlink(self, pick: int) -> None:
        self.both("readlink", self.path(pick))

    @rule(pick=picks, mask=st.integers(0, 7))
    def access(self, pick: int, mask: int) -> None:
        self.both("access", self.path(pick), mask)

    @rule(pick=picks, name=st.sampled_from([b"n" * 256, b"c/x", b"c/x/y", b"nowhere/x", b"b/b"]))
    def odd_paths(self, pick: int, name: bytes) -> None:
        path = self.place(pick, name)
        for call, arguments in (("lstat", ()), ("mkdir", (0o755,)), ("unlink", ()), ("rmdir", ())):
            self.both(call, path, *arguments)

    # attributes

    @rule(pick=picks, mode=modes)
    def chmod(self, pick: int, mode: int) -> None:
        self.both("chmod", self.path(pick), mode)

    @rule(pick=picks, which=picks, follow=st.booleans())
    def chown(self, pick: int, which: int, follow: bool) -> None:
        uid, gid = self.others[which % len(self.others)], self.others[which // 7 % len(self.others)]
        self.both("chown", self.path(pick), uid, gid, follow)

    @rule(pick=picks, atime_ns=times, mtime_ns=times, follow=st.booleans())
    def utime(self, pick: int, atime_ns: int, mtime_ns: int, follow: bool) -> None:
        self.both("utime", self.path(pick), (atime_ns, mtime_ns), follow)

    @rule(pick=picks)
    def touch(self, pick: int) -> None:
        self.both("utime", self.path(pick), None, True)

    @rule(pick=picks, which=picks, value=values, flags=st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]))
    def setxattr(self, pick: int, which: int, value: bytes, flags: int) -> None:
        self.both("setxattr", self.path(pick), self.xattrs[which % len(self.xattrs)], value, flags)

    @rule(pick=picks, which=picks)
    def getxattr(self, pick: int, which: int) -> None:
        self.both("getxattr", self.path(pick), self.xattrs[which % len(self.xattrs)])

    @rule(pick=picks, which=picks)
    def removexattr(self, pick: int, which: int) -> None:
        self.both("removexattr", self.path(pick), self.xattrs[which % len(self.xattrs)])

    @rule(pick=picks)
    def listxattr(self, pick: int) -> None:
        self.both("listxattr", self.path(pick))

    # everything

    @rule()
    def compare_everything(self) -> None:
        """Tree, attributes, contents, and which names are of one file."""
        paths = self.both("paths")
        inodes: dict[Any, Any] = {}
        for path in paths:
            found = self.both("lstat", path)
            for name in self.both("listxattr", path):
                self.both("getxattr", path, name)
            if stat.S_ISLNK(found.mode):
                self.both("readlink", path)
            elif stat.S_ISREG(found.mode):
                self.both("contents", path)
            theirs = self.theirs.inode(path)
            assert inodes.setdefault(self.ours.inode(path), theirs) == theirs, path
        assert len(set(inodes.values())) == len(inodes)
