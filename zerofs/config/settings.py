"""Settings: what a configuration file says, checked, converted and frozen.

One class a table, one attribute a key; sizes are bytes, durations seconds, paths absolute. This module holds values
only: reading and checking them is `loading`, asking for the password is `password`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from zerofs.crypto.secret import Secret
from zerofs.objectstore.options import S3Options
from zerofs.transform.compression import Compression


@dataclass(slots=True, frozen=True, kw_only=True)
class ConfiguredPassword:
    """The password stands in the file, or in an environment variable that the file names."""

    text: Secret = field(repr=False, compare=False)


@dataclass(slots=True, frozen=True, kw_only=True)
class PasswordFile:
    """The password is the one line of a file that nobody else may read."""

    path: Path


@dataclass(slots=True, frozen=True, kw_only=True)
class PasswordCommand:
    """The password is what a program prints; run without a shell."""

    argv: tuple[str, ...] = field(repr=False)


@dataclass(slots=True, frozen=True, kw_only=True)
class PasswordPrompt:
    """No source is configured: the terminal is asked, without echo."""


PasswordSource = ConfiguredPassword | PasswordFile | PasswordCommand | PasswordPrompt


@dataclass(slots=True, frozen=True, kw_only=True)
class CacheSettings:
    """`[cache]`: where sealed copies of fetched data lie on this machine, and the two budgets."""

    dir: Path
    disk_size_bytes: int
    memory_size_bytes: int


@dataclass(slots=True, frozen=True, kw_only=True)
class StorageSettings:
    """`[storage]`: the object store's address and where the password comes from."""

    url: str
    password: PasswordSource


@dataclass(slots=True, frozen=True, kw_only=True)
class FilesystemSettings:
    """`[filesystem]`: how new data is compressed; without a quota `max_size_bytes` is None."""

    compression: Compression
    max_size_bytes: int | None


@dataclass(slots=True, frozen=True, kw_only=True)
class FuseSettings:
    """`[servers.fuse]`: `mountpoint` is None when the file names none."""

    mountpoint: Path | None
    read_only: bool
    allow_other: bool
    writeback: bool
    noatime: bool
    driver: str


@dataclass(slots=True, frozen=True, kw_only=True)
class ServersSettings:
    """`[servers]`: one table per frontend."""

    fuse: FuseSettings


@dataclass(slots=True, frozen=True, kw_only=True)
class LsmSettings:
    """`[lsm]`: limits of the engine. Everyday use needs none of them; tests make them tiny."""

    memtable_size_bytes: int
    chunk_sst_size_bytes: int
    sync_interval_s: float
    sync_timeout_s: float
    poll_interval_s: float


@dataclass(slots=True, frozen=True, kw_only=True)
class Settings:
    """A whole configuration. `path` is the file it came from, `state_dir` where this user's durable notes lie."""

    path: Path
    state_dir: Path
    cache: CacheSettings
    storage: StorageSettings
    filesystem: FilesystemSettings
    servers: ServersSettings
    aws: S3Options
    lsm: LsmSettings
