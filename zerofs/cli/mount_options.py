"""The `-o` options of mount(8) and fstab. Pure: text in, `MountOptions` out.

    option[=value],…    a backslash keeps the comma or the backslash after it in a value

Options that mean something to mount(8) or systemd only are accepted and ignored, so that a line of fstab works as it
stands; so are `dev` and `suid`, which FUSE mounts of ours never have. Any other unknown option is refused: silence
would promise what nobody does.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from zerofs.errors import ConfigError

_IGNORED = frozenset(
    [
        *("_netdev", "nofail", "auto", "noauto", "defaults", "user", "nouser", "users", "owner", "group"),
        *("dev", "nodev", "suid", "nosuid", "exec", "async", "diratime", "nodiratime"),
        *("norelatime", "nostrictatime", "lazytime", "nolazytime", "silent", "loud"),
    ]
)
_IGNORED_WITH_VALUE = frozenset(["user", "comment", "fsname", "subtype"])
_IGNORED_PREFIXES = ("x-", "X-")
_SWITCHES: dict[str, dict[str, bool]] = {
    "ro": {"read_only": True},
    "rw": {"read_only": False},
    "allow_other": {"allow_other": True},
    "noexec": {"no_exec": True},
    "writeback": {"writeback": True},
    "nowriteback": {"writeback": False},
    "noatime": {"noatime": True},
    "atime": {"noatime": False},
    "relatime": {"noatime": False},
    "take_over": {"take_over": True},
    "accept_rollback": {"accept_rollback": True},
}
_WITH_VALUE = {"config": "FILE", "checkpoint": "NAME"}
_MEANINGS = {
    "ro": "Read-only: as `--read-only`.",
    "rw": "Read and write, whatever the configuration says.",
    "allow_other": "Let other users in.",
    "writeback": "Let the kernel gather small writes.",
    "nowriteback": "Pass every write on at once.",
    "noatime": "Let reads leave access times alone.",
    "atime": "Access times as with `relatime`, whatever the configuration says.",
    "relatime": "As `atime`.",
    "noexec": "No program in the mount can be run. Needs root.",
    "take_over": "As `--take-over`.",
    "accept_rollback": "As `--accept-rollback`.",
    "checkpoint": "`checkpoint=NAME`: as `--checkpoint`.",
    "config": "`config=FILE`: the configuration, in place of the source or `-c`.",
}
_KNOWN = tuple(_MEANINGS)


@dataclass(slots=True, frozen=True, kw_only=True)
class MountOptions:
    """What `-o` asks for; None where it says nothing and the configuration decides."""

    read_only: bool | None = None
    allow_other: bool | None = None
    writeback: bool | None = None
    noatime: bool | None = None
    no_exec: bool = False
    config: str | None = None
    checkpoint: str | None = None
    take_over: bool = False
    accept_rollback: bool = False


def parse_mount_options(texts: Iterable[str]) -> MountOptions:
    """The options of any number of `-o` arguments; a later one wins.

    Raises:
        ConfigError: an unknown option, named with the nearest known one, or a value too much or missing.
    """
    options = MountOptions()
    for text in texts:
        for item in _split(text):
            options = replace(options, **_meaning(item))
    return options


def _split(text: str) -> list[str]:
    """At the commas that no backslash protects; empty items are dropped."""
    items = [""]
    characters = iter(text)
    for character in characters:
        if character == "\\":
            items[-1] += next(characters, "\\")
        elif character == ",":
            items.append("")
        else:
            items[-1] += character
    return [item for item in items if item]


def _meaning(item: str) -> dict[str, Any]:
    name, separator, value = item.partition("=")
    if name.startswith(_IGNORED_PREFIXES) or name in (_IGNORED_WITH_VALUE if separator else _IGNORED):
        return {}
    if name in _WITH_VALUE:
        if not value:
            raise ConfigError(f"the mount option {name} needs a value: {name}={_WITH_VALUE[name]}")
        return {name: value}
    if name in _SWITCHES:
        if separator:
            raise ConfigError(f"the mount option {name} takes no value")
        return _SWITCHES[name]
    nearest = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.0)[0]
    raise ConfigError(f'there is no mount option "{name}"; the nearest known one is "{nearest}"')


def describe_options() -> str:
    """The options as a Markdown table, for `docs/cli.md`."""
    ignored = ", ".join(f"`{name}`" for name in sorted(_IGNORED | {f"{name}=…" for name in _IGNORED_WITH_VALUE}))
    rows = [f"| `{name}` | {meaning} |" for name, meaning in _MEANINGS.items()]
    return "\n".join(["| Option | Meaning |", "|---|---|", *rows, f"| {ignored}, `x-…` | Accepted and ignored. |"])
