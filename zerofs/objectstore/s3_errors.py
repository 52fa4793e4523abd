"""What an S3 error means here: a table, and the wording. Pure; knows nothing of boto3, and never sees a credential.

The text that a server sends is shown cut and printable: it comes from outside.
"""

import re

from zerofs.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    ObjectStoreError,
    PreconditionFailedError,
    RangeError,
    StoreUnsuitableError,
    UnavailableError,
)

_MAX_TEXT = 200
_UNPRINTABLE = re.compile(r"[^ -~]+")

_DENIED_CODES = frozenset({"ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
_CLOCK_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_REGION_CODES = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect"}
)
_TRANSIENT_CODES = frozenset({"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "Throttling"})
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})


def error_of_response(status: int, code: str, text: str, *, about: str, bucket: str) -> ObjectStoreError:
    """The error for a response that is none.

    Shape: `status` and `code` as S3 sent them (a HEAD has no code but the status), `about` names request and object.

        412, 304                                  PreconditionFailedError
        404                                       ObjectNotFoundError; with NoSuchBucket ObjectStoreError
        403, expired or unknown credentials       AccessDeniedError
        409, 408, 425, 429, 5xx                   UnavailableError: for a conditional put, an unknown outcome
        501                                       StoreUnsuitableError: the server does not know what we need
        3xx, wrong region                         ObjectStoreError that says to set the region
        416                                       RangeError
        all else                                  ObjectStoreError

    Source: the Amazon S3 API reference, "Error responses"; RFC 9110 for what S3 leaves out.
    """
    said = printable(f"{status} {code} {text}")
    if code == "NoSuchBucket":
        return ObjectStoreError(f"the bucket {bucket!r} does not exist: create it, or correct [storage] url ({said})")
    if code in _CLOCK_CODES:
        return AccessDeniedError(f"{about}: refused because this machine's clock is wrong: set it ({said})")
    if code in _REGION_CODES or 300 <= status < 304 or status in (307, 308):
        return ObjectStoreError(f"{about}: the bucket is in another region: set [aws] default_region ({said})")
    if status in (412, 304):
        return PreconditionFailedError(f"{about}: the condition does not hold ({said})")
    if status == 404:
        return ObjectNotFoundError(f"{about}: there is no such object ({said})")
    if status == 416:
        return RangeError(f"{about}: the range goes beyond the object's end ({said})")
    if status in (401, 403) or code in _DENIED_CODES:
        return AccessDeniedError(
            f"{about}: refused: check the credentials in [aws] and their rights to read, write, delete and list; "
            f"without the right to list, S3 denies what does not exist ({said})"
        )
    if status == 501:
        return StoreUnsuitableError(f"{about}: the server does not support what zerofs needs ({said})")
    if status in _TRANSIENT_STATUS or status >= 500 or code in _TRANSIENT_CODES:
        return UnavailableError(f"{about}: {said}")
    return ObjectStoreError(f"{about}: {said}")


def printable(text: str) -> str:
    """Text from outside, for a message: printable ASCII, on one line, and not too long."""
    shown = _UNPRINTABLE.sub(" ", text).strip()
    return shown if len(shown) <= _MAX_TEXT else shown[:_MAX_TEXT] + "…"
