"""The mount's options and the reasons for failure. Mounting itself is in `tests/mount`."""

import os
from dataclasses import FrozenInstanceError

import pyfuse3
import pytest

from zerofs import mounttable
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


async def test_a_full_directory_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise RuntimeError("fuse_session_new")

    (tmp_path / "secret-name").touch()
    monkeypatch.setattr(pyfuse3, "init", refuse)
    with pytest.raises(MountpointError):
        await serve(None, tmp_path, FuseOptions(), World())
    assert "not empty" in caplog.text
    assert "secret-name" not in caplog.text


@pytest.mark.parametrize(
    ("obstacle", "uid", "reason"),
    [("no device", 0, "no device"), ("", 0, "mount(2) was refused"), ("", 1000, "what it said stands above")],
)
def test_the_reason_of_a_refusal(monkeypatch, obstacle, uid, reason):
    monkeypatch.setattr(mounttable, "fuse_obstacle", lambda *, allow_other: obstacle)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert reason in mount._reason(FuseOptions())


def test_read_ahead_of_no_device_is_no_error():
    mount.raise_read_ahead("4095:4095")
