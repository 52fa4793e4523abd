"""zerofs.cli.invocation: recognising mount(8), and nobody else."""

import pytest

from zerofs.cli.invocation import mount_arguments
from zerofs.errors import ConfigError

COMMANDS = ("run", "mount", "status")


@pytest.mark.parametrize(
    "argv",
    [
        ["zerofs"],
        ["zerofs", "run"],
        ["zerofs", "run", "-c", "/etc/z.toml"],
        ["zerofs", "mount", "/mnt", "-o", "ro"],
        ["zerofs", "-v", "status", "/mnt"],
        ["zerofs", "--version"],
        ["zerofs", "moutn", "/mnt"],
        ["zerofs", "/etc/z.toml"],
    ],
)
def test_ordinary_command_lines(argv):
    assert mount_arguments(argv, COMMANDS) is None


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/sbin/mount.fuse.zerofs", "/z.toml", "/mnt"], ["mount", "--quiet", "--config", "/z.toml", "--", "/mnt"]),
        (
            ["mount.fuse.zerofs", "/z.toml", "/mnt", "-o", "rw,_netdev", "-t", "fuse.zerofs"],
            ["mount", "--quiet", "--config", "/z.toml", "-o", "rw,_netdev", "--", "/mnt"],
        ),
        (
            ["mount.fuse.zerofs", "z.toml", "/mnt", "-sv", "-n", "-oro", "-o", "allow_other"],
            ["--verbose", "mount", "--quiet", "--config", "z.toml", "-o", "ro", "-o", "allow_other", "--", "/mnt"],
        ),
        (
            ["mount.fuse.zerofs", "-f", "/z.toml", "/m"],
            ["mount", "--quiet", "--fake", "--config", "/z.toml", "--", "/m"],
        ),
        (
            ["zerofs", "/etc/z.toml", "/mnt", "-o", "ro"],
            ["mount", "--quiet", "--config", "/etc/z.toml", "-o", "ro", "--", "/mnt"],
        ),
        (["zerofs", "z.toml", "mnt"], ["mount", "--quiet", "--config", "z.toml", "--", "mnt"]),
        (["zerofs", "./conf", "mnt"], ["mount", "--quiet", "--config", "./conf", "--", "mnt"]),
    ],
)
def test_mount_is_the_caller(argv, expected):
    assert mount_arguments(argv, COMMANDS) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["/z.toml"],
        ["/z.toml", "/a", "/b"],
        ["/z.toml", "/m", "-o"],
        ["/z", "/m", "-N", "1"],
        ["/z", "/m", "-q"],
        ["/z", "/m", "--help"],
    ],
)
def test_what_mount_never_says(arguments):
    with pytest.raises(ConfigError, match=r"helper|namespace"):
        mount_arguments(["mount.fuse.zerofs", *arguments], COMMANDS)
