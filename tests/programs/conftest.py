"""The ground that real programs work on: a mount that any user may enter, and a plain directory to compare it with."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.mount.conftest import minio  # noqa: F401  (a fixture)
from tests.mount.harness import Lab
from tests.mount.stores import BucketStore
from zerofs.mounttable import fuse_obstacle

PATIENCE_S = 280.0
"""How long a test may use its mount: a little less than the time limit of a test."""


AFTER_A_KILL = "taking the volume over from"
"""What a mount says that follows one that was killed."""


@pytest.fixture
def lab(tmp_path):
    """What the tests mount with: see `tests.mount.harness.Lab`."""
    if reason := fuse_obstacle(allow_other=True):
        pytest.skip(f"NOT TESTED, nothing can be mounted here: {reason}")
    with Lab(tmp_path, patience_s=PATIENCE_S) as made:
        yield made


@pytest.fixture
def store(request, lab):
    """An empty store of the kind that the test is parametrised with."""
    if request.param == "file":
        yield lab.local_store()
    else:
        with contextlib.closing(BucketStore(request.getfixturevalue(request.param))) as bucket:
            yield bucket


@pytest.fixture
def mount(lab, store):
    """A mount that every user can get at. After the test it can be unmounted, has logged no trouble, and is sound."""
    settings = {"servers.fuse": {"allow_other": True}}
    mounted = lab.plan(store, path=lab.public_directory(), settings=settings)
    mounted.start()
    yield mounted
    mounted.umount()
    mounted.zerofs("fsck")
    trouble = [line for line in mounted.log.splitlines() if " WARNING " in line or " ERROR " in line]
    assert [line for line in trouble if AFTER_A_KILL not in line] == []


@pytest.fixture
def plain():
    """A directory on a disk, which every user can get at."""
    path = Path(tempfile.mkdtemp(prefix="zf-plain-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
