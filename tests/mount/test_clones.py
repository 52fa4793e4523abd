"""Clones of checkpoints, on real mounts: two volumes that share objects and nothing else, until one stands alone."""

import json
import os
import shutil
import signal

import pytest

from tests.mount import trees
from tests.mount.harness import TINY
from tests.mount.hosts import wait_for
from tests.mount.stores import BucketStore, on_stores
from tests.mount.trees import differences, has_become, snapshot

pytestmark = pytest.mark.mount

CLONE, IN_USE, NO_VOLUME, CHECKPOINT = 23, 11, 10, 22


def empty(store):
    """Delete everything that a store has."""
    if isinstance(store, BucketStore):
        for name in store.names():
            store.delete(name)
    else:
        shutil.rmtree(store.root)


def fill(path):
    trees.oddities(path / "oddities")
    trees.standard_library(path / "stdlib", ("json", "logging"))
    (path / "large").write_bytes(os.urandom(1_500_000))


def whole(mount):
    """Checked from top to bottom."""
    for command in (["fsck"], ["verify", "--full"]):
        assert ": clean (" in mount.zerofs(*command).stdout
    return True


def points(mount):
    return [point["name"] for point in json.loads(mount.zerofs("checkpoint", "list", "--json").stdout)["checkpoints"]]


@on_stores("file", "minio")
def test_two_volumes_from_one_checkpoint_and_then_none_but_the_clone(lab, store):
    source = lab.mount(store, settings=TINY)
    fill(source.path)
    held = snapshot(source.path)
    source.zerofs("checkpoint", "create", "monday")
    dest = store.elsewhere()
    made = json.loads(source.zerofs("checkpoint", "clone", "monday", dest.url, "--json").stdout)
    assert [name for name in dest.names() if not name.startswith(".")] == [
        "manifest/00000000000000000001.manifest",
        "zerofs.key",
    ]
    assert points(source) == ["monday", made["pin"]]
    source.zerofs("checkpoint", "delete", "monday")

    clone = lab.mount(dest, "clone", settings=TINY)
    assert clone.status()["volume_id"] == made["volume_id"] != source.status()["volume_id"]
    assert clone.status()["sources"] == [store.url]
    assert differences(held, snapshot(clone.path), same_filesystem=True) == []
    (clone.path / "stdlib").rename(clone.path / "moved")
    (clone.path / "large").write_bytes(os.urandom(400_000))
    (clone.path / "of the clone").write_bytes(os.urandom(300_000))
    shutil.rmtree(source.path / "oddities")
    (source.path / "large").write_bytes(os.urandom(600_000))
    (source.path / "of the source").write_bytes(b"never seen in the clone")
    ours, theirs = snapshot(clone.path), snapshot(source.path)
    for mount in (source, clone):
        mount.flush()
        mount.zerofs("collect")
    clone.cold_remount()
    assert differences(ours, snapshot(clone.path), same_filesystem=True) == []
    source.cold_remount()
    assert differences(theirs, snapshot(source.path), same_filesystem=True) == []
    assert whole(clone)

    refused = clone.zerofs("clone", "detach", check=False)
    assert refused.returncode == IN_USE
    assert f"process {clone.pid} serves it at {clone.path}" in refused.stderr
    refused = clone.zerofs("backup", store.elsewhere().url, check=False)
    assert refused.returncode == CLONE
    assert "run `zerofs clone detach` first" in refused.stderr
    clone.umount()
    detached = json.loads(clone.zerofs("clone", "detach", "--json").stdout)
    assert detached == {"was_clone": True, "sources": [store.url], "left": []}
    assert points(source) == []
    source.umount()
    assert whole(source)
    empty(store)

    clone.drop_cache()
    assert whole(clone)
    clone.start()
    assert differences(ours, snapshot(clone.path), same_filesystem=True) == []
    assert clone.status()["sources"] == []
    (clone.path / "afterwards").write_bytes(b"a volume like any other")
    clone.cold_remount()
    assert (clone.path / "afterwards").read_bytes() == b"a volume like any other"
    copy = store.elsewhere()
    clone.zerofs("backup", copy.url)
    assert ": clean (" in clone.zerofs("backup", "verify", copy.url).stdout
    clone.umount()
    assert "is no clone" in clone.zerofs("clone", "detach").stdout


@on_stores("file")
def test_read_only_mounts_and_checkpoints_of_a_clone(lab, store):
    source = lab.mount(store, settings=TINY)
    fill(source.path)
    source.zerofs("checkpoint", "create", "monday")
    source.umount()
    dest = store.elsewhere()
    source.zerofs("checkpoint", "clone", "monday", dest.url)
    clone = lab.mount(dest, "clone", settings=TINY)
    clone.zerofs("checkpoint", "create", "tuesday")
    then = snapshot(clone.path)
    follower = lab.plan(dest, "follower", settings=TINY | {"lsm": TINY["lsm"] | {"poll_interval_s": 1}})
    follower.start("--read-only")
    before = {name: store.read(name) for name in store.names()}
    (clone.path / "large").write_bytes(b"written in the clone")
    (clone.path / "oddities").rename(clone.path / "elsewhere")
    clone.flush()
    now = snapshot(clone.path)
    wait_for(lambda: has_become(now, follower.path, same_filesystem=True), "the follower")
    follower.umount()
    follower.start("--checkpoint", "tuesday")
    assert differences(then, snapshot(follower.path), same_filesystem=True) == []
    follower.umount()
    clone.umount()
    assert {name: store.read(name) for name in store.names()} == before, "a clone writes nothing to its source"
    refused = clone.zerofs("clone", "detach", check=False)
    assert refused.returncode == CLONE
    assert "'tuesday'; delete them" in refused.stderr
    clone.zerofs("checkpoint", "delete", "tuesday")
    clone.zerofs("clone", "detach")
    assert points(source) == ["monday"], "released without a mount: the password is the same"
    assert whole(clone)


@on_stores("file")
def test_mounts_that_another_user_has_are_left_to_them(lab, store):
    """Another user of this host has a runtime directory of their own, as root has under sudo."""
    theirs = lab.new_host("another user")
    source = lab.mount(store, host=theirs)
    (source.path / "file").write_bytes(b"of the source")
    source.zerofs("checkpoint", "create", "monday")
    dest = store.elsewhere()
    source.zerofs("checkpoint", "clone", "monday", dest.url)
    clone = lab.mount(dest, "clone", host=theirs)
    ours, our_clone = lab.plan(store, "ours"), lab.plan(dest, "our clone")
    for refused, mount in (
        (ours.zerofs("checkpoint", "clone", "monday", store.elsewhere().url, check=False), source),
        (our_clone.zerofs("clone", "detach", check=False), clone),
    ):
        assert refused.returncode == IN_USE
        assert f"process {mount.pid} of this host has the volume open for writing at {mount.path}" in refused.stderr
        (mount.path / "later").write_bytes(b"nobody shut it out")
        mount.flush()
        assert mount.status()["state"] == "ok"
    clone.umount()
    left = json.loads(our_clone.zerofs("clone", "detach", "--json").stdout)["left"]
    assert f"process {source.pid} of this host" in left[0]["reason"]
    source.umount()
    assert json.loads(our_clone.zerofs("clone", "detach", "--json").stdout)["left"] == []
    assert points(ours) == ["monday"]


@on_stores("file")
def test_a_missing_source_is_an_io_error(lab, store):
    source = lab.mount(store)
    (source.path / "large").write_bytes(os.urandom(300_000))
    source.zerofs("checkpoint", "create", "monday")
    source.umount()
    dest = store.elsewhere()
    source.zerofs("checkpoint", "clone", "monday", dest.url)
    clone = lab.mount(dest, "clone")
    assert (clone.path / "large").stat().st_size == 300_000
    # Its tables alone: for a store that is away as a whole, a read waits for two minutes.
    tables, away = store.root / "compacted", store.root.with_name("tables")
    tables.rename(away)
    with pytest.raises(OSError, match="Input/output error"):
        (clone.path / "large").read_bytes()
    assert f"in the source of this clone, {store.url}" in clone.log
    (clone.path / "new").write_bytes(b"can be written all the same")
    clone.umount()
    away.rename(tables)
    moved = store.root.with_name("moved")
    store.root.rename(moved)
    refused = clone.zerofs("clone", "detach", check=False)
    assert refused.returncode == 16
    assert f"in the source of this clone, {store.url}" in refused.stderr
    moved.rename(store.root)
    clone.start()
    assert len((clone.path / "large").read_bytes()) == 300_000
    assert (clone.path / "new").read_bytes() == b"can be written all the same"
    clone.umount()


@on_stores("file")
def test_a_detach_that_is_killed_goes_on(lab, store):
    source = lab.mount(store, settings=TINY)
    (source.path / "large").write_bytes(os.urandom(6_000_000))
    held = snapshot(source.path)
    source.zerofs("checkpoint", "create", "monday")
    dest = store.elsewhere()
    source.zerofs("checkpoint", "clone", "monday", dest.url)
    clone = lab.plan(dest, "clone", settings=TINY)
    for round_number in range(3):
        seen = len(dest.names())
        killed = lab.spawn(["clone", "detach", "-c", clone.config], clone.host, clone.password)
        wait_for(
            lambda before=seen, wait=round_number, it=killed: (
                len(dest.names()) > before + 2 * wait or it.process.poll() is not None
            ),
            "some objects",
        )
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait(30)
        clone.drop_cache()
        clone.start()
        assert differences(held, snapshot(clone.path), same_filesystem=True) == []
        clone.umount()
    clone.zerofs("clone", "detach")
    assert points(source) == ["monday"]
    source.umount()
    empty(store)
    clone.drop_cache()
    assert whole(clone)
    clone.start()
    assert differences(held, snapshot(clone.path), same_filesystem=True) == []
    clone.umount()


@on_stores("file")
def test_a_pin_that_cannot_be_released_is_told(lab, store):
    source = lab.mount(store)
    (source.path / "large").write_bytes(os.urandom(300_000))
    source.zerofs("checkpoint", "create", "monday")
    source.umount()
    dest = store.elsewhere()
    made = json.loads(source.zerofs("checkpoint", "clone", "monday", dest.url, "--json").stdout)
    clone = lab.plan(dest, "clone")
    done = clone.zerofs("change-password", stdin="another password\n")
    assert done.returncode == 0
    clone.password = "another password"
    said = clone.zerofs("clone", "detach").stdout
    assert "The clone stands alone" in said
    assert f"zerofs checkpoint delete --force {made['pin']} -c CONFIGURATION_OF_THE_SOURCE" in said
    assert points(source) == ["monday", made["pin"]]
    source.start()
    again = json.loads(clone.zerofs("clone", "detach", "--json").stdout)
    assert again["left"] == [], "through the socket of the mount, without a password"
    assert points(source) == ["monday"]
    source.umount()


@on_stores("file")
def test_what_is_refused_is_left_alone(lab, store):
    source = lab.mount(store)
    source.zerofs("checkpoint", "create", "monday")
    dest = store.elsewhere()
    done = source.zerofs("checkpoint", "clone", "tuesday", dest.url, check=False)
    assert done.returncode == CHECKPOINT
    done = source.zerofs("checkpoint", "clone", "monday", store.url, check=False)
    assert (done.returncode, "is the volume itself" in done.stderr) == (2, True)
    done = source.zerofs("checkpoint", "clone", "monday", f"file://{source.path}/inside", check=False)
    assert (done.returncode, "lies in the mounted volume itself" in done.stderr) == (2, True)
    source.zerofs("checkpoint", "clone", "monday", dest.url)
    names = dest.names()
    done = source.zerofs("checkpoint", "clone", "monday", dest.url, check=False)
    assert done.returncode == NO_VOLUME
    assert len(points(source)) == 2
    assert dest.names() == names
    source.umount()
