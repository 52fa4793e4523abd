"""zerofs.cli.mount_options: the -o language of mount(8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.cli import mount_options
from zerofs.cli.mount_options import MountOptions, parse_mount_options
from zerofs.errors import ConfigError


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], MountOptions()),
        ([""], MountOptions()),
        ([",,"], MountOptions()),
        (["ro"], MountOptions(read_only=True)),
        (["ro,rw"], MountOptions(read_only=False)),
        (["ro", "rw"], MountOptions(read_only=False)),
        (["allow_other,nowriteback,noexec"], MountOptions(allow_other=True, writeback=False, no_exec=True)),
        (["writeback"], MountOptions(writeback=True)),
        (["noatime"], MountOptions(noatime=True)),
        (["noatime,relatime"], MountOptions(noatime=False)),
        (["take_over,accept_rollback"], MountOptions(take_over=True, accept_rollback=True)),
        (["config=/etc/z.toml"], MountOptions(config="/etc/z.toml")),
        (["checkpoint=before the move"], MountOptions(checkpoint="before the move")),
        (["config=/a=b"], MountOptions(config="/a=b")),
        ([r"config=/a\,b\\c,ro"], MountOptions(config="/a,b\\c", read_only=True)),
        (["config=/a\\"], MountOptions(config="/a\\")),
        (["rw,_netdev,nofail,x-systemd.automount,x-gvfs-show,X-mount.mkdir=0755"], MountOptions(read_only=False)),
        (["auto,noauto,user,user=me,users,defaults,dev,suid,nodev,nosuid,comment=hello"], MountOptions()),
    ],
)
def test_options(texts, expected):
    assert parse_mount_options(texts) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("readonly", 'no mount option "readonly"; the nearest known one is "'),
        ("allow-other", 'the nearest known one is "allow_other"'),
        ("sync", 'no mount option "sync"'),
        ("remount", 'no mount option "remount"'),
        ("ro=1", "ro takes no value"),
        ("config", "config=FILE"),
        ("config=", "config=FILE"),
        ("checkpoint", "checkpoint=NAME"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_mount_options([text])


@given(st.text(min_size=1))
def test_any_file_name_can_be_written(name):
    escaped = name.replace("\\", "\\\\").replace(",", "\\,")
    assert parse_mount_options([f"ro,config={escaped},rw"]).config == name


def test_every_option_is_described():
    for name in mount_options._SWITCHES:
        assert f"| `{name}` |" in mount_options.describe_options()
