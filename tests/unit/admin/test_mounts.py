"""zerofs.admin.mounts: reading the kernel's tables. The system calls themselves are tested on real mounts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zerofs.admin import mounts
from zerofs.admin.mounts import Holder, MountEntry
from zerofs.errors import MountpointError

TABLE = rb"""22 1 0:20 / / rw,relatime - ext4 /dev/sda1 rw
40 22 0:35 / /mnt/my\040files\134x rw,nosuid,nodev - fuse.zerofs /etc/zerofs.toml rw,user_id=1000,group_id=1000
41 22 0:36 / /mnt/shared rw shared:7 master:2 - fuse.zerofs /a\054b rw,user_id=0,group_id=0
42 22 0:37 / /mnt/shared rw - tmpfs tmpfs rw
nonsense
43 22 0:38
"""


def test_mountinfo_is_decoded():
    entries = mounts.parse_mountinfo(TABLE)
    assert entries[1] == MountEntry(
        mountpoint="/mnt/my files\\x", filesystem_type="fuse.zerofs", source="/etc/zerofs.toml", owner=1000
    )
    assert [entry.mountpoint for entry in entries] == ["/", "/mnt/my files\\x", "/mnt/shared", "/mnt/shared"]
    assert entries[0].owner is None
    assert entries[2].owner == 0


def test_an_escape_is_decoded_once():
    entries = mounts.parse_mountinfo(rb"1 2 0:1 / /a\134040b rw - ext4 x rw")
    assert entries[0].mountpoint == "/a\\040b"


def test_names_that_are_not_text_survive():
    entries = mounts.parse_mountinfo(b"1 2 0:1 / /a\xff rw - ext4 x rw")
    assert os.fsencode(entries[0].mountpoint) == b"/a\xff"


def test_the_topmost_mount_counts():
    entries = mounts.parse_mountinfo(TABLE)
    assert mounts.find_mount("/mnt/shared", entries).filesystem_type == "tmpfs"
    assert mounts.find_mount("/mnt", entries) is None


def test_this_machine_has_a_root():
    assert mounts.find_mount("/", mounts.read_mounts()) is not None


def test_a_mounted_path_is_not_touched(tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    monkeypatch.setattr(os.path, "realpath", lambda path: pytest.fail("the mount was touched"))
    entry = MountEntry(mountpoint=str(link), filesystem_type="fuse.zerofs", source="x", owner=0)
    assert mounts.real_mountpoint(str(link), [entry]) == str(link)


def test_a_real_mountpoint_has_no_symlinks_and_is_absolute(tmp_path, monkeypatch):
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    monkeypatch.chdir(tmp_path)
    assert mounts.real_mountpoint("link/", []) == str(target)


@pytest.fixture
def fake_proc(tmp_path):
    """Two processes below the mountpoint, one beside it, and what is no process."""
    proc = tmp_path / "proc"

    def process(pid, cwd="/", root="/", exe="/usr/bin/bash", files=(), maps=b""):
        folder = proc / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "cwd").symlink_to(cwd)
        (folder / "root").symlink_to(root)
        (folder / "exe").symlink_to(exe)
        for number, target in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(target)
        (folder / "maps").write_bytes(maps)

    process(10, cwd="/mnt/z", files=["/dev/null", "/mnt/z/file (deleted)"])
    process(9, exe="/mnt/z/secret-program", maps=b"7f00-7f01 r-xp 0000 00:35 12    /mnt/z/secret program\n")
    process(11, cwd="/mnt/zz", root="/mnt", files=["/mnt/zz/file"], maps=b"7f00-7f01 r-xp 0000 00:00 0\n")
    process(os.getpid(), cwd="/mnt/z")
    (proc / "self").mkdir()
    (proc / "12").mkdir()
    return proc


def test_holders_are_found_by_everything_that_holds(fake_proc):
    assert mounts.find_holders("/mnt/z", fake_proc) == [
        Holder(pid=9, program=None, uses=frozenset({"running program", "mapped file"})),
        Holder(pid=10, program="bash", uses=frozenset({"working directory", "open file"})),
    ]


def test_a_holder_is_named_unless_its_name_is_a_file_name(fake_proc):
    shown = [str(holder) for holder in mounts.find_holders("/mnt/z", fake_proc)]
    assert shown == [
        "a program in the mount (pid 9: mapped file, running program)",
        "bash (pid 10: open file, working directory)",
    ]


def test_a_real_holder_is_found(tmp_path):
    program = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        found = [holder for holder in mounts.find_holders(str(tmp_path)) if holder.pid == process.pid]
        process.stdin.close()
        process.stdout.read()
    assert [holder.uses for holder in found] == [{"working directory"}]
    assert found[0].program == Path(os.path.realpath(sys.executable)).name


def test_what_is_not_mounted_cannot_be_unmounted(tmp_path):
    with pytest.raises(MountpointError, match=str(tmp_path)):
        mounts.unmount(str(tmp_path))


def test_pushing_needs_a_directory(tmp_path):
    mounts.push_dirty_pages(str(tmp_path))
    with pytest.raises(MountpointError, match="cannot be entered: No such file"):
        mounts.push_dirty_pages(str(tmp_path / "missing"))


def write_helper(folder, text):
    helper = folder / "fusermount3"
    helper.write_text(f"#!/bin/sh\n{text}\n")
    helper.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("echo 'fusermount3: failed to unmount /x: Device or resource busy' >&2; exit 1", mounts.BusyError, "is busy"),
        ("echo 'fusermount3: entry for /x not found' >&2; exit 1", MountpointError, "entry for /x not found"),
        ("exit 1", MountpointError, "fusermount3 failed"),
    ],
)
def test_the_helper_of_users(tmp_path, monkeypatch, text, error, message):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    write_helper(tmp_path, text)
    with pytest.raises(error, match=message):
        mounts.unmount("/x")


def test_the_helper_of_users_gets_the_path_as_one_argument(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    write_helper(
        tmp_path, f'for a in "$@"; do echo "$a" >> {tmp_path}/arguments; done; echo $LC_ALL >> {tmp_path}/arguments'
    )
    mounts.unmount("/a b")
    mounts.unmount("-x", lazy=True)
    assert (tmp_path / "arguments").read_text().splitlines() == ["-u", "--", "/a b", "C", "-u", "-z", "--", "-x", "C"]
