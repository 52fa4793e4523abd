"""link, symlink, unlink, rmdir and rename: what may take whose place, and what is left afterwards."""

import errno
import os
import stat

import pytest

from tests.mount.posix.syscalls import link_opened, renameat2
from tests.mount.posix.users import outcome

pytestmark = pytest.mark.mount

KINDS = ["file", "directory", "full directory", "fifo", "socket", "device", "symlink"]
NO_DIRECTORIES = ["file", "fifo", "socket", "device", "symlink"]
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def make(site, kind, name):
    path = site / name
    if kind in ("directory", "full directory"):
        os.mkdir(path)
        if kind == "full directory":
            os.mkdir(path + "/child")
    elif kind == "symlink":
        os.symlink("nowhere", path)
    elif kind == "file":
        site.file(name, data=name.encode())
    else:
        made = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR}[kind]
        os.mknod(path, made | 0o600, os.makedev(1, 3))
    return path


def identity(path):
    found = os.lstat(path)
    return found.st_ino, stat.S_IFMT(found.st_mode), found.st_nlink


# --- rename


def expected_of_rename(old, new):
    """Source: rename(2)."""
    if "directory" in old:
        if "directory" not in new:
            return "ENOTDIR"
        return "ENOTEMPTY" if new == "full directory" else "ok"
    return "EISDIR" if "directory" in new else "ok"


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("across", [False, True])
def test_what_may_take_the_place_of_what(site, old, new, across):
    site.directory("d")
    one, two = make(site, old, "one"), make(site, new, "d/two" if across else "two")
    before, links = identity(one), os.stat(site.path).st_nlink
    expected = expected_of_rename(old, new)
    assert outcome(os.rename, one, two) == expected
    if expected == "ok":
        assert identity(two) == before
        assert not os.path.lexists(one)
        if "directory" in old:
            assert os.stat(site.path).st_nlink == links - 1
    else:
        assert identity(one) == before
        assert os.path.lexists(two)


@pytest.mark.parametrize("kind", KINDS)
def test_renaming_to_a_free_name_and_back(site, kind):
    site.directory("d")
    path = make(site, kind, "x")
    before = identity(path)
    for target in (site / "y", site / "d/y", site / ("n" * 255)):
        os.rename(path, target)
        assert identity(target) == before
        assert not os.path.lexists(path)
        os.rename(target, path)
    assert identity(path) == before


@pytest.mark.parametrize("kind", NO_DIRECTORIES)
def test_two_names_of_one_file_stay(site, kind):
    path = make(site, kind, "x")
    os.link(path, site / "y", follow_symlinks=False)
    os.rename(path, site / "y")
    assert identity(path) == identity(site / "y")
    assert identity(path)[2] == 2


def test_a_directory_does_not_go_into_itself(site):
    site.directory("a")
    site.directory("a/b")
    site.directory("a/b/c")
    for target in ("a/x", "a/b/x", "a/b/c/x"):
        assert outcome(os.rename, site / "a", site / target) == "EINVAL"
    assert outcome(os.rename, site / "a/b", site / "a") == "ENOTEMPTY"
    assert outcome(os.rename, site / "a/b", site / "a/b") == "ok"


@pytest.mark.parametrize("dots", [".", ".."])
def test_dots_are_not_renamed(site, dots):
    site.directory("d")
    assert outcome(os.rename, site / f"d/{dots}", site / "x") == "EBUSY"
    assert outcome(os.rename, site / "d", site / f"d/{dots}") == "EBUSY"


def test_a_moved_directory_knows_its_new_parent(site):
    for name in ("a", "b", "a/moving"):
        site.directory(name)
    before = [os.stat(site / name).st_nlink for name in ("a", "b")]
    os.rename(site / "a/moving", site / "b/moving")
    assert os.stat(site / "b/moving/..").st_ino == os.stat(site / "b").st_ino
    assert [os.stat(site / name).st_nlink for name in ("a", "b")] == [before[0] - 1, before[1] + 1]


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
def test_exchange(site, old, new):
    site.directory("d")
    one, two = make(site, old, "one"), make(site, new, "d/two")
    before = identity(one), identity(two)
    renameat2(one, two, EXCHANGE)
    assert (identity(two), identity(one)) == before


@pytest.mark.parametrize("kind", KINDS)
def test_noreplace(site, kind):
    one, two = make(site, "file", "one"), make(site, kind, "two")
    before = identity(two)
    assert outcome(renameat2, one, two, NOREPLACE) == "EEXIST"
    assert identity(two) == before
    assert outcome(renameat2, one, site / "free", NOREPLACE) == "ok"


def test_flags_that_do_not_go_together(site):
    one, two = make(site, "file", "one"), make(site, "file", "two")
    assert outcome(renameat2, one, two, EXCHANGE | NOREPLACE) == "EINVAL"
    assert outcome(renameat2, one, two, 1 << 10) == "EINVAL"
    assert outcome(renameat2, one, site / "missing", EXCHANGE) == "ENOENT"


def test_a_replaced_file_lives_on_while_it_is_open(site):
    one, two = make(site, "file", "one"), make(site, "file", "two")
    descriptor = os.open(two, os.O_RDWR)
    os.rename(one, two)
    assert os.fstat(descriptor).st_nlink == 0
    assert os.pread(descriptor, 10, 0) == b"two"
    os.pwrite(descriptor, b"still", 0)
    assert os.pread(descriptor, 10, 0) == b"still"
    os.close(descriptor)
    with open(two, "rb") as file:
        assert file.read() == b"one"


# --- link


@pytest.mark.parametrize("kind", NO_DIRECTORIES)
def test_links_to_anything_but_directories(site, kind):
    path = make(site, kind, "x")
    for number in range(2, 5):
        os.link(path, site / f"x{number}", follow_symlinks=False)
        assert os.lstat(path).st_nlink == number
        assert identity(path) == identity(site / f"x{number}")
    for number in range(2, 5):
        os.unlink(site / f"x{number}")
        assert os.lstat(path).st_nlink == 5 - number


def test_no_link_to_a_directory(site):
    make(site, "directory", "d")
    assert outcome(os.link, site / "d", site / "x") == "EPERM"
    assert outcome(site.alice.link, site / "d", site / "x") == "EPERM"


def test_no_link_to_what_was_unlinked(site):
    path = make(site, "file", "f")
    descriptor = os.open(path, os.O_RDONLY)
    os.unlink(path)
    assert outcome(link_opened, descriptor, site / "x") == "ENOENT"
    os.close(descriptor)


@pytest.mark.parametrize("target", ["x", "n" * 255, "/absolute/missing", "a/../b", "\udcff\udc80", "p" * 4095])
def test_symlinks_keep_what_they_were_given(site, target):
    os.symlink(target, site / "link")
    assert os.readlink(site / "link") == target
    found = os.lstat(site / "link")
    assert stat.S_ISLNK(found.st_mode)
    assert found.st_size == len(os.fsencode(target))
    assert stat.S_IMODE(found.st_mode) == 0o777


@pytest.mark.parametrize(("target", "expected"), [("", "ENOENT"), ("p" * 4096, "ENAMETOOLONG")])
def test_symlink_targets_that_cannot_be(site, target, expected):
    assert outcome(os.symlink, target, site / "link") == expected
    assert not os.path.lexists(site / "link")


@pytest.mark.parametrize("kind", ["file", "directory", "fifo"])
def test_readlink_of_what_is_no_link(site, kind):
    assert outcome(os.readlink, make(site, kind, "x")) == "EINVAL"


# --- unlink, rmdir


@pytest.mark.parametrize("kind", KINDS)
def test_unlink(site, kind):
    path = make(site, kind, "x")
    expected = "EISDIR" if "directory" in kind else "ok"
    assert outcome(os.unlink, path) == expected
    assert os.path.lexists(path) == (expected != "ok")


@pytest.mark.parametrize("kind", KINDS)
def test_rmdir(site, kind):
    path, links = make(site, kind, "x"), os.stat(site.path).st_nlink
    expected = {"directory": "ok", "full directory": "ENOTEMPTY"}.get(kind, "ENOTDIR")
    assert outcome(os.rmdir, path) == expected
    assert os.path.lexists(path) == (expected != "ok")
    assert os.stat(site.path).st_nlink == links - (kind == "directory")


@pytest.mark.parametrize(("name", "expected"), [(".", "EINVAL"), ("..", "ENOTEMPTY")])
def test_rmdir_of_dots(site, name, expected):
    site.directory("d")
    assert outcome(os.rmdir, site / f"d/{name}") == expected


def test_an_unlinked_file_lives_on_while_it_is_open(site):
    path = make(site, "file", "f")
    descriptor = os.open(path, os.O_RDWR)
    os.unlink(path)
    found = os.fstat(descriptor)
    assert (found.st_nlink, found.st_size) == (0, 1)
    os.pwrite(descriptor, b"more", 1)
    assert os.pread(descriptor, 10, 0) == b"fmore"
    os.ftruncate(descriptor, 2)
    os.fchmod(descriptor, 0o600)
    assert os.fstat(descriptor).st_size == 2
    os.close(descriptor)
    assert outcome(os.stat, path) == "ENOENT"


def test_a_directory_that_was_removed_while_it_is_open_is_empty(site):
    path = make(site, "directory", "d")
    descriptor = os.open(path, os.O_RDONLY)
    os.rmdir(path)
    assert os.listdir(descriptor) == []
    assert os.fstat(descriptor).st_nlink == 0
    os.close(descriptor)


def test_a_new_directory(site):
    path = make(site, "directory", "d")
    assert os.stat(path).st_nlink == 2
    for number in range(3):
        os.mkdir(f"{path}/{number}")
    make(site, "file", "d/file")
    assert os.stat(path).st_nlink == 5
    assert os.stat(path + "/..").st_ino == os.stat(site.path).st_ino
    assert os.stat(path + "/.").st_ino == os.stat(path).st_ino
    assert errno.errorcode[errno.EEXIST] == outcome(os.mkdir, path)
