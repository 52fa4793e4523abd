"""Systems that cannot be measured here are taken away like all others."""

import contextlib

import pytest

from benches.catalogue import LOCAL, ON_S3
from benches.mounts import UnavailableError
from tests.servers import Server

NO_SERVER = Server(
    name="none", endpoint="http://127.0.0.1:9", access_key_id="id", secret_access_key="secret", bucket="bucket", pid=0
)


@pytest.mark.parametrize("kind", [*LOCAL, *ON_S3], ids=lambda kind: kind.name)
def test_a_system_that_was_not_mounted_can_be_removed(kind, tmp_path, monkeypatch):
    system = kind(tmp_path, *([NO_SERVER] if kind in ON_S3 else []))
    with monkeypatch.context() as patch, contextlib.suppress(UnavailableError):
        patch.setenv("PATH", str(tmp_path / "nothing"))
        system.prepare()

    system.remove()
