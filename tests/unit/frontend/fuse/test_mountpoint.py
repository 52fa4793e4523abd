"""What must hold of a mountpoint, and how the kernel's table is read."""

import errno
import os

import pytest

from zerofs.errors import MountpointError
from zerofs.frontend.fuse import mountpoint
from zerofs.frontend.fuse.mountpoint import Mounted, find_mounted, raise_read_ahead, unmount, usable_mountpoint

TABLE = rb"""22 27 0:21 / /proc rw,nosuid - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/root rw
40 27 0:38 / /mnt/one rw shared:7 master:2 - fuse.zerofs s3://bucket/a\040b rw,user_id=0
41 27 0:39 / /mnt/one rw - tmpfs tmpfs rw
42 27 0:40 / /mnt/a\040b\134040\012c rw - fuse.zerofs file:///x rw,user_id=0
broken line
43 27 0:41 / /mnt/cut rw
"""


def test_the_topmost_mount_counts():
    assert find_mounted(TABLE, "/mnt/one") == Mounted(device="0:39", filesystem_type="tmpfs", source="tmpfs")


def test_escapes_and_odd_names():
    found = find_mounted(TABLE, "/mnt/a b\\040\nc")
    assert found == Mounted(device="0:40", filesystem_type="fuse.zerofs", source="file:///x")


@pytest.mark.parametrize("path", ["/mnt", "/mnt/on", "/mnt/cut", "/mnt/a b"])
def test_what_is_not_mounted(path):
    assert find_mounted(TABLE, path) is None


def test_a_directory_is_usable_and_resolved(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "name").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert usable_mountpoint("name/../name") == str(tmp_path / "real")


def test_a_full_directory_is_used_with_a_warning(tmp_path, caplog):
    (tmp_path / "secret-name").touch()
    assert usable_mountpoint(tmp_path) == str(tmp_path)
    assert "not empty" in caplog.text
    assert "secret-name" not in caplog.text


def test_a_missing_directory(tmp_path):
    with pytest.raises(MountpointError, match=r"does not exist: create it with `mkdir -p .*/absent`"):
        usable_mountpoint(tmp_path / "absent")


def test_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MountpointError, match="is not a directory"):
        usable_mountpoint(tmp_path / "file")


def test_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MountpointError, match="Not a directory"):
        usable_mountpoint(tmp_path / "file" / "below")


def test_another_mount():
    with pytest.raises(MountpointError, match=r"/proc is a mountpoint already \(proc\): choose another"):
        usable_mountpoint("/proc")


def test_a_symlink_to_another_mount(tmp_path):
    (tmp_path / "link").symlink_to("/proc")
    with pytest.raises(MountpointError, match="/proc is a mountpoint already"):
        usable_mountpoint(tmp_path / "link")


def test_our_own_mount_dead_or_alive_is_not_touched(tmp_path, monkeypatch):
    mounted = Mounted(device="0:1", filesystem_type="fuse.zerofs", source="s3://b")
    monkeypatch.setattr(mountpoint, "mounted_at", lambda path: mounted)
    monkeypatch.setattr(os.path, "realpath", lambda path: pytest.fail("the mount was touched"))
    with pytest.raises(MountpointError) as caught:
        usable_mountpoint(tmp_path)
    assert f"zerofs umount {tmp_path}" in str(caught.value)
    assert f"fusermount3 -u -z {tmp_path}" in str(caught.value)


def test_a_dead_mount_that_the_table_does_not_show(tmp_path, monkeypatch):
    def dead(path):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(mountpoint.os, "stat", dead)
    with pytest.raises(MountpointError, match=r"whose server is gone\. Clear it with `fusermount3 -u -z"):
        usable_mountpoint(str(tmp_path))


def test_read_ahead_of_no_device_is_no_error():
    raise_read_ahead("4095:4095")


async def test_unmounting_what_is_not_mounted_says_so(tmp_path):
    assert await unmount(str(tmp_path))


async def test_unmounting_without_any_tool_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(mountpoint, "_tool", lambda name: None)
    monkeypatch.setenv("PATH", "")
    assert "No such file" in await unmount(str(tmp_path))
