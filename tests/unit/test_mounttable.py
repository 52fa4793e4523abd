"""zerofs.mounttable: the kernel's table, what may become a mount, and unmounting without a mount."""

import errno
import os
from pathlib import Path

import pytest

from zerofs import mounttable
from zerofs.errors import MountpointError
from zerofs.mounttable import MountEntry, fuse_obstacle, hides_something, usable_mountpoint

TABLE = rb"""22 1 0:20 / / rw,relatime - ext4 /dev/sda1 rw
40 22 0:35 / /mnt/my\040files\134x rw,nosuid,nodev - fuse.zerofs /etc/zerofs.toml rw,user_id=1000,group_id=1000
41 22 0:36 / /mnt/shared rw shared:7 master:2 - fuse.zerofs /a\054b rw,user_id=0,group_id=0
42 22 0:37 / /mnt/shared rw - tmpfs tmpfs rw
nonsense
43 22 0:38
"""


def test_mountinfo_is_decoded():
    entries = mounttable.parse_mountinfo(TABLE)
    assert entries[1] == MountEntry(
        mountpoint="/mnt/my files\\x",
        device="0:35",
        filesystem_type="fuse.zerofs",
        source="/etc/zerofs.toml",
        owner=1000,
    )
    assert [entry.mountpoint for entry in entries] == ["/", "/mnt/my files\\x", "/mnt/shared", "/mnt/shared"]
    assert entries[0].owner is None
    assert entries[2].owner == 0


def test_an_escape_is_decoded_once():
    entries = mounttable.parse_mountinfo(rb"1 2 0:1 / /a\134040b rw - ext4 x rw")
    assert entries[0].mountpoint == "/a\\040b"


def test_names_that_are_not_text_survive():
    entries = mounttable.parse_mountinfo(b"1 2 0:1 / /a\xff rw - ext4 x rw")
    assert os.fsencode(entries[0].mountpoint) == b"/a\xff"


def test_the_topmost_mount_counts():
    entries = mounttable.parse_mountinfo(TABLE)
    assert mounttable.find_mount("/mnt/shared", entries).filesystem_type == "tmpfs"
    assert mounttable.find_mount("/mnt", entries) is None


def test_this_machine_has_a_root():
    assert mounttable.find_mount("/", mounttable.read_mounts()) is not None


def test_a_mounted_path_is_not_touched(tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    monkeypatch.setattr(os.path, "realpath", lambda path: pytest.fail("the mount was touched"))
    entry = MountEntry(mountpoint=str(link), device="0:1", filesystem_type="fuse.zerofs", source="x", owner=0)
    assert mounttable.real_mountpoint(str(link), [entry]) == str(link)


def test_a_real_mountpoint_has_no_symlinks_and_is_absolute(tmp_path, monkeypatch):
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    monkeypatch.chdir(tmp_path)
    assert mounttable.real_mountpoint("link/", []) == str(target)


def test_a_directory_is_usable_and_resolved(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "name").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert usable_mountpoint("name/../name") == str(tmp_path / "real")


def test_a_full_directory_is_usable_and_known(tmp_path):
    assert not hides_something(str(tmp_path))
    (tmp_path / "file").touch()
    assert usable_mountpoint(tmp_path) == str(tmp_path)
    assert hides_something(str(tmp_path))
    assert not hides_something(str(tmp_path / "missing"))


def test_what_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MountpointError, match="/absent does not exist; make the directory first"):
        usable_mountpoint(tmp_path / "absent")
    with pytest.raises(MountpointError, match="/file is not a directory"):
        usable_mountpoint(tmp_path / "file")
    with pytest.raises(MountpointError, match="/below cannot be used: Not a directory"):
        usable_mountpoint(tmp_path / "file" / "below")


def test_another_mount(tmp_path):
    (tmp_path / "link").symlink_to("/proc")
    for path in ("/proc", tmp_path / "link"):
        with pytest.raises(MountpointError, match=r"/proc is a mountpoint already \(proc\): choose another"):
            usable_mountpoint(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fuse.zerofs", "is a zerofs mount already; unmount it with `zerofs umount {}`"),
        (
            "fuse.sshfs",
            "is a mountpoint already (fuse.sshfs): choose another directory, or unmount it first; if its "
            "server is gone, clear it with `fusermount3 -u -z {}`",
        ),
    ],
)
def test_a_fuse_mount_dead_or_alive_is_not_touched(tmp_path, monkeypatch, kind, message):
    entry = MountEntry(mountpoint=str(tmp_path), device="0:1", filesystem_type=kind, source="s3://b", owner=0)
    monkeypatch.setattr(mounttable, "read_mounts", lambda: [entry])
    monkeypatch.setattr(os.path, "realpath", lambda path: pytest.fail("the mount was touched"))
    with pytest.raises(MountpointError) as caught:
        usable_mountpoint(tmp_path)
    assert str(caught.value) == f"{tmp_path} {message.format(tmp_path)}"


def test_a_dead_mount_that_the_table_does_not_show(tmp_path, monkeypatch):
    def dead(path):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(mounttable.os, "stat", dead)
    with pytest.raises(MountpointError, match=r"whose server is gone\. Clear it with `fusermount3 -u -z"):
        usable_mountpoint(str(tmp_path))


class TestObstacles:
    """A user on a machine where all is well, and what may be wrong there."""

    @pytest.fixture(autouse=True)
    def _fine(self, monkeypatch, tmp_path):
        (tmp_path / "fuse").touch()
        (tmp_path / "fuse.conf").write_text("# user_allow_other\n")
        write_helper(tmp_path, "exit 0")
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(mounttable, "_SYSTEM_PATH", "")
        monkeypatch.setattr(mounttable, "_DEVICE", tmp_path / "fuse")
        monkeypatch.setattr(mounttable, "_FUSE_CONF", tmp_path / "fuse.conf")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)

    def test_none(self):
        assert fuse_obstacle() == ""

    def test_no_device(self, tmp_path):
        (tmp_path / "fuse").unlink()
        assert "fuse does not exist; load the kernel module `fuse`" in fuse_obstacle()

    def test_a_device_that_cannot_be_opened(self, tmp_path):
        (tmp_path / "fuse").unlink()
        (tmp_path / "fuse").mkdir()
        assert "fuse cannot be used: Is a directory" in fuse_obstacle()

    def test_no_helper(self, tmp_path):
        (tmp_path / "fusermount3").unlink()
        assert fuse_obstacle() == "fusermount3 was not found; install the package fuse3"

    def test_root_needs_no_helper_but_the_capability(self, tmp_path, monkeypatch):
        (tmp_path / "fusermount3").unlink()
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(mounttable, "_may_mount", lambda: True)
        assert fuse_obstacle(allow_other=True) == ""
        monkeypatch.setattr(mounttable, "_may_mount", lambda: False)
        assert "SYS_ADMIN" in fuse_obstacle()

    def test_allow_other(self, tmp_path):
        assert "user_allow_other" in fuse_obstacle(allow_other=True)
        (tmp_path / "fuse.conf").write_text("mount_max = 1000\n user_allow_other \n")
        assert fuse_obstacle(allow_other=True) == ""
        (tmp_path / "fuse.conf").unlink()
        assert "user_allow_other" in fuse_obstacle(allow_other=True)

    @pytest.mark.parametrize(("bits", "may"), [("000001ffffffffff", True), ("00000000a80425fb", False)])
    def test_the_capability_is_read_from_the_kernel(self, monkeypatch, bits, may):
        monkeypatch.setattr(Path, "read_text", lambda path: f"Name:\tx\nCapEff:\t{bits}\n")
        assert mounttable._may_mount() is may


def test_what_is_not_mounted_cannot_be_unmounted(tmp_path):
    with pytest.raises(MountpointError, match=str(tmp_path)):
        mounttable.unmount(str(tmp_path))


def test_pushing_needs_a_directory(tmp_path):
    mounttable.push_dirty_pages(str(tmp_path))
    with pytest.raises(MountpointError, match="cannot be entered: No such file"):
        mounttable.push_dirty_pages(str(tmp_path / "missing"))


def write_helper(folder, text):
    helper = folder / "fusermount3"
    helper.write_text(f"#!/bin/sh\n{text}\n")
    helper.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "echo 'fusermount3: failed to unmount /x: Device or resource busy' >&2; exit 1",
            mounttable.BusyError,
            "is busy",
        ),
        ("echo 'fusermount3: entry for /x not found' >&2; exit 1", MountpointError, "entry for /x not found"),
        ("exit 1", MountpointError, "fusermount3 failed"),
    ],
)
def test_the_helper_of_users(tmp_path, monkeypatch, text, error, message):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    write_helper(tmp_path, text)
    with pytest.raises(error, match=message):
        mounttable.unmount("/x")


def test_the_helper_of_users_gets_the_path_as_one_argument(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    write_helper(
        tmp_path, f'for a in "$@"; do echo "$a" >> {tmp_path}/arguments; done; echo $LC_ALL >> {tmp_path}/arguments'
    )
    mounttable.unmount("/a b")
    mounttable.unmount("-x", lazy=True)
    assert (tmp_path / "arguments").read_text().splitlines() == ["-u", "--", "/a b", "C", "-u", "-z", "--", "-x", "C"]
