"""Settings of the stores. Plain values: nothing here looks anything up or connects anywhere."""

from dataclasses import dataclass, field

from zerofs.errors import ConfigError

FALLBACK_REGION = "us-east-1"
"""What S3-compatible servers expect to be signed for when nobody configured a region."""


@dataclass(slots=True, frozen=True, kw_only=True)
class S3Options:
    """How to reach an S3 store. The two credentials never show in `repr`.

    Raises:
        ConfigError: one credential without the other, or an endpoint that is not `https://host` (or `http://host` with
            `allow_http`), or one that holds credentials. The message never repeats an endpoint that may hold some.
    """

    endpoint: str | None = None
    """URL of an S3-compatible server; None is AWS itself. With an endpoint, buckets are addressed by path."""
    access_key_id: str | None = field(default=None, repr=False)
    """None together with the other: the usual AWS chain (environment, profile, instance role)."""
    secret_access_key: str | None = field(default=None, repr=False)
    default_region: str | None = None
    """None: what the AWS chain says, else `us-east-1`."""
    allow_http: bool = False
    """Permits an endpoint without TLS. Contents are sealed anyway; credentials are not sent, but requests are seen."""
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    """Longest silence of the server within one request."""

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigError("[aws] access_key_id and secret_access_key go together: set both or neither")
        if self.endpoint is not None:
            check_endpoint(self.endpoint, self.allow_http)


@dataclass(slots=True, frozen=True, kw_only=True)
class RetryOptions:
    """How long, and how patiently, a call that may be repeated is repeated."""

    deadline_s: float = 60.0
    """No new try begins later than this after the first one began. A try under way is never cut off."""
    first_pause_s: float = 0.1
    """Upper bound of the first pause; it doubles from try to try, and each pause is drawn from [0, bound)."""
    longest_pause_s: float = 5.0


def check_endpoint(endpoint: str, allow_http: bool) -> None:
    """Raise ConfigError unless `endpoint` is a URL that requests may be sent to."""
    scheme, separator, rest = endpoint.partition("://")
    if "@" in endpoint:
        raise ConfigError("[aws] endpoint must not hold credentials: put them in access_key_id and secret_access_key")
    if not separator or scheme not in ("http", "https") or not rest.strip("/"):
        raise ConfigError(f"[aws] endpoint {endpoint!r} is not a URL: write https://host or http://host:port")
    if scheme == "http" and not allow_http:
        raise ConfigError(f"[aws] endpoint {endpoint!r} is without TLS: use https://, or set allow_http = true")
