"""What is wrong with a path is told alike by every call that takes one."""

import os
import stat

import pytest

from tests.mount.posix.users import open_and_close, outcome, write_to

pytestmark = pytest.mark.mount

NAME_MAX, PATH_MAX, LINK_MAX = 255, 4095, 4095

EXISTING = {
    "chmod": lambda user, site, path: user.chmod(path, 0o600),
    "chown": lambda user, site, path: user.chown(path, user.uid, user.gid),
    "lchown": lambda user, site, path: user.chown(path, user.uid, user.gid, follow_symlinks=False),
    "stat": lambda user, site, path: user.stat(path),
    "lstat": lambda user, site, path: user.lstat(path),
    "statvfs": lambda user, site, path: user.statvfs(path),
    "open": lambda user, site, path: user.do(open_and_close, path, os.O_RDONLY),
    "open for writing": lambda user, site, path: user.do(open_and_close, path, os.O_WRONLY),
    "truncate": lambda user, site, path: user.truncate(path, 1),
    "unlink": lambda user, site, path: user.unlink(path),
    "link from": lambda user, site, path: user.link(path, site / "linked"),
    "rename from": lambda user, site, path: user.rename(path, site / "renamed"),
    "utimensat": lambda user, site, path: user.utime(path, ns=(1, 1)),
    "getxattr": lambda user, site, path: user.listxattr(path),
    "setxattr": lambda user, site, path: user.setxattr(path, "user.x", b"1"),
}
"""Calls on a regular file that is there."""

MAKING = {
    "mkdir": lambda user, site, path: user.mkdir(path),
    "mkfifo": lambda user, site, path: user.mkfifo(path),
    "mknod": lambda user, site, path: user.mknod(path, stat.S_IFREG | 0o644),
    "mknod of a socket": lambda user, site, path: user.mknod(path, stat.S_IFSOCK | 0o644),
    "open with O_CREAT": lambda user, site, path: user.do(write_to, path, b"x", os.O_WRONLY | os.O_CREAT),
    "symlink": lambda user, site, path: user.symlink("target", path),
    "link to": lambda user, site, path: user.link(site.fresh("old", user), path),
    "rename to": lambda user, site, path: user.rename(site.fresh("old", user), path),
}
"""Calls that make the name that they are given."""

OTHERS = {
    "rmdir": lambda user, site, path: user.rmdir(path),
    "readlink": lambda user, site, path: user.readlink(path),
    "opendir": lambda user, site, path: user.listdir(path),
}
"""Calls on something there that is no regular file."""

ALL = EXISTING | MAKING | OTHERS


@pytest.mark.parametrize("call", ALL)
def test_a_name_that_is_too_long(site, call):
    assert outcome(ALL[call], site.root, site, site / ("n" * (NAME_MAX + 1))) == "ENAMETOOLONG"


@pytest.mark.parametrize("call", ALL)
def test_a_name_within_the_path_that_is_too_long(site, call):
    assert outcome(ALL[call], site.root, site, site / ("n" * (NAME_MAX + 1) + "/x")) == "ENAMETOOLONG"


@pytest.mark.parametrize("call", ALL)
def test_a_path_that_is_too_long(site, call):
    path = site / ("./" * ((PATH_MAX - len(str(site.path)) - 2) // 2) + "xy")
    assert outcome(ALL[call], site.root, site, path.ljust(PATH_MAX + 1, "y")) == "ENAMETOOLONG"


@pytest.mark.parametrize("call", MAKING)
def test_the_longest_name_and_the_longest_path(site, call):
    name = site / ("n" * NAME_MAX)
    MAKING[call](site.root, site, name)
    site.root.lstat(name)
    os.rename(name, site / "away")
    path = f"{site.path}/" + "./" * ((PATH_MAX - len(str(site.path)) - 2) // 2)
    path += "p" * (PATH_MAX - len(path))
    MAKING[call](site.root, site, path)
    site.root.lstat(path)


@pytest.mark.parametrize("call", ALL)
def test_a_directory_within_the_path_that_is_missing(site, call):
    assert outcome(ALL[call], site.root, site, site / "missing/x") == "ENOENT"


@pytest.mark.parametrize("call", EXISTING | OTHERS)
def test_a_name_that_is_missing(site, call):
    assert outcome(ALL[call], site.root, site, site / "missing") == "ENOENT"


@pytest.mark.parametrize("call", sorted(MAKING.keys() - {"rename to", "open with O_CREAT"}))
def test_a_name_that_is_taken(site, call):
    for made in (site.file("file"), site.directory("directory")):
        assert outcome(MAKING[call], site.root, site, made) == "EEXIST"
    os.symlink("nowhere", site / "link")
    assert outcome(MAKING[call], site.root, site, site / "link") == "EEXIST"


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize("kind", ["file", "fifo", "socket", "device"])
def test_something_within_the_path_that_is_no_directory(site, call, kind):
    path = site / "thing"
    made = {"file": stat.S_IFREG, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR}[kind]
    os.mknod(path, made | 0o666, os.makedev(1, 3))
    assert outcome(ALL[call], site.root, site, path + "/x") == "ENOTDIR"


@pytest.mark.parametrize("call", ALL)
def test_symlinks_that_lead_in_a_circle(site, call):
    os.symlink("b", site / "a")
    os.symlink("a", site / "b")
    assert outcome(ALL[call], site.root, site, site / "a/x") == "ELOOP"


@pytest.mark.parametrize("call", ALL)
def test_a_path_through_symlinks(site, call):
    site.directory("real", 0o777)
    os.symlink("real", site / "link")
    path = site / "link/x"
    if call in EXISTING:
        site.file("real/x", owner=site.alice)
    elif call == "readlink":
        os.symlink("target", site / "real/x")
    elif call in OTHERS:
        site.directory("real/x", owner=site.alice)
    assert outcome(ALL[call], site.alice, site, path) == "ok"


@pytest.mark.parametrize("call", ALL)
def test_a_directory_that_may_not_be_searched(site, call):
    closed = site.directory("closed", 0o766)
    if call in EXISTING:
        site.file("closed/x", 0o777, site.alice)
    elif call in OTHERS:
        site.directory("closed/x", 0o777, site.alice)
    assert outcome(ALL[call], site.alice, site, closed + "/x") == "EACCES"
    assert outcome(ALL[call], site.alice, site, closed + "/missing") == "EACCES"


@pytest.mark.parametrize("call", MAKING | {key: ALL[key] for key in ("unlink", "rmdir", "rename from")})
def test_a_directory_that_may_not_be_written_to(site, call):
    closed = site.directory("closed", 0o755)
    path = closed + "/x"
    if call in ("unlink", "rename from"):
        site.file("closed/x", 0o777, site.alice)
    elif call == "rmdir":
        site.directory("closed/x", 0o777, site.alice)
    assert outcome(ALL[call], site.alice, site, path) == "EACCES"


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize("path", ["", "\udcff" * 256])
def test_no_path_at_all_and_bytes_that_are_no_text(site, call, path):
    expected = "ENAMETOOLONG" if path else "ENOENT"
    assert outcome(ALL[call], site.root, site, site / path if path else "") == expected


@pytest.mark.parametrize("call", MAKING)
def test_any_bytes_but_slash_and_nul(site, call):
    raw = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    for name in (raw[:127], raw[127:]):
        MAKING[call](site.root, site, site / os.fsdecode(name))
        assert os.fsdecode(name) in os.listdir(site.path)


@pytest.mark.parametrize("call", ["mkdir", "mkfifo", "mknod", "open with O_CREAT", "symlink", "rename to", "link to"])
def test_in_a_directory_that_was_removed(site, call):
    gone = site.directory("gone", 0o777)
    descriptor = os.open(gone, os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(gone)
    calls = {
        "mkdir": lambda: os.mkdir("x", dir_fd=descriptor),
        "mkfifo": lambda: os.mkfifo("x", dir_fd=descriptor),
        "mknod": lambda: os.mknod("x", stat.S_IFREG, dir_fd=descriptor),
        "open with O_CREAT": lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor),
        "symlink": lambda: os.symlink("t", "x", dir_fd=descriptor),
        "rename to": lambda: os.rename(site.file("old"), "x", dst_dir_fd=descriptor),
        "link to": lambda: os.link(site.file("old"), "x", dst_dir_fd=descriptor),
    }
    try:
        assert outcome(calls[call]) == "ENOENT"
    finally:
        os.close(descriptor)
