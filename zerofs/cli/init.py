"""`zerofs init`: the sample configuration, into a file that only its owner may read."""

import os
import sys
from pathlib import Path

from zerofs.cli import console
from zerofs.config.paths import CONFIG_NAME
from zerofs.config.sample import sample_config
from zerofs.errors import ConfigError


def init(path: str | None, config: str | None, *, force: bool) -> None:
    """Write the sample to `path` or `config` (one name too many is an error), by default to zerofs.toml.

    Raises:
        ConfigError: the file is there and `force` is off, or it cannot be written.
    """
    if path is not None and config is not None:
        raise ConfigError("give PATH or -c FILE, not both")
    target = path or config or CONFIG_NAME
    if target == "-":
        sys.stdout.write(sample_config())
        return
    try:
        # The mode counts from the first moment: a password may soon stand in there.
        how = os.O_TRUNC if force else os.O_EXCL
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(sample_config())
    except FileExistsError:
        raise ConfigError(f"{target} exists; --force overwrites it") from None
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}") from None
    console.note(f"Configuration written to {Path(target).absolute()}")
    console.note(f"Edit it, then run: zerofs run -c {target}")
