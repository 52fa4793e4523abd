"""P6: a disk of the cache that is full. It costs the cache, never a request."""

import os
import random
import subprocess

import pytest

from tests.mount.hosts import wait_for

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED, only root can make a disk that is small"),
]

DISK_SIZE = 3 * 2**20
SETTINGS = {"cache": {"memory_size_gb": 0.004, "disk_size_gb": 0.1}, "lsm": {"chunk_sst_size_mb": 0.5}}


@pytest.fixture
def small_disk(lab):
    """The cache of the lab's mount `mnt` lies on a disk of its own."""
    folder = lab.cache_root / "mnt-cache"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE},mode=700", "zerofs-test", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def read_all(mount, contents):
    for name, data in contents.items():
        assert (mount.path / name).read_bytes() == data


def test_a_cache_disk_that_fills_up(lab, small_disk):
    mount = lab.mount(lab.local_store(), settings=SETTINGS)
    contents = {f"file {number}": random.Random(number).randbytes(400_000) for number in range(40)}
    for name, data in contents.items():
        (mount.path / name).write_bytes(data)
    mount.umount()
    mount.start()
    read_all(mount, contents)
    wait_for(lambda: "write failed" in lab.host.logs, "a word about the cache that cannot be written")
    assert "going on without it" in lab.host.logs
    read_all(mount, contents)
    (mount.path / "new").write_bytes(b"x" * 100_000)
    mount.flush()
    assert mount.status()["state"] == "ok"
    assert "input/output error" not in lab.host.logs
    mount.umount()
    mount.start()
    read_all(mount, contents | {"new": b"x" * 100_000})
    mount.umount()


def test_a_cache_disk_that_is_full_from_the_start(lab, small_disk):
    with (
        open(small_disk / "something else", "wb", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
    ):
        while True:
            file.write(bytes(65536))
    mount = lab.mount(lab.local_store(), settings=SETTINGS)
    contents = {f"file {number}": random.Random(number).randbytes(400_000) for number in range(5)}
    for name, data in contents.items():
        (mount.path / name).write_bytes(data)
    mount.umount()
    mount.start()
    read_all(mount, contents)
    assert mount.status()["state"] == "ok"
    mount.umount()
    assert (small_disk / "something else").exists()
