"""What only the S3 store does, against moto's server. The rest: tests/contract."""

import contextlib
import socket
import uuid

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import NoCredentialsError, SSLError

from tests.servers import free_port
from zerofs.errors import AccessDeniedError, ConfigError, ObjectStoreError, RangeError, UnavailableError
from zerofs.objectstore import s3
from zerofs.objectstore.options import S3Options
from zerofs.objectstore.s3 import S3Store
from zerofs.units import KIB
from zerofs.world import World


@pytest.fixture
def prefix():
    return f"unit/{uuid.uuid4()}"


@pytest.fixture
async def store(moto, prefix):
    store = S3Store(moto.bucket, prefix, moto.options, World())
    yield store
    await store.aclose()


@pytest.fixture
def requests(store):
    """Names of the operations that the store sends."""
    seen = []
    store._client.meta.events.register(
        "before-send.s3", lambda **event: seen.append(event["event_name"].split(".")[-1])
    )
    return seen


@pytest.fixture
def client(moto):
    with contextlib.closing(moto.client()) as client:
        yield client


def answer_with(store, operation, status, content):
    """Let the next answers to `operation` be this one, without asking the server."""

    class Raw:
        def stream(self, *arguments, **keywords):
            yield content

        def read(self, *arguments):
            return content

        def close(self):
            pass

    store._client.meta.events.register(
        f"before-send.s3.{operation}", lambda **event: AWSResponse("http://server", status, {}, Raw())
    )


# --- puts and ranges


async def test_every_put_is_one_request_however_large(store, requests):
    body = [bytes([number]) * 700 * KIB for number in range(20)]
    await store.put("plain", body)
    await store.put_if_absent("new", body, b"x")
    assert requests == ["PutObject", "PutObject"]
    assert await store.get("plain") == await store.get("new") == b"".join(body)


async def test_a_body_that_no_request_can_carry_is_refused_before_anything_is_sent(store, requests, monkeypatch):
    monkeypatch.setattr(s3, "MAX_PUT_BYTES", 1000)
    await store.put("name", b"x" * 1000)
    with pytest.raises(ObjectStoreError, match="1001 bytes are more than"):
        await store.put("name", b"x" * 1001)
    assert requests == ["PutObject"]


async def test_long_ranges_are_read_side_by_side(store, requests, monkeypatch):
    monkeypatch.setattr(s3, "RANGE_BYTES", 100_000)
    body = bytes(range(256)) * 2000
    await store.put("name", body)
    requests.clear()
    assert await store.get("name", 1000, 200_000) == body[1000:201_000]
    assert requests == ["GetObject"]
    requests.clear()
    assert await store.get("name", 1000, 450_001) == body[1000:451_001]
    assert requests == ["GetObject"] * 5
    with pytest.raises(RangeError):
        await store.get("name", 1000, 600_000)


async def test_a_split_read_never_mixes_versions(store, client, moto, prefix, monkeypatch):
    monkeypatch.setattr(s3, "RANGE_BYTES", 100)
    await store.put("name", b"a" * 1000)
    replaced = []

    def replace(**event):
        if not replaced:
            replaced.append(True)
            client.put_object(Bucket=moto.bucket, Key=f"{prefix}/name", Body=b"b" * 1000)

    store._client.meta.events.register("after-call.s3.GetObject", replace)
    with pytest.raises(UnavailableError, match="was replaced while it was read"):
        await store.get("name", 0, 1000)
    assert await store.get("name", 0, 1000) == b"b" * 1000


async def test_a_server_without_ranges_is_noticed(store):
    await store.put("name", b"0123456789")
    store._client.meta.events.register(
        "before-send.s3.GetObject", lambda request, **event: request.headers.__delitem__("Range")
    )
    with pytest.raises(ObjectStoreError, match="does not answer range requests properly"):
        await store.get("name", 2, 3)


# --- lists


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 1000])
async def test_a_list_goes_on_to_its_last_page(store, requests, page_size):
    names = [f"n/{number}" for number in range(7)]
    for name in names:
        await store.put(name, b"")
    requests.clear()
    store.page_size = page_size
    assert [info.name for info in await store.list("n/")] == names
    assert len(requests) == -(-7 // page_size)
    assert [info.name for info in await store.list("", "n/2")] == names[3:]


async def test_the_prefix_is_a_wall(store, client, moto, prefix):
    for key in (f"{prefix}x/name", f"{prefix}", f"{prefix}/", f"{prefix}/with space", f"{prefix}//x", f"{prefix}/fine"):
        client.put_object(Bucket=moto.bucket, Key=key, Body=b"")
    assert [info.name for info in await store.list("")] == ["fine"]
    assert store.url == f"s3://{moto.bucket}/{prefix}"


async def test_without_a_prefix_names_are_keys(moto, client):
    store = S3Store(moto.bucket, "", moto.options, World())
    name = f"unit-{uuid.uuid4()}"
    await store.put(name, b"x")
    assert client.get_object(Bucket=moto.bucket, Key=name)["Body"].read() == b"x"
    assert name in [info.name for info in await store.list("unit-")]
    assert store.url == f"s3://{moto.bucket}"
    await store.aclose()


# --- what goes wrong


async def test_a_missing_bucket_says_to_create_it(moto):
    store = S3Store("no-such-bucket", "", moto.options, World())
    for call in (store.get("name"), store.put("name", b""), store.list(""), store.put_if_absent("n", b"", b"")):
        with pytest.raises(ObjectStoreError, match="'no-such-bucket' does not exist: create it") as caught:
            await call
        assert type(caught.value) is ObjectStoreError
    await store.aclose()


async def test_nobody_there_is_unavailable():
    options = S3Options(
        endpoint=f"http://127.0.0.1:{free_port()}", access_key_id="a", secret_access_key="very-secret", allow_http=True
    )
    store = S3Store("bucket", "", options, World())
    for call in (store.get("name"), store.put("name", b""), store.list(""), store.head("name"), store.delete("name")):
        with pytest.raises(UnavailableError) as caught:
            await call
        assert "very-secret" not in str(caught.value)
    await store.aclose()


async def test_silence_is_unavailable_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = S3Options(
            endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}",
            access_key_id="a",
            secret_access_key="b",
            allow_http=True,
            read_timeout_s=0.05,
        )
        store = S3Store("bucket", "", options, World())
        with pytest.raises(UnavailableError, match="imeout"):
            await store.put_if_absent("name", b"x", b"x")
        await store.aclose()


@pytest.mark.parametrize(
    ("raised", "error", "says"),
    [
        (NoCredentialsError(), AccessDeniedError, "no usable credentials: set"),
        (SSLError(endpoint_url="x", error="CERTIFICATE_VERIFY_FAILED"), ObjectStoreError, "not trusted"),
        (SSLError(endpoint_url="x", error="handshake"), UnavailableError, "handshake"),
    ],
)
async def test_failures_before_any_answer(store, raised, error, says):
    def fail(**event):
        raise raised

    store._client.meta.events.register("before-send.s3", fail)
    with pytest.raises(ObjectStoreError, match=says) as caught:
        await store.get("name")
    assert type(caught.value) is error


async def test_a_body_of_unknown_length_is_not_trusted(store):
    answer_with(store, "GetObject", 200, b"")
    with pytest.raises(UnavailableError, match="does not tell the length"):
        await store.get("name")


async def test_an_answer_that_is_no_xml_is_unavailable(store):
    answer_with(store, "ListObjectsV2", 200, b"<html>a captive portal")
    with pytest.raises(UnavailableError):
        await store.list("")


def test_an_endpoint_from_the_environment_obeys_the_same_rules(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    options = S3Options(access_key_id="a", secret_access_key="b")
    with pytest.raises(ConfigError, match="without TLS"):
        S3Store("bucket", "", options, World())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nonsense")
    with pytest.raises(ConfigError, match=r"\[aws\] cannot be used"):
        S3Store("bucket", "", options, World())


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [(None, "https://bucket.s3.eu-west-1.amazonaws.com/name"), ("https://host:9000", "https://host:9000/bucket/name")],
)
async def test_where_requests_go(endpoint, url):
    options = S3Options(endpoint=endpoint, access_key_id="a", secret_access_key="b", default_region="eu-west-1")
    store = S3Store("bucket", "", options, World())
    sent = []

    def stop(request, **event):
        sent.append(request)
        raise NoCredentialsError

    store._client.meta.events.register("before-send.s3", stop)
    with pytest.raises(AccessDeniedError):
        await store.put_if_absent("name", b"x", b"id")
    assert [request.url for request in sent] == [url]
    assert sent[0].headers["If-None-Match"] == b"*"
    assert sent[0].headers["x-amz-meta-put-id"] == b"id".hex().encode()
    assert not any("checksum" in header.lower() for header in sent[0].headers)
    assert "Expect" not in sent[0].headers
    await store.aclose()
