"""Extended attributes: namespaces, flags, sizes; and POSIX ACLs, which are refused. Source: xattr(7), setxattr(2)."""

import ctypes
import errno
import os
import stat
import struct

import pytest

from tests.mount.posix.users import only_mounts, outcome

pytestmark = pytest.mark.mount

NOT_SUPPORTED = errno.errorcode[errno.EOPNOTSUPP]
KINDS = ["file", "directory", "fifo", "symlink"]
_libc = ctypes.CDLL(None, use_errno=True)


def make(site, kind):
    path = site / "x"
    if kind == "file":
        return site.file("x", 0o666)
    if kind == "directory":
        return site.directory("x", 0o777)
    if kind == "symlink":
        os.symlink("nowhere", path)
    else:
        os.mkfifo(path, 0o666)
    return path


def in_room_of(call, path, name, room):
    """lgetxattr(2) or llistxattr(2) with a buffer of `room` bytes: the size, or the name of the errno."""
    buffer = ctypes.create_string_buffer(max(room, 1))
    arguments = [os.fsencode(path), name, buffer, room] if name is not None else [os.fsencode(path), buffer, room]
    size = getattr(_libc, call)(*arguments)
    return errno.errorcode[ctypes.get_errno()] if size < 0 else size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "on_special", "missing"),
    [
        ("user.x", "EPERM", "ENODATA"),
        ("trusted.x", "ok", "ENODATA"),
        ("security.x", "ok", "ENODATA"),
    ],
)
def test_each_namespace_on_each_kind(site, kind, name, on_special, missing):
    path = make(site, kind)
    expected = "ok" if kind in ("file", "directory") else on_special
    assert outcome(os.getxattr, path, name, follow_symlinks=False) == missing
    assert outcome(os.setxattr, path, name, b"\0value\xff", follow_symlinks=False) == expected
    if expected == "ok":
        assert os.getxattr(path, name, follow_symlinks=False) == b"\0value\xff"
        assert os.listxattr(path, follow_symlinks=False) == [name]
        os.removexattr(path, name, follow_symlinks=False)
    assert os.listxattr(path, follow_symlinks=False) == []
    assert outcome(os.removexattr, path, name, follow_symlinks=False) == ("ENODATA" if expected == "ok" else "EPERM")


@pytest.mark.parametrize("name", ["other.x", "user", "system.x", "x", ".x", "USER.x"])
def test_other_namespaces_are_not_there(site, name):
    path = site.file("f")
    assert outcome(os.setxattr, path, name, b"") == NOT_SUPPORTED
    assert outcome(os.getxattr, path, name) == NOT_SUPPORTED
    assert outcome(os.removexattr, path, name) == NOT_SUPPORTED


@pytest.mark.parametrize("name", ["user.", "trusted.", "security."])
def test_a_namespace_alone_is_no_name(site, name):
    assert outcome(os.setxattr, site.file("f"), name, b"") == "EINVAL"


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("flags", "when_there", "when_not"),
    [(0, "ok", "ok"), (os.XATTR_CREATE, "EEXIST", "ok"), (os.XATTR_REPLACE, "ok", "ENODATA"), (4, "EINVAL", "EINVAL")],
)
def test_flags(site, there, flags, when_there, when_not):
    path = site.file("f")
    if there:
        os.setxattr(path, "user.x", b"old")
    expected = when_there if there else when_not
    assert outcome(os.setxattr, path, "user.x", b"new", flags) == expected
    if expected == "ok":
        assert os.getxattr(path, "user.x") == b"new"
    else:
        assert os.listxattr(path) == (["user.x"] if there else [])
        assert not there or os.getxattr(path, "user.x") == b"old"


@pytest.mark.parametrize(("size", "expected"), [(250, "ok"), (251, "ERANGE"), (5000, "ERANGE"), (0, "EINVAL")])
def test_sizes_of_names(site, size, expected):
    """255 bytes with the namespace."""
    path, name = site.file("f"), "user." + "n" * size
    assert outcome(os.setxattr, path, name, b"1") == expected
    if expected == "ok":
        assert os.listxattr(path) == [name]


@only_mounts
@pytest.mark.parametrize("size", [0, 1, 1000, 65535, 65536])
def test_sizes_of_values(site, size):
    """A disk holds no more than its block."""
    path, value = site.file("f"), os.urandom(size)
    os.setxattr(path, "user.x", value)
    assert os.getxattr(path, "user.x") == value
    os.setxattr(path, "user.x", b"short")
    assert os.getxattr(path, "user.x") == b"short"


@pytest.mark.parametrize("size", [65537, 200_000])
def test_values_that_are_too_long(site, size):
    path = site.file("f")
    assert outcome(os.setxattr, path, "user.x", bytes(size)) == "E2BIG"
    assert os.listxattr(path) == []


def test_buffers_that_are_too_small(site):
    path = site.file("f")
    os.setxattr(path, "user.x", b"12345")
    os.setxattr(path, "user.y", b"")
    assert in_room_of("lgetxattr", path, b"user.x", 0) == 5
    assert in_room_of("lgetxattr", path, b"user.x", 5) == 5
    assert in_room_of("lgetxattr", path, b"user.x", 4) == "ERANGE"
    assert in_room_of("lgetxattr", path, b"user.y", 1) == 0
    assert in_room_of("llistxattr", path, None, 0) == 14
    assert in_room_of("llistxattr", path, None, 14) == 14
    assert in_room_of("llistxattr", path, None, 13) == "ERANGE"


@only_mounts
def test_as_many_as_one_listing_holds(site):
    """64 KiB of names; the next one is refused, and removing one makes room."""
    path = site.file("f")
    names = [f"user.{number:03}" + "n" * 247 for number in range(300)]
    fits = 65536 // 256
    assert all(len(name) == 255 for name in names)
    for name in names[:fits]:
        os.setxattr(path, name, b"v")
    assert outcome(os.setxattr, path, names[fits], b"v") == "ENOSPC"
    assert sorted(os.listxattr(path)) == names[:fits]
    os.removexattr(path, names[0])
    os.setxattr(path, names[fits], b"v")
    assert sorted(os.listxattr(path)) == names[1 : fits + 1]


@pytest.mark.parametrize("name", ["trusted.x", "security.x"])
def test_what_is_roots_alone(site, name):
    path = site.file("f", 0o666, site.alice)
    os.setxattr(path, name, b"1")
    assert outcome(site.alice.setxattr, path, name, b"2") == "EPERM"
    assert outcome(site.alice.removexattr, path, name) == "EPERM"
    seen = name == "security.x"
    assert outcome(site.alice.getxattr, path, name) == ("ok" if seen else "ENODATA")
    assert site.alice.listxattr(path) == ([name] if seen else [])
    assert os.getxattr(path, name) == b"1"


def test_user_attributes_in_a_sticky_directory_are_the_owners(site):
    path = site.directory("d", 0o1777, site.alice)
    assert outcome(site.bob.setxattr, path, "user.x", b"1") == "EPERM"
    assert outcome(site.alice.setxattr, path, "user.x", b"1") == "ok"


def test_they_stay_with_the_file(site):
    path = site.file("f")
    os.setxattr(path, "user.x", b"1")
    os.link(path, site / "g")
    os.rename(path, site / "h")
    assert os.getxattr(site / "g", "user.x") == os.getxattr(site / "h", "user.x") == b"1"
    with open(site / "h", "wb") as file:
        file.write(b"other contents")
    assert os.getxattr(site / "g", "user.x") == b"1"


def acl():
    """rwx for alice besides the three classes. Source: linux/posix_acl_xattr.h."""
    nobody = 0xFFFFFFFF
    entries = [(0x01, 7, nobody), (0x02, 7, 64_001), (0x04, 5, nobody), (0x10, 7, nobody), (0x20, 5, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@only_mounts
@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("name", ["system.posix_acl_access", "system.posix_acl_default"])
def test_acls_are_refused_not_ignored(site, kind, name):
    path = make(site, kind)
    mode = stat.S_IMODE(os.stat(path).st_mode)
    of_a_file = kind == "file" and "default" in name
    assert outcome(os.setxattr, path, name, acl()) == ("EACCES" if of_a_file else NOT_SUPPORTED)
    assert outcome(os.getxattr, path, name) == NOT_SUPPORTED
    assert outcome(os.removexattr, path, name) == ("ok" if of_a_file else NOT_SUPPORTED)  # none to remove
    assert os.listxattr(path) == []
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
