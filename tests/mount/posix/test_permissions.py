"""Who may do what: modes, owners, supplementary groups, sticky directories, and what a change takes away."""

import os
import stat
import subprocess

import pytest

from tests.mount.posix.users import GROUP, names_in, open_and_close, outcome, write_to

pytestmark = pytest.mark.mount

R, W, RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


# --- files


@pytest.mark.parametrize(
    ("mode", "who", "flags", "expected"),
    [
        (0o400, "alice", R, "ok"),
        (0o400, "alice", W, "EACCES"),
        (0o400, "alice", RW, "EACCES"),
        (0o200, "alice", R, "EACCES"),
        (0o200, "alice", W, "ok"),
        (0o077, "alice", R, "EACCES"),
        (0o077, "alice", W, "EACCES"),
        (0o040, "bob", R, "ok"),
        (0o040, "bob", W, "EACCES"),
        (0o020, "bob", W, "ok"),
        (0o020, "bob", R, "EACCES"),
        (0o707, "bob", R, "EACCES"),
        (0o707, "bob", W, "EACCES"),
        (0o004, "stranger", R, "ok"),
        (0o004, "stranger", W, "EACCES"),
        (0o002, "stranger", W, "ok"),
        (0o770, "stranger", R, "EACCES"),
        (0o770, "stranger", W, "EACCES"),
        (0o000, "root", RW, "ok"),
    ],
)
def test_the_mode_decides_who_opens_a_file(site, mode, who, flags, expected):
    """It belongs to alice and to the group that bob is in, too; as the stranger, bob meets a file of another group."""
    path = site.file("f", mode, site.alice)
    os.chown(path, site.alice.uid, GROUP if who == "bob" else site.alice.gid)
    os.chmod(path, mode)
    user = site.bob if who == "stranger" else site.user(who)
    assert outcome(user.do, open_and_close, path, flags) == expected
    wanted = {R: os.R_OK, W: os.W_OK, RW: os.R_OK | os.W_OK}[flags]
    assert user.access(path, wanted) == (expected == "ok")


@pytest.mark.parametrize(
    ("mode", "listing", "entering", "making"),
    [
        (0o700, "ok", "ok", "ok"),
        (0o500, "ok", "ok", "EACCES"),
        (0o300, "EACCES", "ok", "ok"),
        (0o100, "EACCES", "ok", "EACCES"),
        (0o400, "ok", "EACCES", "EACCES"),
        (0o600, "ok", "EACCES", "EACCES"),
        (0o200, "EACCES", "EACCES", "EACCES"),
        (0o077, "EACCES", "EACCES", "EACCES"),
    ],
)
def test_the_mode_of_a_directory(site, mode, listing, entering, making):
    path = site.directory("d", 0o700, site.alice)
    site.file("d/f", 0o644, site.alice)
    os.chmod(path, mode)
    assert outcome(site.alice.do, names_in, path) == listing
    assert outcome(site.alice.stat, path + "/f") == entering
    assert outcome(site.alice.mkdir, path + "/new") == making
    assert outcome(site.root.do, names_in, path) == "ok"
    assert outcome(site.root.mkdir, path + "/by-root") == "ok"


# --- chmod, chown


@pytest.mark.parametrize("kind", ["file", "directory", "fifo"])
def test_chmod_is_the_owners_and_roots(site, kind):
    path = site / "x"
    made = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "fifo": stat.S_IFIFO}[kind]
    os.mkdir(path) if kind == "directory" else os.mknod(path, made | 0o644)
    os.chown(path, site.alice.uid, GROUP)
    for mode in (0o000, 0o111, 0o777, 0o644):
        site.alice.chmod(path, mode)
        assert mode_of(path) == mode
    os.chmod(path, 0o777)
    assert outcome(site.bob.chmod, path, 0o700) == "EPERM"
    assert mode_of(path) == 0o777
    site.root.chmod(path, 0o7777)
    assert mode_of(path) == 0o7777


def test_setgid_needs_the_group(site):
    path = site.file("f", 0o644, site.alice)
    site.alice.chmod(path, 0o2755)
    assert mode_of(path) == 0o2755
    os.chown(path, -1, GROUP)
    site.alice.chmod(path, 0o2755)
    assert mode_of(path) == 0o2755, "a supplementary group will do"
    os.chown(path, -1, site.bob.gid)
    site.alice.chmod(path, 0o2755)
    assert mode_of(path) == 0o755, "not in the group: the bit is dropped without a word"


def test_chown_of_the_owner_is_roots(site):
    path = site.file("f", 0o644, site.alice)
    assert outcome(site.alice.chown, path, site.bob.uid, -1) == "EPERM"
    assert outcome(site.bob.chown, path, site.bob.uid, -1) == "EPERM"
    assert outcome(site.alice.chown, path, site.alice.uid, -1) == "ok"
    site.root.chown(path, site.bob.uid, site.bob.gid)
    found = os.stat(path)
    assert (found.st_uid, found.st_gid) == (site.bob.uid, site.bob.gid)


def test_chown_of_the_group_is_the_owners_among_his_groups(site):
    path = site.file("f", 0o644, site.alice)
    assert outcome(site.alice.chown, path, -1, GROUP) == "ok"
    assert os.stat(path).st_gid == GROUP
    assert outcome(site.alice.chown, path, -1, site.bob.gid) == "EPERM"
    assert outcome(site.bob.chown, path, -1, GROUP) == "EPERM"
    assert outcome(site.alice.chown, path, site.alice.uid, site.alice.gid) == "ok"
    assert outcome(site.alice.chown, path, -1, -1) == "ok"


def test_chown_of_a_symlink_and_of_what_it_leads_to(site):
    path = site.file("f", 0o644)
    os.symlink("f", site / "link")
    site.root.chown(site / "link", site.alice.uid, site.alice.gid, follow_symlinks=False)
    assert os.lstat(site / "link").st_uid == site.alice.uid
    assert os.stat(path).st_uid == 0
    site.root.chown(site / "link", site.bob.uid, -1)
    assert os.lstat(site / "link").st_uid == site.alice.uid
    assert os.stat(path).st_uid == site.bob.uid


@pytest.mark.parametrize("change", ["write", "truncate", "ftruncate", "chown", "chgrp"])
@pytest.mark.parametrize("who", ["alice", "root"])
@pytest.mark.parametrize("mode", [0o6777, 0o4777, 0o2777, 0o6767, 0o2767])
def test_what_a_change_takes_from_a_program(site, change, who, mode):
    """setuid goes, and setgid of what the group may execute; root's writes and truncates leave both."""
    path = site.file("f", 0o777, site.alice)
    os.chmod(path, mode)
    user = site.user(who)
    if change == "write":
        user.do(write_to, path, b"x")
        os.sync()  # with a writeback cache it is the write itself that may be late
    elif change == "truncate":
        user.truncate(path, 1)
    elif change == "ftruncate":
        user.do(truncate_opened, path)
    elif change == "chown":
        user.chown(path, site.alice.uid, -1)
    else:
        user.chown(path, -1, GROUP)
    keeps = who == "root" and change in ("write", "truncate", "ftruncate")
    executable = mode & stat.S_IXGRP
    expected = mode if keeps else mode & ~stat.S_ISUID & ~(stat.S_ISGID if executable else 0)
    assert oct(mode_of(path)) == oct(expected)


@pytest.mark.parametrize("ground", ["plain", "native"], indirect=True)
@pytest.mark.parametrize("script", ["printf x >> {}; sync", "printf x > {}", "truncate -s 1 {}", ": > {}"])
@pytest.mark.parametrize("mode", [0o6777, 0o2777])
def test_a_root_that_may_not_keep_privileges_takes_them(site, script, mode):
    """Without CAP_FSETID root is like everybody else."""
    path = site.file("f", 0o777, site.alice)
    os.chmod(path, mode)
    subprocess.run(["setpriv", "--bounding-set", "-fsetid", "sh", "-c", script.format(path)], check=True, timeout=60)
    assert oct(mode_of(path)) == oct(0o777)


def truncate_opened(path):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, 1)
    finally:
        os.close(descriptor)


# --- what is new


@pytest.mark.parametrize("make", ["mkdir", "mkfifo", "mknod", "open", "symlink"])
def test_what_is_new_belongs_to_whoever_made_it(site, make):
    parent = site.directory("plain", 0o777)
    path = parent + "/new"
    make_as(site.alice, make, path)
    found = os.lstat(path)
    assert (found.st_uid, found.st_gid) == (site.alice.uid, site.alice.gid)


@pytest.mark.parametrize("make", ["mkdir", "mkfifo", "mknod", "open", "symlink"])
def test_in_a_setgid_directory_it_belongs_to_the_directorys_group(site, make):
    parent = site.directory("shared", 0o777)
    os.chown(parent, 0, site.bob.gid)
    os.chmod(parent, 0o2777)
    path = parent + "/new"
    make_as(site.alice, make, path)
    found = os.lstat(path)
    assert (found.st_uid, found.st_gid) == (site.alice.uid, site.bob.gid)
    assert bool(found.st_mode & stat.S_ISGID) == (make == "mkdir")


def make_as(user, make, path):
    if make == "open":
        user.do(open_and_close, path, os.O_CREAT | os.O_WRONLY, 0o666)
    elif make == "symlink":
        user.symlink("target", path)
    elif make == "mknod":
        user.mknod(path, stat.S_IFREG | 0o666)
    else:
        getattr(user, make)(path, 0o777)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("make", ["mkdir", "mkfifo", "mknod", "open"])
def test_the_umask_counts(site, make, umask):
    before = site.alice.umask(umask)
    try:
        make_as(site.alice, make, site / "new")
    finally:
        site.alice.umask(before)
    asked = 0o777 if make in ("mkdir", "mkfifo") else 0o666
    assert mode_of(site / "new") == asked & ~umask


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_devices_are_roots(site, kind):
    assert outcome(site.alice.mknod, site / "device", kind | 0o666, os.makedev(1, 3)) == "EPERM"
    site.root.mknod(site / "device", kind | 0o666, os.makedev(7, 3))
    found = os.lstat(site / "device")
    assert stat.S_IFMT(found.st_mode) == kind
    assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (7, 3)


# --- sticky directories


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
@pytest.mark.parametrize(
    ("directory_owner", "owner", "who", "expected"),
    [
        ("root", "alice", "alice", "ok"),
        ("alice", "bob", "alice", "ok"),
        ("alice", "alice", "alice", "ok"),
        ("root", "bob", "alice", "refused"),
        ("bob", "root", "alice", "refused"),
        ("bob", "bob", "alice", "refused"),
        ("bob", "bob", "root", "ok"),
    ],
)
@pytest.mark.parametrize("what", ["remove", "rename away", "rename onto"])
def test_a_sticky_directory_protects_what_belongs_to_others(site, kind, directory_owner, owner, who, expected, what):
    place = site.directory("sticky", 0o777, site.user(directory_owner))
    os.chmod(place, 0o1777)
    user, elsewhere = site.user(who), site.directory("elsewhere", 0o777)
    victim = make_kind(site, kind, "sticky/victim", site.user(owner))
    if what == "remove":
        got = outcome(user.rmdir if kind == "directory" else user.unlink, victim)
    elif what == "rename away":
        got = outcome(user.rename, victim, elsewhere + "/moved")
    else:
        mine = make_kind(site, kind, "elsewhere/mine", user)
        got = outcome(user.rename, mine, victim)
    assert got in (("ok",) if expected == "ok" else ("EPERM", "EACCES"))
    assert os.path.lexists(victim) == (expected == "refused" or what == "rename onto")


def make_kind(site, kind, name, owner):
    path = site / name
    if kind == "directory":
        return site.directory(name, 0o777, owner)
    if kind == "symlink":
        os.symlink("nowhere", path)
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
        return path
    return site.file(name, 0o777, owner)


def test_moving_somebody_elses_directory_needs_the_right_to_write_to_it(site):
    """Its .. changes: as root of the tree it may be moved only by who may write to it."""
    site.directory("from", 0o777)
    site.directory("to", 0o777)
    path = site.directory("from/d", 0o755, site.bob)
    assert outcome(site.alice.rename, path, site / "to/d") == "EACCES"
    assert outcome(site.alice.rename, path, site / "from/e") == "ok"
    assert outcome(site.bob.rename, site / "from/e", site / "to/d") == "ok"


# --- times, xattrs


@pytest.mark.parametrize(
    ("mode", "who", "explicit", "now"),
    [
        (0o000, "alice", "ok", "ok"),
        (0o666, "bob", "EPERM", "ok"),
        (0o644, "bob", "EPERM", "EACCES"),
        (0o000, "root", "ok", "ok"),
    ],
)
def test_times_are_the_owners_and_now_is_for_whoever_may_write(site, mode, who, explicit, now):
    path = site.file("f", mode, site.alice)
    user = site.user(who)
    assert outcome(user.utime, path, ns=(10**18, 10**18)) == explicit
    assert outcome(user.utime, path) == now


@pytest.mark.parametrize(
    ("name", "mode", "who", "setting", "getting"),
    [
        ("user.x", 0o600, "alice", "ok", "ok"),
        ("user.x", 0o644, "bob", "EACCES", "ok"),
        ("user.x", 0o600, "bob", "EACCES", "EACCES"),
        ("trusted.x", 0o666, "alice", "EPERM", "ENODATA"),
        ("trusted.x", 0o666, "root", "ok", "ok"),
    ],
)
def test_who_sets_and_sees_extended_attributes(site, name, mode, who, setting, getting):
    path = site.file("f", mode, site.alice)
    user = site.user(who)
    assert outcome(user.setxattr, path, name, b"value") == setting
    os.setxattr(path, name, b"value")
    assert outcome(user.getxattr, path, name) == getting
