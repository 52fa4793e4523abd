"""Objects in an S3 bucket, below a prefix: AWS and servers that speak its protocol. The only room that knows boto3.

boto3 blocks, so every request runs in a network thread. Each request is sent exactly once: boto3's own repetition is
off, because it would repeat a conditional put whose reply was lost, and report our own object as somebody else's.
`retrying` repeats what may be repeated.

Integrity on the way: the signature covers a digest of the body, so a request that was altered or cut is refused by the
server; a reply is checked for its length here, and for its contents by those who open what is sealed in it. Checksums
beyond that are asked for only where S3 requires them, because many servers do not know them.

Every put is one request, also because a multipart upload that a crash interrupts would stay in the bucket, invisible
and billed. No object comes near the 5 GiB that one request may carry.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, final

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError

from zerofs import __version__
from zerofs.errors import (
    AccessDeniedError,
    ConfigError,
    ObjectNotFoundError,
    ObjectStoreError,
    PreconditionFailedError,
    UnavailableError,
)
from zerofs.objectstore.api import (
    Body,
    ObjectInfo,
    beyond_end,
    body_size,
    check_limit,
    check_name,
    check_prefix,
    check_range,
    is_name,
    join_body,
)
from zerofs.objectstore.options import FALLBACK_REGION, S3Options, check_endpoint
from zerofs.objectstore.parallel import gather
from zerofs.objectstore.s3_errors import error_of_response, printable
from zerofs.units import GIB, MIB
from zerofs.world import Lane, World

T = TypeVar("T")

RANGE_BYTES = 8 * MIB
"""A get of more than twice this is split into ranges of this size."""

AT_ONCE = 4
"""Ranges of one call that are under way at the same time."""

PAGE_SIZE = 1000
"""Results of a list in one request: the most that S3 gives."""

CONNECTIONS = 16
"""Connections that are kept open: as many as there are network threads."""

PUT_ID_METADATA = "put-id"

MAX_PUT_BYTES = 5 * GIB
"""What S3 takes in one request."""

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOTokenLoadError,
    UnauthorizedSSOTokenError,
)

_Reply = Mapping[str, Any]
_Method = Callable[..., _Reply]


@final
class S3Store:
    """An ObjectStore in `bucket`; names are keys below `prefix` (without slashes at its ends; empty for the root).

    A version is the object's ETag. The first store of a process takes about 0.1 s of CPU to make; none makes a request.

    Raises:
        ConfigError: the endpoint, wherever it was configured, is without TLS and `allow_http` is off; or boto3 refuses
            a setting.
    """

    def __init__(self, bucket: str, prefix: str, options: S3Options, world: World) -> None:
        self._bucket = bucket
        self._lead = f"{prefix}/" if prefix else ""
        self._world = world
        self._client = _client(options)
        self.page_size = PAGE_SIZE
        """Public, so that a test need not make a thousand objects."""

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self._bucket}/{self._lead}".rstrip("/")

    async def get(
        self, name: str, start: int = 0, length: int | None = None, *, limit_bytes: int | None = None
    ) -> bytes:
        """See ObjectStore.get. Split reads see one version of the object, or end with UnavailableError."""
        check_range(name, start, length)
        if length is None or length <= 2 * RANGE_BYTES:
            data, _ = await self._offload(self._get, name, start, length, limit_bytes)
            return data
        check_limit(name, self.url, length, limit_bytes)
        stop = start + length
        ranges = [(begin, min(RANGE_BYTES, stop - begin)) for begin in range(start, stop, RANGE_BYTES)]
        parts = await gather([partial(self._offload, self._get, name, *part) for part in ranges], AT_ONCE)
        if len({version for _, version in parts}) != 1:
            raise UnavailableError(f"{name} in {self.url} was replaced while it was read")
        return b"".join([data for data, _ in parts])

    async def get_versioned(self, name: str, *, limit_bytes: int | None = None) -> tuple[bytes, str]:
        """See ObjectStore.get_versioned."""
        return await self._offload(self._get, name, 0, None, limit_bytes)

    async def head(self, name: str) -> ObjectInfo:
        """See ObjectStore.head."""
        reply = await self._offload(self._call, self._client.head_object, name)
        return ObjectInfo(name=name, size_bytes=int(reply["ContentLength"]), version=str(reply["ETag"]))

    async def put(self, name: str, body: Body) -> None:
        """See ObjectStore.put."""
        await self._offload(self._put, name, body, {})

    async def put_if_absent(self, name: str, body: Body, put_id: bytes) -> None:
        """See ObjectStore.put_if_absent."""
        await self._put_conditionally(name, body, {"IfNoneMatch": "*"}, put_id)

    async def put_if_match(self, name: str, body: Body, version: str, put_id: bytes) -> None:
        """See ObjectStore.put_if_match."""
        try:
            await self._put_conditionally(name, body, {"IfMatch": version}, put_id)
        except ObjectNotFoundError as exc:
            raise PreconditionFailedError(f"{name} in {self.url} is gone") from exc

    async def delete(self, name: str) -> None:
        """See ObjectStore.delete."""
        try:
            await self._offload(self._call, self._client.delete_object, name)
        except ObjectNotFoundError:
            return  # S3 itself answers 204; some servers do not.

    async def list(self, prefix: str, start_after: str = "") -> list[ObjectInfo]:
        """See ObjectStore.list."""
        arguments: dict[str, Any] = {"Prefix": self._lead + check_prefix(prefix), "MaxKeys": self.page_size}
        if start_after:
            arguments["StartAfter"] = self._lead + start_after
        found: list[ObjectInfo] = []
        while True:
            page = await self._offload(self._list_page, prefix, arguments)
            found += _entries(page, self._lead)
            if not page.get("IsTruncated"):
                # The protocol promises the order; a server that gets it wrong must not mislead a caller.
                return sorted((info for info in found if info.name > start_after), key=lambda info: info.name)
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    async def aclose(self) -> None:
        """Closes the idle connections."""
        self._client.close()

    async def _offload(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._world.offload(Lane.NETWORK, partial(function, *arguments))

    async def _put_conditionally(self, name: str, body: Body, condition: dict[str, str], put_id: bytes) -> None:
        await self._offload(self._put, name, body, {**condition, "Metadata": {PUT_ID_METADATA: put_id.hex()}})

    # What follows runs in network threads.

    def _get(self, name: str, start: int, length: int | None, limit_bytes: int | None = None) -> tuple[bytes, str]:
        ranged = start > 0 or length is not None
        stop = "" if length is None else start + length - 1
        reply = self._call(self._client.get_object, name, {"Range": f"bytes={start}-{stop}"} if ranged else {})
        announced = reply.get("ContentLength")
        with contextlib.closing(reply["Body"]) as stream:
            if announced is None:
                raise UnavailableError(f"{name} in {self.url}: the server does not tell the length of its reply")
            # Before the first byte is read: the HTTP library reads no more than was announced.
            check_limit(name, self.url, announced, limit_bytes)
            if ranged:
                _check_content_range(name, start, length, str(reply.get("ContentRange", "")), announced)
            try:
                data = bytes(stream.read())
            except Exception as exc:
                # Whatever ends a body early, also exceptions of boto3's own HTTP library that it does not translate.
                raise UnavailableError(f"{name} in {self.url}: the body was cut off ({type(exc).__name__})") from exc
        if announced != len(data):
            raise UnavailableError(f"{name} in {self.url}: {len(data)} bytes came instead of {announced}")
        return data, str(reply["ETag"])

    def _put(self, name: str, body: Body, conditions: dict[str, Any]) -> None:
        size = body_size(body)
        if size > MAX_PUT_BYTES:
            raise ObjectStoreError(f"{name}: {size} bytes are more than one put to S3 may have")
        self._call(self._client.put_object, name, {"Body": join_body(body), **conditions})

    def _list_page(self, prefix: str, arguments: Mapping[str, Any]) -> _Reply:
        about = f"list of {prefix or 'everything'} in {self.url}"
        return self._request(about, self._client.list_objects_v2, arguments)

    def _call(self, method: _Method, name: str, arguments: Mapping[str, Any] | None = None) -> _Reply:
        about = f"{method.__name__} of {name} in {self.url}"
        return self._request(about, method, {"Key": self._lead + check_name(name), **(arguments or {})})

    def _request(self, about: str, method: _Method, arguments: Mapping[str, Any]) -> _Reply:
        try:
            return method(Bucket=self._bucket, **arguments)
        except ClientError as exc:
            error = exc.response.get("Error", {})
            status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code, text = str(error.get("Code", "")), str(error.get("Message", ""))
            raise error_of_response(status, code, text, about=about, bucket=self._bucket) from exc
        except _NO_CREDENTIALS as exc:
            raise AccessDeniedError(
                f"{about}: no usable credentials: set [aws] access_key_id and secret_access_key, or the usual "
                f"environment variables or profile ({printable(str(exc))})"
            ) from exc
        except SSLError as exc:
            if "CERTIFICATE_VERIFY_FAILED" not in str(exc):
                raise UnavailableError(f"{about}: {printable(str(exc))}") from exc
            raise ObjectStoreError(f"{about}: the server's certificate is not trusted ({printable(str(exc))})") from exc
        except (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError) as exc:
            raise UnavailableError(f"{about}: {printable(str(exc))}") from exc
        except BotoCoreError as exc:
            raise ObjectStoreError(f"{about}: {printable(str(exc))}") from exc


def _entries(page: _Reply, lead: str) -> list[ObjectInfo]:
    """The objects of one page of a list; `lead` is what all keys begin with."""
    found = []
    for entry in page.get("Contents", ()):
        name = str(entry["Key"]).removeprefix(lead)
        if is_name(name):
            found.append(ObjectInfo(name=name, size_bytes=int(entry["Size"]), version=str(entry["ETag"])))
    return found


def _check_content_range(name: str, start: int, length: int | None, content_range: str, size: int) -> None:
    """The reply to a range must be that range: a server may clip it, or ignore it and send everything."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", content_range)
    if not found or int(found[1]) != start or int(found[2]) - start + 1 != size:
        raise ObjectStoreError(f"{name}: the server does not answer range requests properly ({content_range!r})")
    if size != (int(found[3]) - start if length is None else length):
        raise beyond_end(name, start, length, int(found[3]))


@functools.cache
def _session() -> Any:
    """One for the process: parsing S3's description takes 80 ms. Holds no credentials but those of the AWS chain."""
    core = botocore.session.Session()
    # Nobody here looks at a time, and each entry of a list has one: to understand a thousand takes 50 ms.
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    return boto3.session.Session(botocore_session=core)


def _client(options: S3Options) -> Any:
    try:
        session = _session()
        client = session.client(
            "s3",
            region_name=options.default_region or session.region_name or FALLBACK_REGION,
            endpoint_url=options.endpoint,
            aws_access_key_id=options.access_key_id,
            aws_secret_access_key=options.secret_access_key,
            config=Config(
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path" if options.endpoint else "auto"},
                connect_timeout=options.connect_timeout_s,
                read_timeout=options.read_timeout_s,
                max_pool_connections=CONNECTIONS,
                tcp_keepalive=True,
                user_agent=f"zerofs/{__version__}",  # the library's own is put together anew for each request
            ),
        )
    except (BotoCoreError, ValueError) as exc:
        raise ConfigError(f"[aws] cannot be used: {printable(str(exc))}") from exc
    # boto3 asks "100-continue" before each body: a round trip more for every put, and a second if no answer comes.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    # The endpoint may also come from the environment or a profile.
    check_endpoint(client.meta.endpoint_url, options.allow_http)
    return client
