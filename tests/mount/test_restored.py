"""P5: objects that changed places, gaps in the WAL, buckets that were set back: for hosts that know and that do not."""

import shutil

import pytest

from tests.mount.test_damage import CORRUPT, DAMAGES, ROLLBACK, a_copy, check_nothing_was_made_anew, read_all
from tests.mount.test_damage import volume as volume

pytestmark = pytest.mark.mount

KNOWS = pytest.mark.parametrize("knows", [True, False], ids=["a host that knows", "a host that does not"])


@KNOWS
@pytest.mark.parametrize("kind", ["wal", "manifest", pytest.param("meta SST", marks=[pytest.mark.slow])])
def test_two_objects_that_changed_places(lab, volume, kind, knows):
    mount = a_copy(lab, volume, with_memory=knows)
    names = volume.objects[kind][-2:]
    bodies = [mount.store.read(name) for name in names]
    for name, body in zip(names, reversed(bodies), strict=True):
        mount.store.write(name, body)
    before = {path: mount.store.read(path) for path in mount.store.names()}
    done = mount.try_start()
    if kind == "meta SST" and not done.returncode:
        assert read_all(mount.path, volume.contents), "it was not all in other tables"
        assert any(name in lab.host.logs for name in names)
        mount.kill()
    else:
        assert done.returncode == CORRUPT or (knows and done.returncode == ROLLBACK)
        assert any(name in done.stderr for name in names)
    check_nothing_was_made_anew(before, mount.store)
    for name, body in zip(names, bodies, strict=True):
        mount.store.write(name, body)
    mount.start()
    assert read_all(mount.path, volume.contents) == []
    mount.kill()


@pytest.mark.parametrize("damage", ["deleted", "nothing left"])
def test_a_gap_in_the_wal_is_noticed_by_a_host_that_knows_nothing(lab, volume, damage):
    mount = a_copy(lab, volume, with_memory=False)
    name = volume.objects["wal"][0]
    good = mount.store.read(name)
    mount.store.delete(name)
    if damage != "deleted":
        mount.store.write(name, DAMAGES[damage](good, b""))
    done = mount.try_start()
    assert done.returncode == CORRUPT
    assert name in done.stderr
    mount.store.write(name, good)
    mount.start()
    assert read_all(mount.path, volume.contents) == []
    mount.kill()


def test_an_old_bucket_that_was_put_in_place(lab):
    """It is refused; accepted, it is a volume of its own, and what was written since it was copied fits nowhere."""
    mount = lab.mount(lab.local_store())
    (mount.path / "old").write_bytes(b"1" * 100_000)
    mount.umount()
    old = mount.store.copy()
    mount.start()
    (mount.path / "old").write_bytes(b"2" * 100_000)
    (mount.path / "new").write_bytes(b"3" * 100_000)
    mount.umount()
    abandoned = {name: mount.store.read(name) for name in mount.store.names()}

    shutil.rmtree(mount.store.root)
    shutil.copytree(old.root, mount.store.root)
    mount.drop_cache()
    for done in (mount.try_start(), mount.try_start("--read-only"), mount.zerofs("fsck", check=False)):
        assert done.returncode in (ROLLBACK, 8), "fsck has exit codes of its own"
        assert "--accept-rollback" in done.stderr
    elsewhere = lab.mount(old, "elsewhere", host=lab.new_host("there"))
    assert (elsewhere.path / "old").read_bytes() == b"1" * 100_000, "a host that never saw more cannot know"
    elsewhere.umount()

    mount.start("--accept-rollback")
    (mount.path / "after").write_bytes(b"4" * 100_000)
    mount.umount()
    for name, body in abandoned.items():
        if name not in mount.store.names():
            target = mount.store.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)
    mount.drop_cache()
    mount.start()
    assert sorted(path.name for path in mount.path.iterdir()) == ["after", "old"]
    assert (mount.path / "old").read_bytes() == b"1" * 100_000
    assert (mount.path / "after").read_bytes() == b"4" * 100_000
    mount.umount()
    assert mount.zerofs("fsck").returncode == 0
