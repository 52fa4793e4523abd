"""Reading a configuration file: TOML and environment in, frozen `Settings` out, or one clear line of error.

Nothing here touches the store, asks for a password or runs a program. A message names the file, the table and the
key; it never shows a value, because a value may be a secret or may contain one.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zerofs.config import schema
from zerofs.config.convert import to_settings
from zerofs.config.expand import expand
from zerofs.config.explain import explain, place
from zerofs.config.settings import Settings
from zerofs.errors import ConfigError

_MAX_FILE_SIZE_BYTES = 1 << 20


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings that `path` holds, with the variables of `environ` put in.

    Relative paths in the file count from the file's own directory, `~` is the user's home.

    Raises:
        ConfigError: not readable, not TOML, an unset variable, an unknown key, a wrong type, a missing key, or keys
            that contradict each other. One line, without any value.
    """
    path = path.absolute()
    try:
        document = _read(path)
        cache = document.setdefault("cache", {})
        if isinstance(cache, dict):
            cache.setdefault("dir", schema.DEFAULT_CACHE_DIR)
        return to_settings(_validated(_expanded(document, "", environ)), path, environ)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_SIZE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
    if len(data) > _MAX_FILE_SIZE_BYTES:
        raise ConfigError("is too large to be a configuration file")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}") from None
    except RecursionError:
        raise ConfigError("is nested too deeply") from None


def _expanded(value: Any, name: str, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, f"{name}.{key}" if name else key, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, name, environ) for item in value]
    if isinstance(value, str):
        try:
            return expand(value, environ)
        except ConfigError as error:
            raise ConfigError(f"{place(name)}: {error}") from None
    return value


def _validated(document: dict[str, Any]) -> schema.Document:
    try:
        return schema.Document.model_validate(document)
    except ValidationError as error:
        # One line is promised, so one problem is told; an unknown key first, because it explains a missing one.
        problems = error.errors(include_url=False, include_input=False)
        problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
        first = problems[0]
        raise ConfigError(explain(first["type"], first["loc"], first["msg"], document)) from None
