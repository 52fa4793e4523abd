"""Mounting through libfuse: its options, and the reasons for failure. Mounting itself is in `tests/mount`."""

import os

import pyfuse3
import pytest

from zerofs import mounttable
from zerofs.errors import MountpointError
from zerofs.frontend.fuse.libfuse import session
from zerofs.frontend.fuse.libfuse.session import mount_options
from zerofs.frontend.fuse.mount import serve
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


@pytest.mark.parametrize(("message", "closed"), [("fuse_session_mount failed", [False]), ("fuse_session_new", [])])
async def test_a_refused_mount_is_cleaned_up_and_explained(tmp_path, monkeypatch, message, closed):
    def refuse(*args):
        raise RuntimeError(message)

    closings = []
    monkeypatch.setattr(pyfuse3, "init", refuse)
    monkeypatch.setattr(pyfuse3, "close", lambda unmount: closings.append(unmount))
    monkeypatch.setattr(session, "_reason", lambda options: "because")
    with pytest.raises(MountpointError, match=f"cannot mount at {tmp_path}: because"):
        await serve(None, tmp_path, FuseOptions(driver="pyfuse3"), World())
    assert closings == closed


@pytest.mark.parametrize(
    ("obstacle", "uid", "reason"),
    [("no device", 0, "no device"), ("", 0, "mount(2) was refused"), ("", 1000, "what it said stands above")],
)
def test_the_reason_of_a_refusal(monkeypatch, obstacle, uid, reason):
    monkeypatch.setattr(mounttable, "fuse_obstacle", lambda *, allow_other: obstacle)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert reason in session._reason(FuseOptions())
