"""zerofs.cli.plan: what counts, the option or the configuration, and which volume is the same volume."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from zerofs import mounttable
from zerofs.cli.mount_options import MountOptions, parse_mount_options
from zerofs.cli.plan import check_kernel, make_plan, volume_identity
from zerofs.config import load
from zerofs.errors import ConfigError, MountpointError
from zerofs.mounttable import MountEntry


@pytest.fixture
def settings(tmp_path):
    def settings(text="", url="memory://"):
        path = tmp_path / "zerofs.toml"
        path.write_text(f'[cache]\ndir = "cache"\n[storage]\nurl = "{url}"\n{text}')
        return load(path, {"XDG_STATE_HOME": str(tmp_path)})

    return settings


@pytest.fixture
def mountpoint(tmp_path):
    path = tmp_path / "mnt"
    path.mkdir()
    return path


def test_the_configuration_decides_where_options_are_silent(settings, mountpoint):
    configured = settings('[servers.fuse]\nmountpoint = "mnt"\nread_only = true\nallow_other = true\nwriteback = false')
    plan = make_plan(configured, None, MountOptions(), {"ZEROFS_RUNTIME_DIR": "/r"})
    assert plan.mountpoint == str(mountpoint)
    assert (plan.read_only, plan.allow_other, plan.writeback) == (True, True, False)
    assert plan.runtime_dir == Path("/r")
    plan = make_plan(configured, None, parse_mount_options(["rw,writeback"]), {})
    assert (plan.read_only, plan.allow_other, plan.writeback) == (False, True, True)


def test_the_named_mountpoint_wins_and_is_real(settings, tmp_path, mountpoint):
    (tmp_path / "link").symlink_to(mountpoint)
    plan = make_plan(settings('[servers.fuse]\nmountpoint = "/nowhere"'), str(tmp_path / "link"), MountOptions(), {})
    assert plan.mountpoint == str(mountpoint)


def test_the_record_tells_what_commands_need(settings, mountpoint):
    plan = make_plan(settings(url="file:///srv/v"), str(mountpoint), MountOptions(read_only=True), {}, log="/log")
    record = plan.record
    assert (record.mountpoint, record.identity, record.pid) == (str(mountpoint), "file:///srv/v", os.getpid())
    assert (record.read_only, record.config, record.log) == (True, str(plan.settings.path), "/log")


def test_no_mountpoint(settings):
    with pytest.raises(ConfigError, match=r"no mountpoint: set it in \[servers.fuse\]"):
        make_plan(settings(), None, MountOptions(), {})


def test_a_mountpoint_that_cannot_be(settings, tmp_path):
    with pytest.raises(MountpointError, match="does not exist; make the directory first"):
        make_plan(settings(), str(tmp_path / "missing"), MountOptions(), {})
    with pytest.raises(MountpointError, match="is not a directory"):
        make_plan(settings(), str(tmp_path / "zerofs.toml"), MountOptions(), {})
    with pytest.raises(MountpointError, match="cannot be used: Not a directory"):
        make_plan(settings(), str(tmp_path / "zerofs.toml" / "x"), MountOptions(), {})


def test_a_mountpoint_that_is_in_use(settings, mountpoint, monkeypatch):
    entry = MountEntry(mountpoint=str(mountpoint), device="0:1", filesystem_type="fuse.zerofs", source="x", owner=0)
    monkeypatch.setattr(mounttable, "read_mounts", lambda: [entry])
    with pytest.raises(MountpointError, match="is a zerofs mount already; unmount it with `zerofs umount"):
        make_plan(settings(), str(mountpoint), MountOptions(), {})


def test_a_mountpoint_with_another_mount(settings):
    with pytest.raises(MountpointError, match=r"/proc is a mountpoint already \(proc\)"):
        make_plan(settings(), "/proc", MountOptions(), {})


def test_a_kernel_that_cannot_mount(settings, mountpoint, monkeypatch):
    plan = make_plan(settings(), str(mountpoint), MountOptions(allow_other=True), {})
    monkeypatch.setattr(mounttable, "fuse_obstacle", lambda *, allow_other: "no device" if allow_other else "")
    check_kernel(replace(plan, allow_other=False))
    with pytest.raises(MountpointError, match=f"cannot mount at {mountpoint}: no device"):
        check_kernel(plan)


@pytest.mark.parametrize("place", ["", "store", "store/below", "cache", "state", "run"])
def test_a_mountpoint_that_covers_what_its_own_process_needs(tmp_path, place):
    for name in ("store/below", "cache", "state/zerofs", "run", "store-too"):
        (tmp_path / name).mkdir(parents=True)
    config = tmp_path / "zerofs.toml"
    config.write_text(f'[cache]\ndir = "cache"\n[storage]\nurl = "file://{tmp_path}/store"\n')
    environ = {"XDG_STATE_HOME": f"{tmp_path}/state", "ZEROFS_RUNTIME_DIR": f"{tmp_path}/run"}
    settings = load(config, environ)
    with pytest.raises(MountpointError, match=r"would hide|lies in the store"):
        make_plan(settings, str(tmp_path / place), MountOptions(), environ)
    make_plan(settings, str(tmp_path / "store-too"), MountOptions(), environ)


def test_noexec_needs_root(settings, mountpoint, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="noexec needs root"):
        make_plan(settings(), str(mountpoint), MountOptions(no_exec=True), {})


def test_one_volume_has_one_identity(settings, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "data")
    spellings = [f"file://{tmp_path}/data", f"file://{tmp_path}/alias/", f"file://{tmp_path}/./%64ata"]
    assert len({volume_identity(settings(url=url)) for url in spellings}) == 1
    assert len({volume_identity(settings(url=url)) for url in ("s3://b/p", "s3://b/p/")}) == 1


def test_different_volumes_have_different_identities(settings):
    keys = '[aws]\naccess_key_id = "id"\nsecret_access_key = "key"\n'
    everything = [
        settings(url="s3://b/p"),
        settings(url="s3://b/q"),
        settings(url="s3://b"),
        settings(keys + 'endpoint = "https://other"', url="s3://b/p"),
        settings(url="file:///b/p"),
        settings(url="memory://"),
    ]
    assert len({volume_identity(one) for one in everything}) == len(everything)
    assert volume_identity(settings(keys, url="s3://b/p")) == volume_identity(settings(url="s3://b/p"))
    assert "key" not in volume_identity(settings(keys, url="s3://b/p"))


def test_a_checkpoint_is_read_only(settings, mountpoint):
    configured = settings('[servers.fuse]\nmountpoint = "mnt"\nread_only = false')
    plan = make_plan(configured, None, parse_mount_options(["checkpoint=before the move"]), {})
    assert (plan.checkpoint, plan.read_only, plan.record.read_only) == ("before the move", True, True)
    assert make_plan(configured, None, MountOptions(), {}).checkpoint is None
    with pytest.raises(ConfigError, match="a checkpoint is mounted read-only"):
        make_plan(configured, None, parse_mount_options(["rw,checkpoint=x"]), {})
