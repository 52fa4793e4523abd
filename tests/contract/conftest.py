"""Every store that the contract holds for: each test of this folder that takes `store` runs on each of them."""

import random
import uuid

import pytest

from tests.servers import minio_server, missing_minio, moto_server
from zerofs.objectstore.faults import FaultyStore
from zerofs.objectstore.local import LocalStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.metered import MeteredStore
from zerofs.objectstore.open import open_store
from zerofs.objectstore.options import S3Options
from zerofs.objectstore.retrying import RetryingStore
from zerofs.objectstore.s3 import S3Store
from zerofs.telemetry.metrics import Metrics
from zerofs.world import World


@pytest.fixture(scope="session")
def moto():
    """moto's server, one per test process."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory):
    """A MinIO process, one per test process; skips where none was built."""
    if reason := missing_minio():
        pytest.skip(reason)
    with minio_server(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture
def world():
    return World()


def _s3(request, world):
    server = request.getfixturevalue(request.param.removeprefix("s3-"))
    return S3Store(server.bucket, f"contract/{uuid.uuid4()}", server.options, world)


def _opened_s3(request, world):
    server = request.getfixturevalue(request.param.removeprefix("opened-"))
    return open_store(server.url(f"contract/{uuid.uuid4()}"), server.options, world, Metrics())


def _local(request, world):
    return LocalStore(request.getfixturevalue("tmp_path") / "made" / "as needed", world)


STORES = {
    "memory": lambda request, world: MemoryStore(),
    "local": _local,
    "metered": lambda request, world: MeteredStore(MemoryStore(), Metrics(), []),
    "retrying": lambda request, world: RetryingStore(MemoryStore(), world.random, Metrics()),
    "faulty": lambda request, world: FaultyStore(MemoryStore(), random.Random(1)),
    "opened-memory": lambda request, world: open_store("memory://", S3Options(), world, Metrics()),
    "opened-file": lambda request, world: open_store(
        f"file://{request.getfixturevalue('tmp_path')}/store", S3Options(), world, Metrics()
    ),
    "s3-moto": _s3,
    "s3-minio": _s3,
    "opened-minio": _opened_s3,
}


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.s3] if "minio" in name else []) for name in STORES])
def opened(request, world):
    # Not async: a skip inside trio would lose its reason.
    return STORES[request.param](request, world)


@pytest.fixture
async def store(opened):
    yield opened
    await opened.aclose()
