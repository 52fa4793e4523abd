"""Conditional puts to real servers over a network that loses replies.

boto3's own repetition makes "your own object exists already" out of a lost reply. Here every try is sent once, and only
the put-id says whose an object is.
"""

import contextlib
import uuid

import boto3.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.contract.proxy import CUT_BODY, LOSE_REPLY, REFUSE, proxy_to
from tests.servers import Server
from zerofs.errors import AccessDeniedError, ObjectStoreError, PreconditionFailedError, UnavailableError
from zerofs.objectstore import conditional
from zerofs.objectstore.metered import MeteredStore
from zerofs.objectstore.options import RetryOptions
from zerofs.objectstore.retrying import RetryingStore
from zerofs.objectstore.s3 import S3Store
from zerofs.telemetry.metrics import Metrics

OUR_ID = b"our own put id.."
OTHER_ID = b"another's put id"
OUR_BODY = [b"magic...", OUR_ID, b" our contents"]
OTHER_BODY = [b"magic...", OTHER_ID, b" our contents"]  # of the same size


class Site:
    """One server seen twice: directly, and through the proxy by a store with retries."""

    def __init__(self, server: Server, proxy, world) -> None:
        self.server = server
        self.proxy = proxy
        self.prefix = f"ambiguity/{uuid.uuid4()}"
        self.direct = S3Store(server.bucket, self.prefix, server.options, world)
        plain = S3Store(server.bucket, self.prefix, server.options_at(proxy.endpoint), world)
        self.metrics = Metrics()
        retry = RetryOptions(deadline_s=20, first_pause_s=0.001, longest_pause_s=0.01)
        self.store = RetryingStore(MeteredStore(plain, self.metrics), world.random, self.metrics, retry)

    async def create(self, world, body=OUR_BODY, put_id=OUR_ID):
        await conditional.create(self.store, world, "wal/1", body, put_id, 20)

    async def replace(self, world, version, body=OUR_BODY, put_id=OUR_ID):
        await conditional.replace(self.store, world, "wal/1", body, version, put_id, 20)

    async def contents(self):
        return await self.direct.get("wal/1")


@pytest.fixture(params=["moto", pytest.param("minio", marks=pytest.mark.s3)])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
async def site(server, world):
    with proxy_to(server.endpoint) as proxy:
        site = Site(server, proxy, world)
        yield site
        await site.store.aclose()
        await site.direct.aclose()


def test_boto3_left_to_itself_reports_our_own_object_as_somebody_elses(server):
    """Why its repetition is off. Should this fail one day, boto3 has changed its ways."""
    with proxy_to(server.endpoint) as proxy:
        session = boto3.session.Session(server.access_key_id, server.secret_access_key, region_name="us-east-1")
        config = Config(s3={"addressing_style": "path"})
        with contextlib.closing(session.client("s3", endpoint_url=proxy.endpoint, config=config)) as client:
            proxy.plan("PUT", LOSE_REPLY)
            with pytest.raises(ClientError, match="PreconditionFailed"):
                client.put_object(Bucket=server.bucket, Key=f"boto3/{uuid.uuid4()}", Body=OUR_ID, IfNoneMatch="*")
        assert proxy.count("PUT") == 2


async def test_a_lost_reply_is_sent_once_and_unknown(site):
    site.proxy.plan("PUT", LOSE_REPLY)
    with pytest.raises(UnavailableError):
        await site.store.put_if_absent("wal/1", OUR_BODY, OUR_ID)
    assert site.proxy.seen == ["PUT"]
    assert await site.contents() == b"".join(OUR_BODY)


async def test_own_create_whose_reply_was_lost_is_ours(site, world):
    site.proxy.plan("PUT", LOSE_REPLY)
    await site.create(world)
    assert site.proxy.seen == ["PUT", "HEAD", "GET"]
    assert await site.contents() == b"".join(OUR_BODY)


async def test_own_create_that_is_repeated_on_the_way_is_ours(site, world):
    """A proxy or a library that sends our put twice: we see 412 for an object that is ours."""
    await site.direct.put_if_absent("wal/1", OUR_BODY, OUR_ID)
    await site.create(world)
    assert site.proxy.seen == ["PUT", "HEAD", "GET"]


@pytest.mark.parametrize("fault", [None, LOSE_REPLY, REFUSE, 409, 503])
async def test_anothers_create_is_never_ours(site, world, fault):
    await site.direct.put_if_absent("wal/1", OTHER_BODY, OTHER_ID)
    if fault is not None:
        site.proxy.plan("PUT", fault)
    with pytest.raises(PreconditionFailedError, match="wal/1"):
        await site.create(world)
    assert site.proxy.count("PUT") == 1
    assert await site.contents() == b"".join(OTHER_BODY)


async def test_anothers_object_of_another_size_needs_no_get(site, world):
    await site.direct.put_if_absent("wal/1", [OUR_ID, b"as if it were ours, but longer"], OUR_ID)
    with pytest.raises(PreconditionFailedError):
        await site.create(world)
    assert site.proxy.seen == ["PUT", "HEAD"]


@pytest.mark.parametrize("faults", [[REFUSE], [409], [503], [500, 409, REFUSE], [409, LOSE_REPLY]])
async def test_what_never_arrived_is_sent_again(site, world, faults):
    site.proxy.plan("PUT", *faults)
    await site.create(world)
    assert await site.contents() == b"".join(OUR_BODY)
    assert site.proxy.count("PUT") == len(faults) + (LOSE_REPLY not in faults)


async def test_a_look_that_fails_is_repeated(site, world):
    site.proxy.plan("PUT", LOSE_REPLY)
    site.proxy.plan("HEAD", REFUSE, LOSE_REPLY, 503)
    site.proxy.plan("GET", CUT_BODY, LOSE_REPLY)
    await site.create(world)
    assert site.proxy.count("PUT") == 1
    assert await site.contents() == b"".join(OUR_BODY)


async def test_unknown_at_the_deadline_is_not_success(site, world):
    site.proxy.plan("PUT", LOSE_REPLY)
    site.proxy.plan("HEAD", *[REFUSE] * 10_000)
    with pytest.raises(UnavailableError, match="not known after"):
        await conditional.create(site.store, world, "wal/1", OUR_BODY, OUR_ID, 0.3)
    assert site.proxy.count("PUT") == 1


async def test_refusals_of_ours_are_not_resolved(site, world):
    site.proxy.plan("PUT", 403)
    with pytest.raises(AccessDeniedError, match="wal/1"):
        await site.create(world)
    assert site.proxy.seen == ["PUT"]


@pytest.mark.parametrize("fault", [LOSE_REPLY, REFUSE, 409])
async def test_own_replace_is_ours(site, world, fault):
    await site.direct.put("wal/1", b"what was there before")
    version = (await site.direct.head("wal/1")).version
    site.proxy.plan("PUT", fault)
    await site.replace(world, version)
    assert await site.contents() == b"".join(OUR_BODY)
    assert site.proxy.count("PUT") == (1 if fault == LOSE_REPLY else 2)


@pytest.mark.parametrize("fault", [None, LOSE_REPLY, REFUSE])
async def test_anothers_replace_is_never_ours(site, world, fault):
    await site.direct.put("wal/1", b"what was there before")
    version = (await site.direct.head("wal/1")).version
    await site.direct.put_if_match("wal/1", OTHER_BODY, version, OTHER_ID)
    if fault is not None:
        site.proxy.plan("PUT", fault)
    with pytest.raises(PreconditionFailedError, match="wal/1"):
        await site.replace(world, version)
    assert await site.contents() == b"".join(OTHER_BODY)


async def test_the_put_id_is_in_the_metadata_too(site):
    await site.store.put_if_absent("wal/1", OUR_BODY, OUR_ID)
    version = (await site.store.head("wal/1")).version
    await site.store.put_if_match("wal/1", OTHER_BODY, version, OTHER_ID)
    with contextlib.closing(site.server.client()) as client:
        found = client.head_object(Bucket=site.server.bucket, Key=f"{site.prefix}/wal/1")
    assert found["Metadata"] == {"put-id": OTHER_ID.hex()}


# --- what may be repeated is


async def test_reads_and_plain_puts_are_repeated(site):
    site.proxy.plan("PUT", LOSE_REPLY, REFUSE, 503)
    await site.store.put("name", b"0123456789")
    site.proxy.plan("GET", CUT_BODY, LOSE_REPLY, 500)
    assert await site.store.get("name") == b"0123456789"
    site.proxy.plan("GET", CUT_BODY)
    assert await site.store.get("name", 2, 6) == b"234567"
    site.proxy.plan("GET", CUT_BODY, 503)
    assert [info.name for info in await site.store.list("")] == ["name"]
    site.proxy.plan("DELETE", LOSE_REPLY)
    await site.store.delete("name")
    assert await site.direct.list("") == []
    assert site.metrics.get("store_retries_total", kind="get") == 4
    assert site.metrics.get("store_retries_total", kind="put") == 3
    assert site.metrics.get("store_retries_total", kind="delete") == 1


async def test_refusals_are_not_repeated(site):
    site.proxy.plan("GET", 403)
    with pytest.raises(ObjectStoreError, match="refused: check the credentials"):
        await site.store.get("name")
    assert site.proxy.seen == ["GET"]
