"""The mount's options and the reasons for failure. Mounting itself is in `tests/mount`."""

import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import pyfuse3
import pytest

from zerofs.errors import ConfigError, MountpointError
from zerofs.frontend.fuse import mount
from zerofs.frontend.fuse.mount import mount_options, serve
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.world import World


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("allow_other", [False, True])
def test_the_kernel_checks_permissions_whatever_the_options_say(read_only, allow_other):
    chosen = mount_options(FuseOptions(read_only=read_only, allow_other=allow_other))
    assert {"default_permissions", "subtype=zerofs", "fsname=zerofs"} <= chosen
    assert ("ro" in chosen, "allow_other" in chosen) == (read_only, allow_other)


def test_a_source_cannot_smuggle_options_in():
    chosen = mount_options(FuseOptions(fsname="file:///a,allow_other,b\\,c\u00e9"))
    assert "fsname=file:///a\\,allow_other\\,b\\\\\\,c?" in chosen
    assert "allow_other" not in chosen


def test_options_are_frozen():
    with pytest.raises(FrozenInstanceError):
        FuseOptions().read_only = True


async def test_an_unknown_driver(tmp_path):
    with pytest.raises(ConfigError, match="unknown FUSE driver 'other'"):
        await serve(None, tmp_path, FuseOptions(driver="other"), World())


async def test_a_bad_mountpoint_is_refused_before_anything_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(pyfuse3, "init", lambda *args: pytest.fail("it was mounted"))
    with pytest.raises(MountpointError, match="does not exist"):
        await serve(None, tmp_path / "absent", FuseOptions(), World())


@pytest.mark.parametrize(("message", "closed"), [("fuse_session_mount failed", [False]), ("fuse_session_new", [])])
async def test_a_refused_mount_is_cleaned_up_and_explained(tmp_path, monkeypatch, message, closed):
    def refuse(*args):
        raise RuntimeError(message)

    closings = []
    monkeypatch.setattr(pyfuse3, "init", refuse)
    monkeypatch.setattr(pyfuse3, "close", lambda unmount: closings.append(unmount))
    monkeypatch.setattr(mount, "_reason", lambda options: "because")
    with pytest.raises(MountpointError, match=f"cannot mount at {tmp_path}: because"):
        await serve(None, tmp_path, FuseOptions(), World())
    assert closings == closed


class TestReason:
    @pytest.fixture(autouse=True)
    def _fine(self, monkeypatch):
        monkeypatch.setattr(Path, "exists", lambda path: True)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(os, "access", lambda path, mode: True)
        monkeypatch.setattr(mount, "unmount_helper", lambda: "/usr/bin/fusermount3")
        monkeypatch.setattr(Path, "read_text", lambda path, errors: "# user_allow_other\n")

    def test_no_device(self, monkeypatch):
        monkeypatch.setattr(Path, "exists", lambda path: False)
        assert "/dev/fuse does not exist" in mount._reason(FuseOptions())

    def test_root_in_a_container(self, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert "SYS_ADMIN" in mount._reason(FuseOptions())

    def test_no_permission(self, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert "no permission to use /dev/fuse" in mount._reason(FuseOptions())

    def test_no_helper(self, monkeypatch):
        monkeypatch.setattr(mount, "unmount_helper", lambda: None)
        assert "install the package fuse3" in mount._reason(FuseOptions())

    def test_others_are_not_allowed(self):
        assert "user_allow_other" in mount._reason(FuseOptions(allow_other=True))
        assert "stands above" in mount._reason(FuseOptions())

    def test_others_are_allowed(self, monkeypatch):
        monkeypatch.setattr(Path, "read_text", lambda path, errors: "mount_max = 9\n user_allow_other \n")
        assert "stands above" in mount._reason(FuseOptions(allow_other=True))
