"""Which times a call changes, of the file and of its directory; and which it leaves alone."""

import os
import stat

import pytest

from tests.mount.posix.users import open_and_close, outcome, tick, write_to

pytestmark = pytest.mark.mount


def times(path):
    found = os.lstat(path)
    return {"a": found.st_atime_ns, "m": found.st_mtime_ns, "c": found.st_ctime_ns}


class Watch:
    """Which times of some paths change while a block runs."""

    def __init__(self, *paths):
        self.before = {path: times(path) for path in paths}
        tick()

    def changed(self, path, now=None):
        """The letters, among m and c; those of `now` if the file has another name now."""
        after = times(now or path)
        for letter in "mc":
            assert after[letter] >= self.before[path][letter]
        return "".join(letter for letter in "mc" if after[letter] != self.before[path][letter])


MAKING = {
    "mkdir": lambda site, path: site.root.mkdir(path),
    "mkfifo": lambda site, path: site.root.mkfifo(path),
    "mknod": lambda site, path: site.root.mknod(path, stat.S_IFREG | 0o600),
    "mknod of a device": lambda site, path: site.root.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "open with O_CREAT": lambda site, path: site.root.do(open_and_close, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY),
    "symlink": lambda site, path: site.root.symlink("target", path),
}


@pytest.mark.parametrize("make", MAKING)
def test_making_something(site, make):
    parent = site.directory("d")
    watch = Watch(parent)
    MAKING[make](site, parent + "/new")
    assert watch.changed(parent) == "mc"
    made = times(parent + "/new")
    assert watch.before[parent]["m"] < made["m"] == made["c"] <= times(parent)["m"]
    assert made["a"] >= watch.before[parent]["m"]
    if site.is_mount:  # one transaction, one time; a disk may stamp the two at different ticks
        assert made["m"] == times(parent)["m"]


@pytest.mark.parametrize("make", MAKING)
def test_what_fails_changes_nothing(site, make):
    parent = site.directory("d")
    site.directory("d/new")
    watch = Watch(parent, parent + "/new")
    assert outcome(MAKING[make], site, parent + "/new") == "EEXIST"
    assert watch.changed(parent) == watch.changed(parent + "/new") == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("chmod", "c"),
        ("chmod to the same", "c"),
        ("chown", "c"),
        ("lchown", "c"),
        ("utimensat", "mc"),
        ("utimensat of atime alone", "c"),
        ("setxattr", "c"),
        ("removexattr", "c"),
        ("truncate", "mc"),
        ("truncate to more", "mc"),
        ("truncate to the same size", "mc"),
        ("write", "mc"),
        ("write of nothing", ""),
        ("open with O_TRUNC", "mc"),
        ("open for writing", ""),
        ("read", ""),
        ("stat", ""),
        ("link", "c"),
        ("rename", "c"),
        ("rename onto itself", ""),
    ],
)
def test_changing_a_file(site, change, expected):
    path = site.file("f", 0o644)
    os.setxattr(path, "user.there", b"1")
    user, now = site.root, path
    watch = Watch(path)
    match change:
        case "chmod":
            user.chmod(path, 0o600)
        case "chmod to the same":
            user.chmod(path, 0o644)
        case "chown":
            user.chown(path, site.alice.uid, -1)
        case "lchown":
            user.chown(path, site.alice.uid, -1, follow_symlinks=False)
        case "utimensat":
            user.utime(path, ns=(5, 5))
            assert times(path)["m"] == times(path)["a"] == 5
            os.utime(path)
        case "utimensat of atime alone":
            user.utime(path, ns=(5, watch.before[path]["m"]))
        case "setxattr":
            user.setxattr(path, "user.x", b"1")
        case "removexattr":
            user.removexattr(path, "user.there")
        case "truncate":
            user.truncate(path, 1)
        case "truncate to more":
            user.truncate(path, 100)
        case "truncate to the same size":
            user.truncate(path, 4)
        case "write":
            user.do(write_to, path, b"x")
        case "write of nothing":
            user.do(write_to, path, b"")
        case "open with O_TRUNC":
            user.do(open_and_close, path, os.O_WRONLY | os.O_TRUNC)
        case "open for writing":
            user.do(open_and_close, path, os.O_RDWR)
        case "read":
            read_uncached(path)
        case "stat":
            user.stat(path)
        case "link":
            user.link(path, site / "other")
        case "rename":
            now = site / "renamed"
            user.rename(path, now)
        case "rename onto itself":
            user.rename(path, path)
        case _:
            raise AssertionError(change)
    if site.is_mount and change == "truncate to the same size":
        expected = ""  # with a writeback cache the kernel keeps the times, and takes this for no change
    assert watch.changed(path, now) == expected


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "symlink"])
def test_taking_a_name_away(site, kind):
    parent = site.directory("d")
    path = parent + "/victim"
    if kind == "directory":
        os.mkdir(path)
    elif kind == "symlink":
        os.symlink("x", path)
    else:
        os.mknod(path, {"file": stat.S_IFREG, "fifo": stat.S_IFIFO}[kind] | 0o600)
    if kind != "directory":
        os.link(path, site / "other", follow_symlinks=False)
    watch = Watch(parent, *([site / "other"] if kind != "directory" else []))
    (site.root.rmdir if kind == "directory" else site.root.unlink)(path)
    assert watch.changed(parent) == "mc"
    if kind != "directory":
        assert watch.changed(site / "other") == "c"


def test_rename_changes_both_directories_and_the_ctime_of_what_moves(site):
    one, two = site.directory("one"), site.directory("two")
    moved, replaced = site.file("one/f"), site.file("two/g")
    os.link(replaced, site / "kept")
    watch = Watch(one, two, moved, site / "kept")
    site.root.rename(moved, replaced)
    assert watch.changed(one) == watch.changed(two) == "mc"
    assert watch.changed(moved, replaced) == "c"
    assert watch.changed(site / "kept") == "c"


def test_link_changes_the_directory_and_the_ctime_of_the_file(site):
    parent, path = site.directory("d"), site.file("f")
    watch = Watch(parent, path)
    site.root.link(path, parent + "/link")
    assert watch.changed(parent) == "mc"
    assert watch.changed(path) == "c"


@pytest.mark.parametrize(
    "stamp",
    [
        0,
        1,
        999_999_999,
        10**18 + 123_456_789,
        -1,
        -999_999_999,
        -(10**18) - 123_456_789,
        2**31 * 10**9,
        2**32 * 10**9 + 1,
        7 * 10**18,
    ],
)
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_times_are_kept_to_the_nanosecond(site, stamp, kind):
    """From long before 1970 to long after 2106."""
    path = site / "x"
    if kind == "directory":
        os.mkdir(path)
    elif kind == "symlink":
        os.symlink("nowhere", path)
    else:
        site.file("x")
    site.root.utime(path, ns=(stamp + 7, stamp), follow_symlinks=False)
    assert (times(path)["a"], times(path)["m"]) == (stamp + 7, stamp)


def test_access_times_as_with_relatime(site):
    """The first read after a change counts, the next one within a day does not."""
    path = site.file("f")
    os.utime(path, ns=(1, 1))
    tick()
    read_uncached(path)
    first = times(path)["a"]
    assert first > times(path)["c"]
    tick()
    read_uncached(path)
    assert times(path)["a"] == first
    site.root.do(write_to, path, b"x")
    tick()
    read_uncached(path)
    assert times(path)["a"] > first


def test_whoever_asks_leaves_access_times_alone(site):
    path = site.file("f")
    os.utime(path, ns=(1, 1))
    read_uncached(path, os.O_NOATIME)
    assert times(path)["a"] == 1


@pytest.mark.parametrize("how", ["the configuration", "-o"])
def test_a_mount_that_leaves_access_times_alone(lab, how):
    mount = lab.plan(lab.local_store(), settings={"servers.fuse": {"noatime": True}} if how != "-o" else {})
    mount.start(*(["-o", "noatime"] if how == "-o" else []))
    path = mount.path / "f"
    path.write_bytes(b"data")
    os.utime(path, ns=(1, 1))
    read_uncached(path)
    os.listdir(mount.path)
    assert times(path)["a"] == 1
    mount.umount()


def read_uncached(path, flags=0):
    descriptor = os.open(path, os.O_RDONLY | flags)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.read(descriptor, 1)
    os.close(descriptor)


def test_what_changes_later_is_not_older(site):
    """The kernel stamps some changes of a mounted file by itself, and zerofs others."""
    for number in range(20):
        path = site.file(f"{number}", data=b"")
        made = times(path)
        os.utime(path)
        assert times(path)["m"] >= made["m"]
        made = times(site.directory(f"d{number}"))
        write_to(path, b"later")
        assert times(path)["m"] >= made["m"]
