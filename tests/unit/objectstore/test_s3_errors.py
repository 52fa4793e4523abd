import pytest

from zerofs.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    ObjectStoreError,
    PreconditionFailedError,
    RangeError,
    StoreUnsuitableError,
    UnavailableError,
)
from zerofs.objectstore.s3_errors import error_of_response


def translated(status, code="", text=""):
    return error_of_response(status, code, text, about="put_object of name in s3://bucket", bucket="bucket")


@pytest.mark.parametrize(
    ("status", "code", "error", "says"),
    [
        (412, "PreconditionFailed", PreconditionFailedError, "name"),
        (304, "304", PreconditionFailedError, "name"),
        (404, "NoSuchKey", ObjectNotFoundError, "name"),
        (404, "404", ObjectNotFoundError, "name"),
        (404, "NoSuchUpload", ObjectNotFoundError, "name"),
        (404, "NoSuchBucket", ObjectStoreError, "bucket 'bucket' does not exist: create it"),
        (403, "AccessDenied", AccessDeniedError, "check the credentials"),
        (403, "SignatureDoesNotMatch", AccessDeniedError, "check the credentials"),
        (403, "403", AccessDeniedError, "check the credentials"),
        (401, "Unauthorized", AccessDeniedError, "check the credentials"),
        (400, "ExpiredToken", AccessDeniedError, "check the credentials"),
        (403, "RequestTimeTooSkewed", AccessDeniedError, "clock"),
        (409, "ConditionalRequestConflict", UnavailableError, "name"),
        (409, "OperationAborted", UnavailableError, "name"),
        (400, "RequestTimeout", UnavailableError, "name"),
        (408, "", UnavailableError, "name"),
        (429, "TooManyRequests", UnavailableError, "name"),
        (500, "InternalError", UnavailableError, "name"),
        (502, "", UnavailableError, "name"),
        (503, "SlowDown", UnavailableError, "name"),
        (200, "InternalError", UnavailableError, "name"),
        (501, "NotImplemented", StoreUnsuitableError, "does not support"),
        (416, "InvalidRange", RangeError, "range"),
        (301, "PermanentRedirect", ObjectStoreError, "default_region"),
        (307, "TemporaryRedirect", ObjectStoreError, "default_region"),
        (400, "AuthorizationHeaderMalformed", ObjectStoreError, "default_region"),
        (400, "EntityTooLarge", ObjectStoreError, "EntityTooLarge"),
        (400, "", ObjectStoreError, "name"),
    ],
)
def test_the_table(status, code, error, says):
    found = translated(status, code, "explained")
    assert type(found) is error
    assert says in str(found)


def test_text_from_outside_is_cut_and_made_printable():
    message = str(translated(400, "Odd", "line one\nline two \x1b[31m red \u202e" + "x" * 10_000))
    assert message.isascii() or message.endswith("…")
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 400
