"""Every table and key of the configuration file: type, default, limits, and the words that explain it.

The one list behind checking (`loading`), the sample file (`sample`) and the reference in `docs/cli.md`. The classes
describe the file as it is written (GB, strings); `settings` holds what the program works with.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from zerofs.errors import ConfigError
from zerofs.transform.compression import Compression

DEFAULT_CACHE_DIR = "${HOME}/.cache/zerofs"
MAX_OBJECT_SIZE_MB = 256
_URL_FORMS = "s3://bucket/path, file:///path or memory://"


def _check_compression(text: str) -> str:
    try:
        Compression.parse(text)
    except ConfigError:
        raise PydanticCustomError("zerofs", "must be 'zstd-{level}' with level 1-22, or 'lz4'") from None
    return text


def _check_url(text: str) -> str:
    if not text.startswith(("s3://", "file:///", "memory://")):
        raise PydanticCustomError("zerofs", f"must be {_URL_FORMS}")
    if text.startswith("s3://") and "@" in text.removeprefix("s3://").partition("/")[0]:
        raise PydanticCustomError("zerofs", "must not hold credentials; they belong in [aws] or the environment")
    return text


def _check_not_empty(text: str) -> str:
    if not text:
        raise PydanticCustomError("zerofs", "must not be empty")
    return text


def _check_object_size(size_mb: float) -> float:
    # What becomes one object must stay below the limits of its format, or it could not be read back (`lsm.format`).
    if size_mb > MAX_OBJECT_SIZE_MB:
        raise PydanticCustomError("zerofs", f"must be at most {MAX_OBJECT_SIZE_MB}")
    return size_mb


Text = Annotated[str, AfterValidator(_check_not_empty)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ObjectSize = Annotated[Positive, AfterValidator(_check_object_size)]


@dataclass(slots=True, frozen=True, kw_only=True)
class Sample:
    """How a key appears in the sample file: its TOML text, and whether the line is active or a comment."""

    toml: str
    active: bool = False


class Table(BaseModel):
    """Base of the tables: unknown keys refused, types taken literally, no input in any message."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class CacheTable(Table):
    """Copies of fetched data on this machine. Always encrypted; may be deleted whenever nothing is mounted."""

    dir: Annotated[Text, Sample(toml='"${HOME}/.cache/zerofs"', active=True)] = Field(
        default=DEFAULT_CACHE_DIR,
        description="Directory of the disk cache, one folder per volume below it, deleted when unused for 30 days. "
        "Not used for a file:// store on the same disk.",
    )
    disk_size_gb: Annotated[Positive, Sample(toml="10.0", active=True)] = Field(
        default=10.0, description="Budget of the disk cache, in GB of 10^9 bytes."
    )
    memory_size_gb: Annotated[Positive, Sample(toml="0.25", active=True)] = Field(
        default=0.25,
        description="Budget of decoded data and of writes not yet stored, in GB. The process takes about 0.2 GB more.",
    )


class StorageTable(Table):
    """The object store, and the password that opens the volume."""

    url: Annotated[str, AfterValidator(_check_url), Sample(toml='"s3://bucket/path"', active=True)] = Field(
        description=f"Where the volume lies: {_URL_FORMS} (gone at unmount)."
    )
    encryption_password: Annotated[str | None, Sample(toml='"${ZEROFS_PASSWORD}"', active=True)] = Field(
        default=None, description="The password: at least 8 characters; there is no way back from a lost one."
    )
    password_file: Annotated[Text | None, Sample(toml='"/etc/zerofs/password"')] = Field(
        default=None, description="Or a file that holds it on one line, readable by its owner only (mode 0600)."
    )
    password_command: Annotated[Text | None, Sample(toml='"pass show zerofs"')] = Field(
        default=None, description="Or a program that prints it; run without a shell."
    )


class FilesystemTable(Table):
    """How the filesystem stores and how large it may grow."""

    compression: Annotated[str, AfterValidator(_check_compression), Sample(toml='"zstd-3"', active=True)] = Field(
        default="zstd-3", description="zstd-1 (fast) … zstd-22 (small), or lz4; may change at any start."
    )
    max_size_gb: Annotated[Positive | None, Sample(toml="100.0")] = Field(
        default=None, description="Quota in GB; a write beyond it fails with ENOSPC. Without it there is none."
    )


class FuseTable(Table):
    """The mount."""

    mountpoint: Annotated[Text | None, Sample(toml='"/mnt/zerofs"', active=True)] = Field(
        default=None, description="Where `zerofs run` mounts; the directory must exist."
    )
    read_only: Annotated[bool, Sample(toml="false", active=True)] = Field(
        default=False, description="Mount read-only and write nothing to the store."
    )
    allow_other: Annotated[bool, Sample(toml="false", active=True)] = Field(
        default=False,
        description="Let other users in, as far as file modes allow (needs user_allow_other in fuse.conf).",
    )
    writeback: Annotated[bool, Sample(toml="true", active=True)] = Field(
        default=True, description="Let the kernel gather small writes; fsync and close still report every error."
    )
    driver: Annotated[Literal["native", "pyfuse3"], Sample(toml='"native"', active=True)] = Field(
        default="native", description="Who speaks the kernel's protocol: ourselves, or libfuse through pyfuse3."
    )
    noatime: Annotated[bool, Sample(toml="false", active=True)] = Field(
        default=False, description="Let reads leave access times alone; otherwise once a day, or after a change."
    )


class ServersTable(Table):
    """One table per way of serving the filesystem."""

    fuse: FuseTable = Field(default_factory=FuseTable, description="The mount.")


class AwsTable(Table):
    """S3 access. Without keys here the usual AWS chain is used: environment, profile, instance role."""

    endpoint: Annotated[Text | None, Sample(toml='"http://127.0.0.1:9000"')] = Field(
        default=None, description="Address of an S3-compatible server other than AWS."
    )
    access_key_id: Annotated[Text | None, Sample(toml='"${ZEROFS_ACCESS_KEY_ID}"')] = Field(
        default=None, description="Access key; needs secret_access_key too."
    )
    secret_access_key: Annotated[Text | None, Sample(toml='"${ZEROFS_SECRET_ACCESS_KEY}"')] = Field(
        default=None, description="Secret key; better kept in an environment variable than in this file."
    )
    default_region: Annotated[Text | None, Sample(toml='"us-east-1"')] = Field(
        default=None, description="Region of the bucket."
    )
    allow_http: Annotated[bool, Sample(toml="true")] = Field(
        default=False, description="Permit an endpoint without TLS. Contents are encrypted all the same."
    )


class LsmTable(Table):
    """Limits of the engine. The defaults suit everyday use."""

    memtable_size_mb: Annotated[ObjectSize, Sample(toml="16.0")] = Field(
        default=16.0,
        description="Metadata gathered in memory before it is written as a table, in MB of 10^6 bytes, at most 256.",
    )
    chunk_sst_size_mb: Annotated[ObjectSize, Sample(toml="64.0")] = Field(
        default=64.0, description="Largest object of file data, in MB, at most 256."
    )
    sync_interval_s: Annotated[Positive, Sample(toml="5.0")] = Field(
        default=5.0, description="How long a write may wait in memory before it is stored without an fsync, in seconds."
    )
    sync_timeout_s: Annotated[Positive, Sample(toml="60.0")] = Field(
        default=60.0,
        description="How long an fsync waits for a store that does not answer, and how long an outage lasts until the "
        "mount refuses changes, in seconds.",
    )
    poll_interval_s: Annotated[Positive, Sample(toml="10.0")] = Field(
        default=10.0,
        description="How often a read-only mount looks for what the writer stored, in seconds: two requests each time.",
    )


class Document(Table):
    """The whole file."""

    cache: CacheTable = Field(default_factory=CacheTable)
    storage: StorageTable
    filesystem: FilesystemTable = Field(default_factory=FilesystemTable)
    servers: ServersTable = Field(default_factory=ServersTable)
    aws: AwsTable = Field(default_factory=AwsTable)
    lsm: LsmTable = Field(default_factory=LsmTable)


@dataclass(slots=True, frozen=True, kw_only=True)
class Key:
    """One key of one table, for the sample file and the reference."""

    name: str
    description: str
    sample: Sample
    required: bool
    default: Any


def tables(model: type[Table] = Document, prefix: str = "") -> dict[str, type[Table]]:
    """Every table that holds keys, by its dotted name, in file order: {"cache": CacheTable, …, "servers.fuse": …}."""
    found: dict[str, type[Table]] = {}
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Table):
            dotted = prefix + name
            if keys(kind):
                found[dotted] = kind
            found.update(tables(kind, dotted + "."))
    return found


def keys(table: type[Table]) -> list[Key]:
    """The keys of a table, in file order; tables below it are not keys."""
    return [
        Key(
            name=name,
            description=info.description or "",
            sample=next(item for item in info.metadata if isinstance(item, Sample)),
            required=info.is_required(),
            default=info.default,
        )
        for name, info in table.model_fields.items()
        if not (isinstance(info.annotation, type) and issubclass(info.annotation, Table))
    ]
