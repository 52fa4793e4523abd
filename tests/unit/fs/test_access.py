"""The rules of permission, as tables."""

import stat

import pytest

from tests.unit.fs.harness import ALICE, BOB, CAROL, ROOT_CALLER, fails
from zerofs.fs import access
from zerofs.fs.access import EXECUTE, READ, WRITE, Caller
from zerofs.fs.format.records import Inode

CHECKED = Caller(uid=CAROL.uid, gid=CAROL.gid, checked=True)


def node(mode: int, uid: int = ALICE.uid, gid: int = 3000) -> Inode:
    if not stat.S_IFMT(mode):
        mode |= stat.S_IFREG
    return Inode(7, b"", mode=mode, uid=uid, gid=gid, now_ns=0)


@pytest.mark.parametrize(
    ("caller", "mode", "granted"),
    [
        (ALICE, 0o700, 7),
        (ALICE, 0o077, 0),  # the owner's class alone counts
        (ALICE, 0o477, 4),
        (BOB, 0o070, 7),  # a supplementary group
        (BOB, 0o707, 0),
        (BOB, 0o757, 5),
        (CAROL, 0o007, 7),
        (CAROL, 0o770, 0),
        (CAROL, 0o664, 4),
        (ROOT_CALLER, 0o000, 6),
        (ROOT_CALLER, 0o001, 7),
        (CHECKED, 0o000, 7),
    ],
)
def test_exactly_one_class_counts(caller: Caller, mode: int, granted: int) -> None:
    for mask in range(8):
        assert access.may(caller, node(mode), mask) == (granted & mask == mask)


def test_root_may_search_any_directory() -> None:
    assert access.may(ROOT_CALLER, node(stat.S_IFDIR), READ | WRITE | EXECUTE)


def test_the_primary_group_counts() -> None:
    assert access.may(CAROL, node(0o040, gid=CAROL.gid), READ)


def test_groups_are_asked_for_only_where_they_matter() -> None:
    def never() -> frozenset[int]:
        raise AssertionError("asked")

    stranger = Caller(uid=9, gid=9, groups=never)
    assert access.may(stranger, node(0o755), READ | EXECUTE)
    assert not access.may(stranger, node(0o755), WRITE)
    assert access.may(Caller(uid=ALICE.uid, gid=9, groups=never), node(0o700), WRITE)
    with pytest.raises(AssertionError):
        access.may(stranger, node(0o750), READ)


def test_changing_a_directory_needs_write_and_search() -> None:
    for mode, allowed in ((0o300, True), (0o200, False), (0o100, False), (0o700, True)):
        directory = node(stat.S_IFDIR | mode)
        if allowed:
            access.require_change(ALICE, directory)
        else:
            with fails("EACCES"):
                access.require_change(ALICE, directory)
    access.require_change(ROOT_CALLER, node(stat.S_IFDIR))
    access.require_change(CHECKED, node(stat.S_IFDIR))


@pytest.mark.parametrize("caller", [ALICE, BOB, ROOT_CALLER, CHECKED])
def test_sticky_lets_owners_of_file_or_directory_remove(caller: Caller) -> None:
    sticky = node(stat.S_IFDIR | 0o1777, uid=ALICE.uid)
    access.require_removal(caller, sticky, node(0o600, uid=BOB.uid))


def test_sticky_keeps_others_out() -> None:
    with fails("EPERM"):
        access.require_removal(CAROL, node(stat.S_IFDIR | 0o1777), node(0o666, uid=BOB.uid))
    access.require_removal(CAROL, node(stat.S_IFDIR | 0o777), node(0o666, uid=BOB.uid))
    with fails("EACCES"):
        access.require_removal(CAROL, node(stat.S_IFDIR | 0o1775), node(0o666, uid=CAROL.uid))


@pytest.mark.parametrize(
    ("caller", "uid", "gid", "allowed"),
    [
        (ROOT_CALLER, 5, 5, True),
        (CHECKED, 5, 5, True),
        (ALICE, ALICE.uid, None, True),
        (ALICE, BOB.uid, None, False),
        (ALICE, None, ALICE.gid, True),
        (ALICE, None, 3000, True),
        (ALICE, None, BOB.gid, False),
        (BOB, None, 3000, False),
        (BOB, BOB.uid, None, False),
    ],
)
def test_chown(caller: Caller, uid: int | None, gid: int | None, allowed: bool) -> None:
    if allowed:
        access.require_chown(caller, node(0o666), uid, gid)
    else:
        with fails("EPERM"):
            access.require_chown(caller, node(0o666), uid, gid)


def test_an_owner_may_keep_a_group_that_is_not_his() -> None:
    access.require_chown(ALICE, node(0o666, gid=99), None, 99)


def test_times() -> None:
    for caller in (ALICE, ROOT_CALLER, CHECKED):
        access.require_times(caller, node(0), explicit=True)
        access.require_times(caller, node(0), explicit=False)
    access.require_times(BOB, node(0o020), explicit=False)
    with fails("EACCES"):
        access.require_times(CAROL, node(0o020), explicit=False)
    with fails("EPERM"):
        access.require_times(BOB, node(0o666), explicit=True)


def test_only_members_keep_setgid_at_chmod() -> None:
    assert access.mode_after_chmod(ALICE, 0o106777, 3000) == 0o6777
    assert access.mode_after_chmod(ALICE, 0o6777, 99) == 0o4777
    assert access.mode_after_chmod(ROOT_CALLER, 0o7777, 99) == 0o7777
    assert access.mode_after_chmod(CHECKED, 0o7777, 99) == 0o7777


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (0o104755, 0o100755),
        (0o102755, 0o100755),
        (0o106777, 0o100777),
        (0o102745, 0o102745),  # setgid without group execution: a mark for mandatory locks
        (0o106745, 0o102745),
        (0o101777, 0o101777),
        (0o046777, 0o046777),  # a directory
    ],
)
def test_privileges_go(before: int, after: int) -> None:
    assert access.mode_without_privileges(before) == after


def test_what_a_new_inode_inherits() -> None:
    plain = node(stat.S_IFDIR | 0o755, gid=50)
    setgid = node(stat.S_IFDIR | 0o2755, gid=50)
    file, directory = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
    assert access.ownership_of_new(ALICE, plain, file) == (file, ALICE.uid, ALICE.gid)
    assert access.ownership_of_new(ALICE, setgid, file) == (file, ALICE.uid, 50)
    assert access.ownership_of_new(ALICE, setgid, directory) == (directory | stat.S_ISGID, ALICE.uid, 50)
    program = stat.S_IFREG | 0o2755
    assert access.ownership_of_new(ALICE, setgid, program)[0] == stat.S_IFREG | 0o755
    assert access.ownership_of_new(ROOT_CALLER, setgid, program)[0] == program
    assert access.ownership_of_new(ALICE, plain, program)[0] == program


@pytest.mark.parametrize(
    ("caller", "mode", "name", "change", "error"),
    [
        (ALICE, 0o600, b"user.a", True, None),
        (ALICE, 0o400, b"user.a", True, "EACCES"),
        (CAROL, 0o600, b"user.a", False, "EACCES"),
        (CAROL, 0o604, b"user.a", False, None),
        (ROOT_CALLER, stat.S_IFLNK | 0o777, b"user.a", True, "EPERM"),
        (ROOT_CALLER, stat.S_IFLNK | 0o777, b"user.a", False, "ENODATA"),
        (ROOT_CALLER, stat.S_IFIFO | 0o777, b"user.a", True, "EPERM"),
        (CAROL, stat.S_IFDIR | 0o1777, b"user.a", True, "EPERM"),
        (ALICE, stat.S_IFDIR | 0o1777, b"user.a", True, None),
        (CAROL, stat.S_IFDIR | 0o777, b"user.a", True, None),
        (ROOT_CALLER, 0, b"trusted.a", True, None),
        (ALICE, 0o777, b"trusted.a", True, "EPERM"),
        (ALICE, 0o777, b"trusted.a", False, "ENODATA"),
        (ALICE, 0o777, b"security.a", True, "EPERM"),
        (CAROL, 0, b"security.a", False, None),
        (ROOT_CALLER, stat.S_IFLNK | 0o777, b"security.a", True, None),
        (ROOT_CALLER, 0o777, b"system.posix_acl_access", True, "EOPNOTSUPP"),
        (ROOT_CALLER, 0o777, b"system.posix_acl_default", False, "EOPNOTSUPP"),
        (ROOT_CALLER, 0o777, b"os2.a", True, "EOPNOTSUPP"),
        (ROOT_CALLER, 0o777, b"user", True, "EOPNOTSUPP"),
    ],
)
def test_xattrs(caller: Caller, mode: int, name: bytes, change: bool, error: str | None) -> None:
    if error is None:
        access.require_xattr(caller, node(mode), name, change=change)
    else:
        with fails(error):
            access.require_xattr(caller, node(mode), name, change=change)
