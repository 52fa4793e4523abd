"""P5: errors are never zeros (point 6 of the issue). Every kind of object, damaged in every way, on a host that knows.

One volume is made, with several objects of each kind and a WAL object that no manifest covers; every case damages a
copy of it, of the store and of the host's memory of it. What may follow is a refusal to open that names the object, or
a mount on which what cannot be read fails with EIO and a log line that names the object. All that can be read is right,
and nothing is made anew.
"""

import dataclasses
import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.mount.harness import PASSWORD, Lab
from tests.mount.hosts import wait_for
from tests.mount.inside import newest_manifest
from tests.mount.stores import LocalStore, on_stores

pytestmark = pytest.mark.mount

NO_VOLUME, WRONG_PASSWORD, KEY_MISSING, CORRUPT, ROLLBACK, NEWER_FORMAT = 10, 12, 13, 16, 17, 21

LIMITS = {"lsm": {"chunk_sst_size_mb": 0.25, "sync_interval_s": 3600}, "cache": {"memory_size_gb": 0.02}}


MAGIC = {b"ZFSM": "manifest", b"ZFSW": "wal", b"ZFSS": "meta SST", b"ZFSC": "chunk SST"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Volume:
    """The volume that all cases start from; `objects` are its objects by kind, oldest first."""

    store: LocalStore
    state: Path
    contents: dict[str, bytes]
    objects: dict[str, list[str]]
    other_key: bytes
    """The sidecar of another volume with the same password."""


@pytest.fixture(scope="module")
def volume(fuse, tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("volume")) as lab:
        other = lab.mount(lab.local_store("other-store"), "other")
        other.umount()
        mount = lab.mount(lab.local_store(), settings=LIMITS)
        source = random.Random(6)
        contents = {}
        for batch in range(2):
            (mount.path / f"folder {batch}").mkdir()
            for number in range(6):
                contents[f"folder {batch}/file {number}"] = source.randbytes(90_000)
                contents[f"folder {batch}/small {number}"] = source.randbytes(300)
            write(mount.path, contents)
            mount.flush()
        for number in range(3):
            contents[f"after the flush {number}"] = source.randbytes(20_000)
            write(mount.path, contents)
            fsync(mount.path / f"after the flush {number}")
        mark = mount.status()["engine"]["wal_mark"]
        mount.kill()
        objects = by_kind(mount.store)
        trees = newest_manifest(f"file://{mount.store.root}", PASSWORD)
        # Registers are not needed to read a file: what their damage does is for tests/unit/lsm/test_registers.py.
        objects["meta SST"] = sorted(sst.name for run in trees.tree(b"meta").runs for sst in run.ssts)
        objects["pointer SST"] = sorted(sst.name for run in trees.tree(b"chunk").runs for sst in run.ssts)
        objects["wal"] = [name for name in objects["wal"] if int(name[4:24]) > mark]
        assert all(len(objects[kind]) > 1 for kind in MAGIC.values()), objects
        state = lab.host.state
    return Volume(
        store=mount.store,
        state=state,
        contents=contents,
        objects=objects,
        other_key=other.store.read("zerofs.key"),
    )


def write(root, contents):
    for name, data in contents.items():
        if not (root / name).exists():
            (root / name).write_bytes(data)


def fsync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def by_kind(store):
    """The objects of each kind, oldest first."""
    kinds = {"key": ["zerofs.key"]}
    for name in store.names():
        kind = MAGIC.get(store.read(name)[:4])
        if kind:
            kinds.setdefault(kind, []).append(name)
    return kinds


def flip(at):
    """Damage: one bit of the byte at `at`, a part of the whole (a float) or an offset."""

    def damage(body, other):
        index = at if isinstance(at, int) else int(at * (len(body) - 1))
        return body[:index] + bytes((body[index] ^ 0x10,)) + body[index + 1 :]

    return damage


DAMAGES = {
    "the first bit": flip(0),
    "its epoch": flip(9),
    "its put-id": flip(20),
    "its volume": flip(40),
    "a bit of its first frame": flip(70),
    "a bit in the middle": flip(0.5),
    "a bit at the end": flip(1.0),
    "cut in half": lambda body, other: body[: len(body) // 2],
    "one byte less": lambda body, other: body[:-1],
    "one byte more": lambda body, other: body + b"x",
    "nothing left": lambda body, other: b"",
    "zeros": lambda body, other: bytes(len(body)),
    "another of its kind": lambda body, other: other,
    "deleted": None,
}
FAST = ("its put-id", "a bit in the middle", "cut in half", "nothing left", "another of its kind", "deleted")

CASES = {
    "the key": ("key", 0),
    "the newest manifest": ("manifest", -1),
    "the manifest before it": ("manifest", -2),
    "the first WAL object": ("wal", 0),
    "the last WAL object": ("wal", -1),
    "the oldest meta SST": ("meta SST", 0),
    "a meta SST of pointers": ("pointer SST", 0),
    "the newest meta SST": ("meta SST", -1),
    "a chunk SST": ("chunk SST", 0),
}
UNREAD = {
    "meta SST": {"the first bit", "its epoch", "its put-id", "its volume", "one byte more"},
    "pointer SST": {"the first bit", "its epoch", "its put-id", "its volume", "one byte more"},
    "chunk SST": {
        "the first bit",
        "its epoch",
        "its put-id",
        "its volume",
        "one byte more",
        "one byte less",
        "a bit at the end",
    },
}
"""What no read ever looks at: the manifest and the pointers tell all that a header or a directory could."""


def params():
    for case in CASES:
        for damage in DAMAGES:
            marks = [] if damage in FAST else [pytest.mark.slow]
            yield pytest.param(case, damage, id=f"{case}, {damage}", marks=marks)


@pytest.mark.parametrize(("case", "damage"), list(params()))
def test_damage_is_told_and_never_served(lab, volume, case, damage):
    kind, index = CASES[case]
    name = volume.objects[kind][index]
    mount = a_copy(lab, volume)
    good = mount.store.read(name)
    if DAMAGES[damage] is None:
        mount.store.delete(name)
    else:
        others = volume.objects[kind] if len(volume.objects[kind]) > 1 else volume.objects["meta SST"]
        other = volume.other_key if kind == "key" else mount.store.read(others[index - 1])
        mount.store.write(name, DAMAGES[damage](good, other))
    before = {path: mount.store.read(path) for path in mount.store.names()}

    done = mount.try_start()
    if done.returncode:
        check_refusal(done, kind, damage, name)
    else:
        failed = read_all(mount.path, volume.contents)
        mount.kill()
        if damage in UNREAD.get(kind, ()):
            assert not failed
        else:
            assert kind in ("wal", "meta SST", "pointer SST", "chunk SST")
            assert failed
            assert name in lab.host.logs, "the log names the object"
    check_nothing_was_made_anew(before, mount.store)

    mount.store.write(name, good)
    mount.start()
    assert read_all(mount.path, volume.contents) == []
    mount.kill()


def a_copy(lab, volume, *, with_memory=True):
    """A copy of the volume, and of what its host knows of it, to be mounted."""
    store = lab.local_store()
    shutil.copytree(volume.store.root, store.root, dirs_exist_ok=True)
    if with_memory:
        shutil.copytree(volume.state, lab.host.state, dirs_exist_ok=True)
    return lab.plan(store, settings=LIMITS)


def read_all(root, contents):
    """Which files could not be read: every other one is there and right, and EIO is all that may happen."""
    failed = []
    for name, data in contents.items():
        try:
            found = (root / name).read_bytes()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            failed.append(name)
        else:
            assert found == data, f"{name} was served with wrong bytes"
    return failed


def check_refusal(done, kind, damage, name):
    """Refused with a code of its own, and the object is named."""
    expected = {CORRUPT}
    if kind == "key":
        # Where other objects have their epoch, the key has its version.
        expected = {KEY_MISSING} if damage == "deleted" else {CORRUPT, WRONG_PASSWORD, NEWER_FORMAT}
    elif kind in ("manifest", "wal"):
        expected = {CORRUPT, ROLLBACK}
    assert done.returncode in expected, done.stderr
    assert name in done.stderr or done.stderr.endswith(
        # The issue's own words for whatever makes no slot of the key open; and a key that opens another volume.
        ("Failed to unwrap DEK: Invalid password or corrupted key\n", ".manifest: belongs to another volume\n")
    )


def check_nothing_was_made_anew(before, store):
    """No object was changed or removed, and none made but the claim of an epoch and its fence."""
    after = {path: store.read(path) for path in store.names()}
    assert {path: after.get(path) for path in before} == before
    assert all(path.startswith(("manifest/", "wal/")) for path in after.keys() - before.keys())


@pytest.mark.parametrize("damage", ["its put-id", "another of its kind", "cut in half"])
def test_a_restored_wal_object_fits_again_on_a_host_that_knew_nothing(lab, volume, damage):
    """What a failed open left in the store (the claim of an epoch, its fence) must not rest on the damaged object."""
    mount = a_copy(lab, volume, with_memory=False)
    name, neighbour = volume.objects["wal"][-1], volume.objects["wal"][-2]
    good = mount.store.read(name)
    mount.store.write(name, DAMAGES[damage](good, mount.store.read(neighbour)))
    done = mount.try_start()
    assert done.returncode == CORRUPT
    assert name in done.stderr
    mount.store.write(name, good)
    mount.start()
    assert read_all(mount.path, volume.contents) == []
    mount.kill()


def test_the_bucket_id_may_be_deleted(lab, volume):
    mount = a_copy(lab, volume)
    mount.store.delete(".zerofs_bucket_id")
    mount.start()
    assert read_all(mount.path, volume.contents) == []
    mount.kill()
    assert len(mount.store.read(".zerofs_bucket_id")) == 36


def test_an_emptied_bucket_is_not_taken_for_a_new_one(lab, volume):
    mount = a_copy(lab, volume)
    for name in mount.store.names():
        if name != "zerofs.key":
            mount.store.delete(name)
    done = mount.try_start()
    assert done.returncode == NO_VOLUME
    assert "restore" in done.stderr
    assert [name for name in mount.store.names() if not name.startswith(".")] == ["zerofs.key"]


@on_stores("file", "minio")
def test_a_damaged_disk_cache_is_harmless(lab, store):
    mount = lab.mount(store, settings=LIMITS)
    contents = {f"file {number}": random.Random(number).randbytes(50_000) for number in range(40)}
    write(mount.path, contents)
    mount.cold_remount()
    assert read_all(mount.path, contents) == []
    wait_for(lambda: mount.status()["engine"]["disk_cache"]["bytes"] > 40 * 50_000, "a filled disk cache")
    mount.umount()
    damaged = 0
    for path in mount.cache.rglob("*.frames"):
        body = bytearray(path.read_bytes())
        for at in range(70_000, len(body), 9_000):
            body[at] ^= 1
            damaged += 1
        path.write_bytes(body)
    assert damaged > 100
    mount.start()
    assert read_all(mount.path, contents) == []
    assert mount.status()["metrics"]["chunk_fetches"] > 10
    assert "input/output error" not in lab.host.logs
    mount.umount()


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED, only root can become another user")
def test_a_stranger_reads_nothing_below_a_private_directory(lab, store):
    mount = lab.mount(store, path=lab.public_directory(), settings={"servers.fuse": {"allow_other": True}})
    mount.path.chmod(0o755)
    for name, mode in (("private", 0o700), ("public", 0o755)):
        (mount.path / name).mkdir(mode=mode)
        (mount.path / name / "file").write_bytes(b"secret")
        (mount.path / name / "file").chmod(0o644)
        assert (mount.path / name / "file").read_bytes() == b"secret", "root has the name cached"
    public, private = mount.path / "public" / "file", mount.path / "private" / "file"
    assert as_stranger(public.read_bytes) == "b'secret'"
    for attempt in (
        private.read_bytes,
        private.stat,
        private.unlink,
        lambda: private.chmod(0o777),
        lambda: os.listdir(private.parent),
        lambda: os.getxattr(private, "user.x"),
    ):
        assert as_stranger(attempt) == "EACCES"
    assert as_stranger(lambda: os.access(private, os.F_OK)) == "False"
    for attempt in (public.unlink, lambda: public.write_bytes(b""), lambda: public.rename(public.with_name("other"))):
        assert as_stranger(attempt) == "EACCES"
    assert as_stranger(lambda: public.chmod(0o777)) == "EPERM"
    mount.umount()


def as_stranger(attempt):
    """What comes of it when user 1234 tries: the result as text, or the name of the errno.

    In a fork: that user may not even be allowed to run this Python.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(1234, 1234, 1234)
            os.setresuid(1234, 1234, 1234)
            os.write(theirs, repr(attempt()).encode())
        except OSError as error:
            os.write(theirs, errno.errorcode[error.errno].encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said
