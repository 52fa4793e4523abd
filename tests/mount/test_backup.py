"""A volume is its objects: a copy of all of them is a backup, and one without the key is refused (point 8).

The copies are made object by object, and with the commands that the README names.
"""

import pytest

from tests.mount import trees
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
