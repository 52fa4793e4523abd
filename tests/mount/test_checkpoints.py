"""Checkpoints of real mounts: made beside a live writer, mounted, restored, given up."""

import json
import os
import time

import pytest

from tests.mount import trees
from tests.mount.harness import TINY
from tests.mount.hosts import wait_for
from tests.mount.stores import on_stores
from tests.mount.trees import differences, snapshot

pytestmark = pytest.mark.mount

IN_USE, CHECKPOINT = 11, 22
KINDS = ("file", "minio")


def contents(store):
    return {name: store.read(name) for name in store.names()}


def requests(mount):
    return {name: value for name, value in mount.status()["metrics"].items() if name.startswith("store_requests")}


@on_stores(*KINDS)
def test_a_checkpoint_beside_a_live_writer(lab, store):
    writer = lab.mount(store, settings=TINY)
    trees.oddities(writer.path / "oddities")
    (writer.path / "large").write_bytes(os.urandom(1_500_000))
    with (writer.path / "log").open("w") as file:
        file.write("not fsynced, and still in the kernel\n")
        file.flush()
        made = json.loads(writer.zerofs("checkpoint", "create", "monday", "--json").stdout)
    held = snapshot(writer.path)
    assert made["name"] == "monday"
    (writer.path / "large").write_bytes(os.urandom(700_000))
    (writer.path / "oddities").rename(writer.path / "moved")
    writer.flush()
    assert json.loads(writer.zerofs("checkpoint", "info", "monday", "--json").stdout) == made
    assert "monday" in writer.zerofs("checkpoint", "list").stdout

    pinned = lab.plan(store, "pinned", settings=TINY)
    pinned.start("--checkpoint", "monday")
    by_id = lab.plan(store, "by-id", settings=TINY)
    by_id.start("-o", f"checkpoint={made['id']}")
    for mount in (pinned, by_id):
        assert differences(held, snapshot(mount.path), same_filesystem=True) == []
        with pytest.raises(OSError, match="Read-only file system"):
            (mount.path / "new").touch()
    status = pinned.status()
    assert (status["checkpoint"], status["read_only"], status["state"]) == ("monday", True, "read-only")
    before = requests(pinned)
    time.sleep(3)  # that nothing happens shows only when time passes
    assert requests(pinned) == before, "idle costs nothing"
    (writer.path / "later").write_bytes(b"the writer lives on")
    writer.zerofs("collect")
    pinned.umount()
    pinned.drop_cache()
    pinned.start("--checkpoint", "monday")
    assert differences(held, snapshot(pinned.path), same_filesystem=True) == []
    for mount in (pinned, by_id, writer):
        mount.umount()


@on_stores(*KINDS)
def test_restore(lab, store):
    mount = lab.mount(store, settings=TINY)
    trees.oddities(mount.path / "oddities")
    held = snapshot(mount.path)
    mount.zerofs("checkpoint", "create", "good")
    (mount.path / "new").write_bytes(os.urandom(500_000))
    later = snapshot(mount.path)
    refused = mount.zerofs("checkpoint", "restore", "good", check=False)
    assert refused.returncode == IN_USE
    assert f"process {mount.pid} serves it at {mount.path}" in refused.stderr
    mount.umount()
    done = json.loads(mount.zerofs("checkpoint", "restore", "good", "--json").stdout)
    mount.drop_cache()
    mount.start()
    assert differences(held, snapshot(mount.path), same_filesystem=True) == []
    (mount.path / "afterwards").write_bytes(b"it can be written")
    mount.umount()
    mount.zerofs("checkpoint", "restore", done["before"]["name"])
    mount.start()
    assert differences(later, snapshot(mount.path), same_filesystem=True) == []
    mount.umount()


@on_stores(*KINDS)
def test_a_deleted_checkpoint_gives_its_space_back(lab, store):
    mount = lab.mount(store, settings=TINY)
    (mount.path / "large").write_bytes(os.urandom(2_000_000))
    mount.zerofs("checkpoint", "create", "large")
    (mount.path / "large").unlink()
    mount.flush()
    mount.zerofs("collect")
    assert store.size_bytes() > 2_000_000
    mount.zerofs("checkpoint", "delete", "large")
    wait_for(lambda: store.size_bytes() <= 1_000_000, "the space of the checkpoint", timeout_s=180)
    assert mount.zerofs("checkpoint", "delete", "large", check=False).returncode == CHECKPOINT
    mount.umount()


def test_a_checkpoint_mount_of_a_name_that_is_not_there(lab, store):
    mount = lab.mount(store)
    mount.umount()
    for how in (("--checkpoint", "tuesday"), ("-o", "checkpoint=tuesday")):
        done = mount.try_start(*how)
        assert done.returncode == CHECKPOINT
        assert "there is no checkpoint 'tuesday'; there are: none" in done.stderr


def test_checkpoint_mounts_leave_the_store_as_it_is(lab, store):
    mount = lab.mount(store)
    (mount.path / "file").write_bytes(b"x" * 100_000)
    mount.zerofs("checkpoint", "create", "one")
    mount.umount()
    before = contents(store)
    mount.start("--checkpoint", "one")
    assert (mount.path / "file").read_bytes() == b"x" * 100_000
    mount.zerofs("checkpoint", "list")
    mount.umount()
    assert contents(store) == before
