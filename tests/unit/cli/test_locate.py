"""zerofs.cli.locate: from a mountpoint or a configuration to the one mount that is meant."""

import contextlib
import os

import pytest

from zerofs import mounttable
from zerofs.admin import registry
from zerofs.admin.registry import MountRecord
from zerofs.cli.locate import locate
from zerofs.errors import ConfigError, MountpointError
from zerofs.mounttable import MountEntry


@pytest.fixture
def environ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return {"ZEROFS_RUNTIME_DIR": str(tmp_path / "r"), "XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "zerofs.toml"
    path.write_text('[storage]\nurl = "file:///srv/v"\n[servers.fuse]\nmountpoint = "/mnt/b"\n')
    return path


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Claims mounts as living processes do, and shows them in the kernel's table."""
    entries = []
    monkeypatch.setattr(mounttable, "read_mounts", lambda: entries)
    with contextlib.ExitStack() as stack:

        def mounted(mountpoint, identity="file:///srv/v", config="", in_kernel=True):
            record = MountRecord(mountpoint=mountpoint, identity=identity, pid=1, read_only=False, config=config)
            stack.enter_context(registry.claim(tmp_path / "r", record, take_over=True))
            if in_kernel:
                entries.append(
                    MountEntry(
                        mountpoint=mountpoint,
                        device="0:1",
                        filesystem_type="fuse.zerofs",
                        source="x",
                        owner=os.getuid(),
                    )
                )

        mounted.entries = entries
        yield mounted


def test_by_mountpoint(mounted, environ, tmp_path):
    mounted("/mnt/a")
    found = locate("/mnt/a/", None, environ)
    assert found.mountpoint == "/mnt/a"
    assert found.socket == registry.socket_path(tmp_path / "r", "/mnt/a")
    assert found.kernel


def test_by_configuration(mounted, environ, config):
    mounted("/mnt/other", identity="file:///srv/w")
    mounted("/mnt/a")
    assert locate(None, config, environ).mountpoint == "/mnt/a"
    assert locate(None, None, environ).mountpoint == "/mnt/a", "./zerofs.toml is the default"


def test_by_the_configuration_file_itself_when_its_store_has_no_lasting_name(mounted, environ, config):
    config.write_text('[storage]\nurl = "memory://"\n')
    mounted("/mnt/a", identity="memory://1/", config=str(config))
    assert locate(None, config, environ).mountpoint == "/mnt/a"


def test_of_several_mounts_the_configured_mountpoint_is_meant(mounted, environ, config):
    mounted("/mnt/a")
    mounted("/mnt/c")
    with pytest.raises(MountpointError, match="at several places: /mnt/a, /mnt/c; name one"):
        locate(None, config, environ)
    mounted("/mnt/b")
    assert locate(None, config, environ).mountpoint == "/mnt/b"


def test_not_mounted(mounted, environ, config, tmp_path):
    with pytest.raises(MountpointError, match="is not mounted on this host"):
        locate(None, config, environ)
    with pytest.raises(MountpointError, match=f"{tmp_path} is not a zerofs mount"):
        locate(str(tmp_path), None, environ)


def test_another_filesystem_is_not_ours(mounted, environ):
    mounted.entries.append(
        MountEntry(mountpoint="/mnt/a", device="0:1", filesystem_type="ext4", source="x", owner=None)
    )
    with pytest.raises(MountpointError, match="/mnt/a is not a zerofs mount"):
        locate("/mnt/a", None, environ)


def test_a_dead_mount_is_found_by_its_mountpoint(mounted, environ):
    mounted.entries.append(
        MountEntry(mountpoint="/mnt/a", device="0:1", filesystem_type="fuse.zerofs", source="x", owner=0)
    )
    assert locate("/mnt/a", None, environ).kernel


def test_a_mount_that_is_being_closed_is_found_although_the_kernel_forgot_it(mounted, environ):
    mounted("/mnt/a", in_kernel=False)
    found = locate("/mnt/a", None, environ)
    assert not found.kernel


def test_both_is_too_much(environ, config):
    with pytest.raises(ConfigError, match="not both"):
        locate("/mnt/a", config, environ)
