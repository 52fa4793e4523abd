"""Where this user's and this host's files lie: configuration, state, runtime. Follows the XDG base directories.

A mount unit or a line in fstab runs with a bare environment, without HOME; `process_environment` makes up for that.
"""

import contextlib
import os
import pwd
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs

from zerofs.errors import ConfigError

CONFIG_VARIABLE = "ZEROFS_CONFIG"
"""Names the configuration file when no `-c` is given."""

RUNTIME_VARIABLE = "ZEROFS_RUNTIME_DIR"
"""Names the directory of control sockets and of the registry of mounts in place of the usual one."""

CONFIG_NAME = "zerofs.toml"


def process_environment() -> dict[str, str]:
    """The environment of this process, with HOME taken from the user database when it is not set."""
    environ = dict(os.environ)
    if not environ.get("HOME"):
        with contextlib.suppress(KeyError):
            environ["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
    return environ


def find_config(environ: Mapping[str, str]) -> Path:
    """The configuration file to use when none is named: `$ZEROFS_CONFIG`, `./zerofs.toml`, the user's, the host's.

    Raises:
        ConfigError: there is none.
    """
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    candidates = [
        Path(CONFIG_NAME),
        _user(environ, "XDG_CONFIG_HOME", ".config", platformdirs.user_config_path) / CONFIG_NAME,
        Path("/etc/zerofs") / CONFIG_NAME,
    ]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise ConfigError(
        f"no configuration file: give one with -c FILE, or make one with `zerofs init` (looked for {looked})"
    )


def state_directory(environ: Mapping[str, str]) -> Path:
    """Durable notes of this user: logs, and what this host knows of volumes. Not created here."""
    return _user(environ, "XDG_STATE_HOME", ".local/state", platformdirs.user_state_path)


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Sockets and locks, until the next boot: `/run/zerofs` for root, else below `$XDG_RUNTIME_DIR`. Not created."""
    if environ.get(RUNTIME_VARIABLE):
        return Path(environ[RUNTIME_VARIABLE]).absolute()
    if os.geteuid() == 0:
        return Path("/run/zerofs")
    fallback = Path(f"/run/user/{os.getuid()}")
    below = fallback / "zerofs" if fallback.is_dir() else Path(tempfile.gettempdir()) / f"zerofs-{os.getuid()}"
    return _named(environ, "XDG_RUNTIME_DIR") or below


def _user(environ: Mapping[str, str], variable: str, below_home: str, usual: Callable[[str], Path]) -> Path:
    """Our folder in one of the user's base directories; `usual` knows it when the environment says nothing at all."""
    named = _named(environ, variable)
    if named is None and environ.get("HOME"):
        named = Path(environ["HOME"]) / below_home / "zerofs"
    return named or usual("zerofs")


def _named(environ: Mapping[str, str], variable: str) -> Path | None:
    # A relative path is to be ignored, says the specification.
    value = environ.get(variable, "")
    return Path(value) / "zerofs" if value.startswith("/") else None
