"""From a URL to a store that counts its requests and repeats what may be repeated.

    s3://bucket, s3://bucket/prefix   S3Store: below the prefix
    file:///path                      LocalStore: %XX stands for a byte, everything else for itself
    memory://                         MemoryStore: a new, empty one each time

The stack, from outside: RetryingStore, MeteredStore, the store. So every try is counted. Opening makes no request.
"""

import os
import re
import urllib.parse
from pathlib import Path

from zerofs.errors import ConfigError
from zerofs.objectstore.api import ObjectStore, is_name
from zerofs.objectstore.local import LocalStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.metered import MeteredStore, MetricsSink, TraceSink
from zerofs.objectstore.options import RetryOptions, S3Options
from zerofs.objectstore.retrying import RetryingStore
from zerofs.world import World

ACCEPTED = "write s3://bucket/prefix, file:///path or memory://"

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


def open_store(
    url: str,
    options: S3Options,
    world: World,
    metrics: MetricsSink,
    *,
    retry: RetryOptions | None = None,
    trace: TraceSink | None = None,
) -> ObjectStore:
    """The store that `url` names, decorated. `trace` receives every call that reaches the store itself.

    Raises:
        ConfigError: the URL or an option makes no sense. Credentials in a URL are refused and not repeated.
    """
    metered = MeteredStore(_plain_store(url, options, world), metrics, trace)
    return RetryingStore(metered, world.random, metrics, retry)


def _plain_store(url: str, options: S3Options, world: World) -> ObjectStore:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigError(f"[storage] url is not a URL: {ACCEPTED}")
    if scheme == "s3":
        # Loaded only here: boto3 takes a quarter of a second that other stores need not pay.
        from zerofs.objectstore.s3 import S3Store

        return S3Store(*_parse_s3(rest), options, world)
    if scheme == "file":
        return LocalStore(_parse_file(rest), world)
    if scheme == "memory":
        if rest:
            raise ConfigError("[storage] url memory:// takes nothing after it")
        return MemoryStore()
    raise ConfigError(f"[storage] url has the unknown scheme {scheme[:20]!r}: {ACCEPTED}")


def local_device(url: str) -> int | None:
    """The device on which the objects of a `file://` store lie; None for other stores, and for one that is not there.

    `url` is what the store itself says, in which the path stands as it is. A network filesystem is a device of its own.
    """
    scheme, _, path = url.partition("://")
    if scheme != "file":
        return None
    try:
        return os.stat(path).st_dev
    except (OSError, ValueError):
        return None


def _parse_s3(rest: str) -> tuple[str, str]:
    """Bucket and prefix of what follows `s3://`."""
    bucket, _, path = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        raise ConfigError("[storage] url must not hold credentials or a port: those belong in [aws]")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"[storage] url names no bucket that S3 could have ({bucket[:63]!r}): {ACCEPTED}")
    prefix = path.strip("/")
    if prefix and not is_name(prefix):
        raise ConfigError(
            f"[storage] url has the unusable prefix {prefix[:100]!r}: use letters, digits, '.', '_', '-', single '/'"
        )
    return bucket, prefix


def _parse_file(rest: str) -> Path:
    """The path of what follows `file://`."""
    if not rest.startswith("/"):
        raise ConfigError("[storage] url needs three slashes and an absolute path: file:///path")
    path = os.fsdecode(urllib.parse.unquote_to_bytes(rest))
    if "\0" in path:
        raise ConfigError("[storage] url holds a NUL byte")
    return Path(os.path.normpath(path))
