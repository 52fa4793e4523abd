"""Read-only mounts that follow a writer: soon, whole, and without a trace in the store."""

import errno
import mmap
import os
import time

import pytest

from tests.mount import trees
from tests.mount.harness import TINY
from tests.mount.hosts import wait_for
from tests.mount.stores import on_stores
from tests.mount.trees import differences, has_become, snapshot

pytestmark = pytest.mark.mount

INTERVAL_S = 1.0
SLACK_S = 30.0
"""What a machine that does other things may add. How soon it is on an idle one, tests/unit/lsm/test_follower.py says,
with a clock of its own."""

KINDS = ("file", "minio")


def settings(interval_s=INTERVAL_S):
    return TINY | {"lsm": TINY["lsm"] | {"poll_interval_s": interval_s}}


def follow(lab, store, name="follower", **options):
    mount = lab.plan(store, name, settings=settings(**options))
    mount.start("--read-only")
    return mount


def soon(condition, what):
    """It becomes true within the interval."""
    began = time.monotonic()
    wait_for(condition, what)
    assert time.monotonic() - began < INTERVAL_S + SLACK_S, f"{what} took too long"


def contents(store):
    return {name: store.read(name) for name in store.names()}


@on_stores(*KINDS)
def test_a_follower_sees_what_the_writer_stored(lab, store):
    writer = lab.mount(store, settings=TINY)
    (writer.path / "old").write_bytes(b"old")
    writer.flush()
    reader, other = follow(lab, store), follow(lab, store, "other")
    for mount in (reader, other):
        assert os.listdir(mount.path) == ["old"]
        assert not (mount.path / "new").exists(), "and the kernel remembers that"

    trees.oddities(writer.path / "oddities")
    (writer.path / "new").write_bytes(os.urandom(400_000))
    (writer.path / "old").unlink()
    writer.flush()
    held = snapshot(writer.path)
    for mount in (reader, other):
        soon(lambda mount=mount: (mount.path / "new").exists(), "the new file")
        assert not (mount.path / "old").exists()
        assert differences(held, snapshot(mount.path), same_filesystem=True) == []
    status = reader.status()
    assert (status["state"], status["read_only"], status["poll_interval_s"]) == ("read-only", True, INTERVAL_S)
    assert status["shown_age_s"] <= INTERVAL_S + SLACK_S
    for mount in (reader, other, writer):
        mount.umount()


@on_stores(*KINDS)
def test_open_files_go_on_with_the_newer_data(lab, store):
    writer = lab.mount(store, settings=TINY)
    size = 300_000
    (writer.path / "grows").write_bytes(b"1" * size)
    (writer.path / "goes").write_bytes(b"1" * size)
    (writer.path / "same").write_bytes(b"1" * size)
    times = (1_600_000_000, 1_600_000_000)
    os.utime(writer.path / "same", times)
    writer.flush()
    reader = follow(lab, store)
    with (
        (reader.path / "grows").open("rb", buffering=0) as grows,
        (reader.path / "goes").open("rb", buffering=0) as goes,
        (reader.path / "same").open("rb") as same,
        mmap.mmap(same.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        assert grows.read(2 * size) == goes.read(2 * size) == mapped[:] == b"1" * size
        with (writer.path / "grows").open("r+b") as file:
            file.write(b"2" * (size + 5))
        (writer.path / "goes").unlink()
        with (writer.path / "same").open("r+b") as file:
            file.write(b"3" * size)
        os.utime(writer.path / "same", times)
        writer.flush()
        soon(lambda: os.fstat(grows.fileno()).st_size == size + 5, "the new size")
        assert os.pread(grows.fileno(), 2 * size, 0) == b"2" * (size + 5)
        # Size and time are what they were: only we could tell the kernel.
        soon(lambda: mapped[:] == b"3" * size, "the new data in a mapping")
        with pytest.raises(OSError, match="Stale") as caught:
            os.fstat(goes.fileno())
        assert caught.value.errno == errno.ESTALE
    assert (reader.path / "same").read_bytes() == b"3" * size
    reader.umount()
    writer.umount()


@on_stores(*KINDS)
def test_a_follower_survives_merges_and_collection(lab, store):
    writer = lab.mount(store, settings=TINY)
    reader = follow(lab, store)
    for generation in range(12):
        for number in range(4):
            path = writer.path / f"file{number}"
            path.write_bytes(bytes([generation]) + os.urandom(200_000))
        writer.flush()
        if generation % 4 == 3:
            writer.zerofs("collect")
        for number in range(4):
            path = reader.path / f"file{number}"
            if path.exists():
                assert len(path.read_bytes()) in (0, 200_001)
    held = snapshot(writer.path)
    soon(lambda: has_become(held, reader.path, same_filesystem=True), "the last state")
    assert "ERROR" not in reader.log
    reader.umount()
    writer.umount()


@on_stores(*KINDS)
def test_followers_leave_the_store_as_it_is_and_ask_twice_per_interval(lab, store):
    writer = lab.mount(store, settings=TINY)
    (writer.path / "file").write_bytes(b"x" * 300_000)
    writer.umount()
    before = contents(store)
    readers = [follow(lab, store, f"reader{number}") for number in range(3)]
    for reader in readers:
        assert (reader.path / "file").read_bytes() == b"x" * 300_000
    first, began = requests(readers[0]), time.monotonic()
    time.sleep(5 * INTERVAL_S)  # a rate: requests in so much time, in which nobody does anything
    made, took_s = requests(readers[0]) - first, time.monotonic() - began
    assert 2 * 3 <= made <= 2 * (took_s / INTERVAL_S + 1)
    for reader in readers:
        reader.umount()
    assert contents(store) == before


def requests(mount):
    metrics = mount.status()["metrics"]
    return sum(value for name, value in metrics.items() if name.startswith("store_requests_total"))


def test_a_takeover_and_a_restore_under_a_follower(lab, store):
    writer = lab.mount(store, settings=TINY)
    (writer.path / "one").write_bytes(b"1")
    writer.zerofs("checkpoint", "create", "one")
    reader = follow(lab, store)
    elsewhere = lab.mount(store, "elsewhere", host=lab.new_host("there"), settings=TINY)
    (elsewhere.path / "two").write_bytes(b"2")
    elsewhere.umount()
    soon(lambda: (reader.path / "two").exists(), "what the second writer wrote")
    writer.umount(check=False)
    elsewhere.zerofs("checkpoint", "restore", "one")
    soon(lambda: not (reader.path / "two").exists(), "the restored state")
    assert (reader.path / "one").read_bytes() == b"1"
    reader.umount()
