"""A volume is its objects: a copy of all of them is a backup, and one without the key is refused (point 8).

The copies are made by `zerofs backup`, object by object, and with the commands that the README names.
"""

import json
import os
import signal
import threading

import pytest

from tests.mount import trees
from tests.mount.harness import TINY
from tests.mount.hosts import wait_for
from tests.mount.stores import BucketStore, LocalStore, on_stores
from tests.mount.trees import differences, snapshot

pytestmark = pytest.mark.mount

KEY_MISSING, ROLLBACK = 13, 17


@pytest.fixture
def original(lab, store):
    """An unmounted volume with a bit of everything, and what it held."""
    mount = lab.mount(store)
    trees.oddities(mount.path / "oddities")
    trees.standard_library(mount.path / "stdlib", ("json", "logging"))
    (mount.path / "large").write_bytes(bytes(range(256)) * 20_000)
    held = snapshot(mount.path)
    mount.umount()
    return mount, held


@on_stores()
def test_a_copy_of_all_objects_is_a_backup(lab, store, original):
    _, held = original
    copy = store.copy()
    assert copy.names() == store.names()
    restored = lab.mount(copy, "restored", host=lab.new_host("elsewhere"))
    assert differences(held, snapshot(restored.path), same_filesystem=True) == []
    (restored.path / "new").write_bytes(b"a restored volume is a volume")
    restored.cold_remount()
    assert (restored.path / "new").read_bytes() == b"a restored volume is a volume"
    restored.umount()


@on_stores()
def test_a_copy_without_the_key_is_refused_with_the_remedy(lab, store, original):
    copy = store.copy(but="zerofs.key")
    names = copy.names()
    restored = lab.plan(copy, "restored", host=lab.new_host("elsewhere"))
    for attempt in ((), ("--read-only",), ("--take-over",)):
        done = restored.try_start(*attempt)
        assert done.returncode == KEY_MISSING
        assert "restore zerofs.key from a backup" in done.stderr
    assert [name for name in copy.names() if not name.startswith(".")] == [
        name for name in names if not name.startswith(".")
    ]
    copy.write("zerofs.key", store.read("zerofs.key"))
    restored.start()
    restored.umount()


@pytest.mark.parametrize("command", ["cp", "rsync"])
def test_the_commands_of_the_readme(lab, store, original, command):
    """A directory copied by hand, checked read-only on the same host, while the original goes on."""
    mount, held = original
    copy = LocalStore(lab.root / "backup")
    if command == "cp":
        trees.run("cp", "-a", store.root, copy.root)
    elif trees.missing("rsync"):
        pytest.skip("NOT TESTED: rsync is not installed")
    else:
        trees.run("rsync", "-a", f"{store.root}/", f"{copy.root}/")
    before = {name: copy.read(name) for name in copy.names()}
    checked = lab.plan(copy, "copy")
    checked.start("--read-only")
    assert differences(held, snapshot(checked.path), same_filesystem=True) == []
    with pytest.raises(OSError, match="Read-only file system"):
        (checked.path / "new").touch()
    checked.umount()
    assert {name: copy.read(name) for name in copy.names()} == before, "a read-only mount writes nothing"

    mount.start()
    (mount.path / "later").write_bytes(b"the original lives on")
    mount.umount()
    done = checked.try_start("--read-only")
    assert done.returncode == ROLLBACK
    assert "--accept-rollback" in done.stderr
    checked.start("--read-only", "--accept-rollback")
    assert differences(held, snapshot(checked.path), same_filesystem=True) == []
    checked.umount()


@pytest.mark.s3
@on_stores("minio")
def test_a_bucket_may_be_restored_into_a_directory(lab, store, original):
    assert isinstance(store, BucketStore)
    _, held = original
    directory = lab.local_store("from-the-bucket")
    for name in store.names():
        (directory.root / name).parent.mkdir(exist_ok=True)
        directory.write(name, store.read(name))
    restored = lab.mount(directory, "restored")
    assert differences(held, snapshot(restored.path), same_filesystem=True) == []
    restored.umount()


class Busy:
    """A thread that writes, renames and deletes in a directory for as long as the context lasts."""

    def __init__(self, directory):
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.rounds = 0

    def _work(self):
        while not self._stop.is_set():
            path = self._directory / f"file{self.rounds % 7}"
            path.write_bytes(os.urandom(60_000))
            path.rename(self._directory / f"other{self.rounds % 5}")
            self.rounds += 1

    def __enter__(self):
        self._directory.mkdir()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)


@on_stores("file", "minio")
def test_the_command_beside_a_live_writer(lab, store):
    writer = lab.mount(store, settings=TINY)
    trees.oddities(writer.path / "frozen")
    (writer.path / "frozen" / "large").write_bytes(os.urandom(1_500_000))
    held = snapshot(writer.path / "frozen")
    dest = store.elsewhere()
    with Busy(writer.path / "busy") as busy:
        first = json.loads(writer.zerofs("backup", dest.url, "--json").stdout)
        for command in (["fsck"], ["verify"], ["verify", "--full"]):
            assert ": clean (" in writer.zerofs(*command).stdout
        second = json.loads(writer.zerofs("backup", dest.url, "--prune", "--json").stdout)
        assert busy.rounds > 3
    points = json.loads(writer.zerofs("checkpoint", "list", "--json").stdout)["checkpoints"]
    assert [point["name"] for point in points] == [second["checkpoint"]]
    assert second["copied_objects"] < first["objects"] + second["objects"]
    (writer.path / "frozen" / "large").write_bytes(b"changed since")
    assert ": clean (" in writer.zerofs("backup", "verify", dest.url).stdout

    copy = lab.plan(dest, "restored", host=lab.new_host("elsewhere"), settings=TINY)
    copy.start("--read-only")
    assert differences(held, snapshot(copy.path / "frozen"), same_filesystem=True) == []
    copy.umount()
    assert json.loads(writer.zerofs("backup", dest.url, "--json").stdout)["copied_objects"] > 0
    copy.start()
    assert (copy.path / "frozen" / "large").read_bytes() == b"changed since"
    (copy.path / "new").write_bytes(b"a copy is a volume")
    copy.umount()
    refused = writer.zerofs("backup", dest.url, check=False)
    assert refused.returncode == ROLLBACK
    assert "choose an empty place" in refused.stderr
    writer.umount()


@on_stores("file")
def test_a_backup_that_was_killed_is_run_again(lab, store):
    mount = lab.mount(store, settings=TINY)
    (mount.path / "large").write_bytes(os.urandom(3_000_000))
    held = snapshot(mount.path)
    mount.flush()
    dest = store.elsewhere()
    slow = lab.spawn(["backup", dest.url, "--rate", "0.4", "-c", mount.config], mount.host, mount.password)
    wait_for(lambda: len([name for name in dest.names() if name.startswith("compacted/")]) > 2, "some objects")
    slow.process.send_signal(signal.SIGKILL)
    slow.process.wait(30)
    assert "zerofs.key" not in dest.names()
    there = [name for name in dest.names() if name.startswith("compacted/")]
    done = json.loads(mount.zerofs("backup", dest.url, "--json").stdout)
    assert done["copied_objects"] <= done["objects"] - len(there) + 2
    points = json.loads(mount.zerofs("checkpoint", "list", "--json").stdout)["checkpoints"]
    assert [point["name"] for point in points] == [done["checkpoint"]]
    mount.umount()
    copy = lab.mount(dest, "restored", host=lab.new_host("elsewhere"))
    assert differences(held, snapshot(copy.path), same_filesystem=True) == []
    copy.umount()
