"""The mount's options and the reasons for failure. Mounting itself is in `tests/mount`."""

from dataclasses import FrozenInstanceError

import pyfuse3
import pytest

from zerofs.errors import ConfigError, MountpointError
from zerofs.frontend.fuse import mount
from zerofs.frontend.fuse.mount import serve
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.world import World


def test_options_are_frozen():
    with pytest.raises(FrozenInstanceError):
        FuseOptions().read_only = True


async def test_an_unknown_driver(tmp_path):
    with pytest.raises(ConfigError, match="unknown FUSE driver 'other'"):
        await serve(None, tmp_path, FuseOptions(driver="other"), World())


async def test_a_bad_mountpoint_is_refused_before_anything_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(pyfuse3, "init", lambda *args: pytest.fail("it was mounted"))
    with pytest.raises(MountpointError, match="does not exist"):
        await serve(None, tmp_path / "absent", FuseOptions(driver="pyfuse3"), World())


async def test_a_full_directory_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise RuntimeError("fuse_session_new")

    (tmp_path / "secret-name").touch()
    monkeypatch.setattr(pyfuse3, "init", refuse)
    with pytest.raises(MountpointError):
        await serve(None, tmp_path, FuseOptions(driver="pyfuse3"), World())
    assert "not empty" in caplog.text
    assert "secret-name" not in caplog.text


def test_read_ahead_of_no_device_is_no_error():
    mount.raise_read_ahead("4095:4095")
