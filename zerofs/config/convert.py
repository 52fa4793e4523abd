"""From the file's units and strings to the program's: bytes, absolute paths, sources. Also the checks across keys."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from zerofs.config import schema
from zerofs.config.paths import state_directory
from zerofs.config.settings import (
    CacheSettings,
    ConfiguredPassword,
    FilesystemSettings,
    FuseSettings,
    LsmSettings,
    PasswordCommand,
    PasswordFile,
    PasswordPrompt,
    PasswordSource,
    ServersSettings,
    Settings,
    StorageSettings,
)
from zerofs.crypto.secret import Secret
from zerofs.errors import ConfigError
from zerofs.objectstore.options import S3Options
from zerofs.transform.compression import Compression
from zerofs.units import GB

_MB = 10**6


def to_settings(document: schema.Document, path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of a valid document that was read from the absolute `path`.

    Raises:
        ConfigError: keys contradict each other.
    """
    base = path.parent
    fuse = document.servers.fuse
    quota = document.filesystem.max_size_gb
    return Settings(
        path=path,
        state_dir=state_directory(environ),
        cache=CacheSettings(
            dir=_path(document.cache.dir, base),
            disk_size_bytes=_bytes(document.cache.disk_size_gb, GB),
            memory_size_bytes=_bytes(document.cache.memory_size_gb, GB),
        ),
        storage=StorageSettings(url=document.storage.url, password=_password_source(document.storage, base)),
        filesystem=FilesystemSettings(
            compression=Compression.parse(document.filesystem.compression),
            max_size_bytes=None if quota is None else _bytes(quota, GB),
        ),
        servers=ServersSettings(
            fuse=FuseSettings(
                mountpoint=None if fuse.mountpoint is None else _path(fuse.mountpoint, base),
                read_only=fuse.read_only,
                allow_other=fuse.allow_other,
                writeback=fuse.writeback,
                noatime=fuse.noatime,
                driver=fuse.driver,
            )
        ),
        aws=_s3_options(document.aws),
        lsm=LsmSettings(
            memtable_size_bytes=_bytes(document.lsm.memtable_size_mb, _MB),
            chunk_sst_size_bytes=_bytes(document.lsm.chunk_sst_size_mb, _MB),
            sync_interval_s=document.lsm.sync_interval_s,
            sync_timeout_s=document.lsm.sync_timeout_s,
            poll_interval_s=document.lsm.poll_interval_s,
        ),
    )


def _bytes(amount: float, unit: int) -> int:
    return max(1, round(amount * unit))


def _path(text: str, base: Path) -> Path:
    try:
        return base / Path(text).expanduser()
    except RuntimeError:
        raise ConfigError("a path begins with ~, but the home directory is unknown; write it in full") from None


def _password_source(storage: schema.StorageTable, base: Path) -> PasswordSource:
    given = [
        name
        for name in ("encryption_password", "password_file", "password_command")
        if getattr(storage, name) is not None
    ]
    if len(given) > 1:
        raise ConfigError(f"[storage] has both {given[0]} and {given[1]}; keep one of them")
    if storage.encryption_password is not None:
        return ConfiguredPassword(text=Secret(storage.encryption_password.encode("utf-8", "surrogateescape")))
    if storage.password_file is not None:
        return PasswordFile(path=_path(storage.password_file, base))
    if storage.password_command is not None:
        try:
            argv = tuple(shlex.split(storage.password_command))
        except ValueError:
            argv = ()
        if not argv:
            raise ConfigError("[storage] password_command is not a command line: check its quotes")
        return PasswordCommand(argv=argv)
    return PasswordPrompt()


def _s3_options(aws: schema.AwsTable) -> S3Options:
    # The options check themselves: only the room that uses them knows what an endpoint may look like.
    return S3Options(
        endpoint=aws.endpoint,
        access_key_id=aws.access_key_id,
        secret_access_key=aws.secret_access_key,
        default_region=aws.default_region,
        allow_http=aws.allow_http,
    )
