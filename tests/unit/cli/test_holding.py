"""Whether a process that the store names is a zerofs that lives."""

import pytest

from zerofs.cli.holding import is_zerofs


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"/usr/bin/python3\0/usr/local/bin/zerofs\0run\0", True),
        (b"python\0-X\0dev\0-m\0zerofs\0mount\0", True),
        (b"/usr/bin/python3\0/sbin/mount.fuse.zerofs\0/etc/z.toml\0/mnt\0", True),
        (b"vi\0zerofs.toml\0", False),
        (b"/usr/bin/zerofsd\0", False),
        (b"", False),  # a zombie
    ],
)
def test_the_command_line_says_it(tmp_path, line, expected):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes(line)
    assert is_zerofs(7, tmp_path) == expected


def test_nobody_is_nobody(tmp_path):
    assert not is_zerofs(7, tmp_path)


def test_what_cannot_be_looked_at_counts(tmp_path):
    (tmp_path / "7" / "cmdline").mkdir(parents=True)
    assert is_zerofs(7, tmp_path)
