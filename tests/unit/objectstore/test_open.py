import pytest

from zerofs.errors import ConfigError
from zerofs.objectstore.local import LocalStore
from zerofs.objectstore.metered import Traced
from zerofs.objectstore.open import open_store
from zerofs.objectstore.options import RetryOptions, S3Options
from zerofs.objectstore.retrying import RetryingStore
from zerofs.telemetry.metrics import Metrics

KEYS = S3Options(access_key_id="AKIATEST", secret_access_key="very-secret", default_region="eu-west-1")


def opened(url, world, options=KEYS):
    return open_store(url, options, world, Metrics())


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("memory://", "memory://"),
        ("file:///a/b", "file:///a/b"),
        ("file:///a//b/", "file:///a/b"),
        ("file:///with space/50%25/?q#f", "file:///with space/50%/?q#f"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/some/prefix/", "s3://bucket/some/prefix"),
        ("s3://my.bucket-1/p", "s3://my.bucket-1/p"),
    ],
)
async def test_accepted_urls(given, url, world):
    store = opened(given, world)
    assert store.url == url
    await store.aclose()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("", "not a URL"),
        ("/some/path", "not a URL: write s3://bucket/prefix, file:///path or memory://"),
        ("gs://bucket", "unknown scheme 'gs': write s3://bucket/prefix, file:///path or memory://"),
        ("S3://bucket", "unknown scheme"),
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3://b", "names no bucket"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/../other", "prefix"),
        ("s3://bucket/with space", "prefix"),
        ("s3://bucket/p?versionId=3", "prefix"),
        ("s3://bucket:9000/p", "credentials or a port"),
        ("file://", "three slashes"),
        ("file://relative/path", "three slashes"),
        ("file:///a%00b", "NUL"),
        ("memory://name", "takes nothing after it"),
    ],
)
def test_refused_urls(given, complaint, world):
    with pytest.raises(ConfigError) as caught:
        opened(given, world)
    assert complaint in str(caught.value)


def test_credentials_in_a_url_are_refused_and_not_repeated(world):
    with pytest.raises(ConfigError, match="must not hold credentials") as caught:
        opened("s3://AKIAKEY:very-secret@bucket/prefix", world)
    assert "secret" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


async def test_each_memory_store_is_new(world):
    first, second = opened("memory://", world), opened("memory://", world)
    await first.put("name", b"x")
    assert await second.list("") == []


async def test_the_stack_counts_tries_below_the_retries(world, tmp_path):
    metrics, trace = Metrics(), []
    store = open_store(f"file://{tmp_path}/store", S3Options(), world, metrics, retry=RetryOptions(), trace=trace)
    assert isinstance(store, RetryingStore)
    await store.put("name", b"123")
    assert trace == [Traced(kind="put", name="name", sent_bytes=3, received_bytes=0)]
    assert metrics.get("store_requests_total", kind="put") == 1
    assert await LocalStore(tmp_path / "store", world).get("name") == b"123"


# --- options


def test_credentials_never_show():
    for text in (repr(KEYS), str(KEYS), f"{KEYS}"):
        assert "secret_access_key" not in text
        assert "very-secret" not in text
        assert "AKIATEST" not in text


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"access_key_id": "a"}, "go together"),
        ({"secret_access_key": "a"}, "go together"),
        ({"endpoint": "http://127.0.0.1:9000"}, "without TLS"),
        ({"endpoint": "127.0.0.1:9000", "allow_http": True}, "is not a URL"),
        ({"endpoint": "ftp://host"}, "is not a URL"),
        ({"endpoint": "https://"}, "is not a URL"),
        ({"endpoint": "https://user:very-secret@host"}, "must not hold credentials"),
    ],
)
def test_options_that_make_no_sense(settings, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        S3Options(**settings)
    assert "very-secret" not in str(caught.value)


def test_options_that_make_sense():
    S3Options()
    S3Options(endpoint="https://host:9000/")
    S3Options(endpoint="http://127.0.0.1:9000", allow_http=True)
