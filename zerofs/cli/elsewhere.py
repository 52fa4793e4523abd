"""Another place for a volume that a command makes: may it be there, and the settings that reach it."""

import os
from dataclasses import replace
from urllib.parse import unquote

from zerofs.admin import registry
from zerofs.cli.plan import volume_identity
from zerofs.config.paths import process_environment, runtime_directory
from zerofs.config.settings import Settings
from zerofs.errors import ConfigError, VolumeInUseError
from zerofs.world import World


def destination(settings: Settings, url: str, what: str, *, may_be_read: bool) -> Settings:
    """The settings of what is made there. `may_be_read`: it may be mounted read-only.

    Raises ConfigError for a place that cannot be one, VolumeInUseError for one in use.
    """
    dest = at(settings, url, what)
    source, target = volume_identity(settings), volume_identity(dest)
    if source == target:
        raise ConfigError(f"{url} is the volume itself: a {what} goes to another place")
    for one, other in ((source, target), (target, source)):
        if one.startswith(other.rstrip("/") + "/"):
            raise ConfigError(f"{url} and the volume lie one in the other: a {what} goes to another place")
    path = unquote(url.removeprefix("file://")) if url.startswith("file://") else ""
    for record in registry.living(runtime_directory(process_environment())):
        if record.mountpoint and record.identity == source and path and _is_below(path, record.mountpoint):
            raise ConfigError(f"{url} lies in the mounted volume itself: a {what} goes to another place")
        if record.identity == target and not (may_be_read and record.read_only):
            raise VolumeInUseError(
                f"the {what} at {url} is mounted at {record.mountpoint or '-'} by process {record.pid}: unmount it"
            )
    return dest


def at(settings: Settings, url: str, what: str) -> Settings:
    """The same settings, for another volume at another place. `what` it is, for messages."""
    from zerofs.objectstore.open import open_store
    from zerofs.telemetry.metrics import Metrics

    if not url.startswith(("file://", "s3://")):
        raise ConfigError(f"{url[:100]!r} is no place for a {what}: write file:///path or s3://bucket/prefix")
    try:
        open_store(url, settings.aws, World(), Metrics())  # opening makes no request
    except ConfigError as error:
        raise ConfigError(str(error).replace("[storage] url", "DEST")) from None
    return replace(settings, storage=replace(settings.storage, url=url))


def _is_below(path: str, directory: str) -> bool:
    real = os.path.realpath(path)
    return real == directory or real.startswith(directory.rstrip("/") + "/")
