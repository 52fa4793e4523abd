import pytest

from tests.servers import moto_server
from tests.unit.objectstore.kit import SeededWorld


@pytest.fixture
def world():
    return SeededWorld()


@pytest.fixture(scope="session")
def moto():
    with moto_server() as server:
        yield server
