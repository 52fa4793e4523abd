"""What only the local store does. The rest: tests/contract."""

import errno
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
import trio

from zerofs.errors import (
    AccessDeniedError,
    CorruptionError,
    ObjectNotFoundError,
    ObjectStoreError,
    PreconditionFailedError,
    UnavailableError,
)
from zerofs.objectstore import durable
from zerofs.objectstore.local import LocalStore
from zerofs.pagecache import INLINE_READ_BYTES


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(root, world):
    return LocalStore(root, world)


async def names(store, prefix=""):
    return [info.name for info in await store.list(prefix)]


def fail_with(monkeypatch, function, number):
    def fail(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, fail)


async def test_reading_makes_nothing(store, root):
    assert await store.list("") == []
    with pytest.raises(ObjectNotFoundError):
        await store.get("name")
    await store.delete("name")
    assert not root.exists()


async def test_objects_are_plain_private_files_by_their_names(store, root):
    await store.put("wal/1", [b"con", b"tents"])
    await store.put_if_absent("manifest/floor", b"5", b"5")
    assert (root / "wal/1").read_bytes() == b"contents"
    assert stat.S_IMODE((root / "wal/1").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "manifest").stat().st_mode) == 0o700
    assert store.url == f"file://{root}"


async def test_modes_do_not_depend_on_the_umask(store, root):
    before = os.umask(0)
    try:
        await store.put("a/b", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root, root / "a", root / durable.SCRATCH)} == {0o700}


async def test_another_process_sees_and_is_seen(store, root):
    """Two stores in one directory share nothing but the directory."""
    program = (
        "import sys, trio; from pathlib import Path\n"
        "from zerofs.objectstore.local import LocalStore; from zerofs.world import World\n"
        "async def main():\n"
        "    store = LocalStore(Path(sys.argv[1]), World())\n"
        "    data, version = await store.get_versioned('ours')\n"
        "    await store.put_if_match('ours', data + b'+theirs', version, b'id')\n"
        "trio.run(main)\n"
    )
    await store.put("ours", b"ours")
    version = (await store.head("ours")).version
    await trio.run_process([sys.executable, "-c", program, str(root)], cwd=Path(__file__).parents[3])
    assert await store.get("ours") == b"ours+theirs"
    with pytest.raises(PreconditionFailedError):
        await store.put_if_match("ours", b"ours again", version, b"id")


# --- versions


async def test_versions_differ_although_clock_size_and_inode_are_the_same(store, world):
    world.now_ns = lambda: 1_700_000_000 * 10**9
    versions = set()
    for _ in range(50):
        await store.put("name", b"same size")
        versions.add((await store.head("name")).version)
    assert len(versions) == 50


async def test_a_read_is_of_one_version_whatever_happens_meanwhile(store, root, world):
    await store.put("name", b"a" * (INLINE_READ_BYTES + 1))
    version = (await store.head("name")).version
    inline = world.offload

    async def replace_first(lane, function, *arguments):
        world.offload = inline
        await store.put("name", b"b")
        return await inline(lane, function, *arguments)

    world.offload = replace_first
    assert await store.get_versioned("name") == (b"a" * (INLINE_READ_BYTES + 1), version)


# --- reading


async def test_small_cached_reads_need_no_thread_and_large_ones_take_one(store, world):
    await store.put("name", b"x" * (2 * INLINE_READ_BYTES))
    world.offloads = 0
    assert len(await store.get("name", 100, INLINE_READ_BYTES)) == INLINE_READ_BYTES
    await store.head("name")
    inline = world.offloads
    assert len(await store.get("name", 100, INLINE_READ_BYTES + 1)) == INLINE_READ_BYTES + 1
    assert world.offloads == inline + 1
    assert inline in (0, 1)  # 1: this filesystem cannot tell what is cached


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP])
async def test_what_is_not_cached_is_read_in_a_thread(store, world, monkeypatch, number):
    await store.put("name", b"0123456789")
    world.offloads = 0
    fail_with(monkeypatch, "preadv", number)
    assert await store.get("name", 2, 3) == b"234"
    assert world.offloads == 1


async def test_what_is_cached_in_part_is_read_in_a_thread(store, world, monkeypatch):
    await store.put("name", b"0123456789")
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, start, flags: 2)
    assert await store.get("name", 2, 5) == b"23456"


async def test_a_file_that_ends_too_early_is_unavailable(store, monkeypatch):
    await store.put("name", b"0123456789")
    fail_with(monkeypatch, "preadv", errno.EAGAIN)
    monkeypatch.setattr(os, "pread", lambda descriptor, size, start: b"01" if start == 0 else b"")
    with pytest.raises(UnavailableError, match="2 bytes from 0 instead of 10"):
        await store.get("name")


async def test_short_reads_are_continued(store, monkeypatch):
    await store.put("name", b"0123456789")
    fail_with(monkeypatch, "preadv", errno.EAGAIN)
    real_pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, start: real_pread(descriptor, min(size, 3), start))
    assert await store.get("name", 1) == b"123456789"


async def test_descriptors_do_not_leak(store, monkeypatch):
    await store.put("name", b"x")
    before = len(os.listdir("/proc/self/fd"))
    fail_with(monkeypatch, "fsync", errno.EIO)
    for _ in range(3):
        with pytest.raises(ObjectStoreError):
            await store.put("name", b"y")
        with pytest.raises(ObjectStoreError):
            await store.get("name", 5, 5)
        await store.get("name")
    assert len(os.listdir("/proc/self/fd")) == before


# --- what is not an object


async def test_foreign_things_are_not_objects(store, root):
    await store.put("dir/name", b"x")
    (root / "with space").write_bytes(b"")
    (root / "lost+found").mkdir()
    (root / "lost+found" / "file").write_bytes(b"")
    (root / "link").symlink_to(root / "dir" / "name")
    (root / "linked").symlink_to(root / "dir")
    os.mkfifo(root / "fifo")
    assert await names(store) == ["dir/name"]
    for name in ("link", "fifo"):
        with pytest.raises(ObjectNotFoundError):
            await store.get(name)
        with pytest.raises(ObjectNotFoundError):
            await store.head(name)
        await store.delete(name)
        assert name in os.listdir(root)


async def test_the_stores_own_directory_is_never_listed(store, root):
    await store.put("name", b"x")
    (root / durable.SCRATCH / "new-left").write_bytes(b"")
    assert (root / durable.SCRATCH).is_dir()
    assert await names(store) == ["name"]
    assert await names(store, ".") == []
    assert await names(store, durable.SCRATCH) == []


async def test_the_first_put_removes_leftovers(store, root, world):
    await store.put("name", b"x")
    left = root / durable.SCRATCH / "new-left"
    left.write_bytes(b"half")
    await store.put("name", b"y")
    assert left.exists()
    await LocalStore(root, world).put("name", b"z")
    assert not left.exists()


async def test_a_copy_without_the_hidden_directory_is_a_whole_store(store, root, tmp_path, world):
    await store.put("a/b", b"x")
    await store.put("c", b"y")
    shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns(durable.SCRATCH))
    copy = LocalStore(tmp_path / "copy", world)
    assert await names(copy) == ["a/b", "c"]
    await copy.delete("c")
    assert await names(copy) == ["a/b"]
    await copy.put_if_match("a/b", b"z", (await copy.head("a/b")).version, b"id")
    assert await copy.get("a/b") == b"z"


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
async def test_what_stands_in_place_of_the_stores_own_directory_leads_nowhere(store, root, tmp_path, world, kind):
    await store.put("name", b"x")
    shutil.rmtree(root / durable.SCRATCH)
    victim = tmp_path / "victim"
    if kind == "link":
        victim.mkdir()
        (victim / "new-report.txt").write_text("mine")
    if kind == "file":
        (root / durable.SCRATCH).write_text("")
    else:
        (root / durable.SCRATCH).symlink_to(victim)
    for used in (store, LocalStore(root, world)):
        version = (await used.head("name")).version
        for call in (
            used.put("name", b"y"),
            used.put_if_absent("new", b"y", b"y"),
            used.put_if_match("name", b"y", version, b"y"),
            used.delete("name"),
        ):
            with pytest.raises(ObjectStoreError, match=r"\.zerofs_local is a link or a file.*remove it") as caught:
                await call
            assert not isinstance(caught.value, UnavailableError)
    assert await names(store) == ["name"]
    assert [path.name for path in tmp_path.rglob("*") if "victim" in str(path)] == (
        ["victim", "new-report.txt"] if kind == "link" else []
    )


async def test_a_lock_file_that_is_a_link_is_not_followed(store, root, tmp_path):
    await store.put("name", b"x")
    (root / durable.SCRATCH / "lock").unlink()
    (root / durable.SCRATCH / "lock").symlink_to(tmp_path / "made elsewhere")
    with pytest.raises(ObjectStoreError):
        await store.put("name", b"y")
    assert not (tmp_path / "made elsewhere").exists()


async def test_a_folder_that_its_owner_made_a_link_is_followed(store, root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    await store.put("name", b"x")
    (root / "wal").symlink_to(tmp_path / "elsewhere")
    await store.put_if_absent("wal/1", b"id", b"id")
    assert await store.get("wal/1") == b"id"
    assert await names(store, "wal/") == ["wal/1"]
    await store.delete("wal/1")
    assert await names(store, "wal/") == []


async def test_a_file_of_any_size_costs_nothing_when_it_is_too_large(store, root):
    await store.put("name", b"x")
    os.truncate(root / "name", 1 << 40)
    for call in (store.get("name", limit_bytes=1000), store.get_versioned("name", limit_bytes=1000)):
        with pytest.raises(CorruptionError, match=r"1099511627776 bytes; such an object has at most 1000"):
            await call


# --- what goes wrong


async def test_a_directory_that_cannot_be_made_says_so(tmp_path, world):
    (tmp_path / "file").write_text("")
    for root, reason in (
        (Path("/proc/absent/store"), "No such file"),
        (tmp_path / "file" / "store", "Not a directory"),
    ):
        store = LocalStore(root, world)
        assert await store.list("") == []
        for call in (store.put("name", b"x"), store.put_if_absent("name", b"x", b"x")):
            with pytest.raises(
                ObjectStoreError, match=f"the directory of the store cannot be made.*{reason}"
            ) as caught:
                await call
            assert not isinstance(caught.value, UnavailableError)
            assert "name" not in str(caught.value)


async def test_folders_on_several_filesystems_are_told(store, monkeypatch):
    await store.put("name", b"x")
    fail_with(monkeypatch, "link", errno.EXDEV)
    with pytest.raises(ObjectStoreError, match="must be on one filesystem"):
        await store.put_if_absent("wal/1", b"id", b"id")


async def test_a_directory_that_vanishes_in_use_is_not_made_again(store, root):
    """As when its disk is unmounted: what lies below the mountpoint must not become a second store."""
    await store.put("name", b"x")
    shutil.rmtree(root)
    for call in (store.put("name", b"y"), store.put("new/name", b"y"), store.put_if_absent("other", b"y", b"y")):
        with pytest.raises(UnavailableError, match="has vanished"):
            await call
    root.mkdir()
    with pytest.raises(UnavailableError, match="has vanished"):
        await store.put("name", b"y")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("what", ["unmounted", "gone"])
async def test_an_object_of_a_disk_that_vanished_is_not_taken_for_absent(store, root, what):
    await store.put("name", b"x")
    assert await store.get("name") == b"x"
    away = root.with_name("away")
    root.rename(away)
    if what == "unmounted":
        root.mkdir()
    for call in (store.get("name"), store.head("name"), store.get_versioned("name"), store.list("")):
        with pytest.raises(UnavailableError, match="has vanished"):
            await call
    shutil.rmtree(root, ignore_errors=True)
    away.rename(root)
    assert await store.get("name") == b"x"
    with pytest.raises(ObjectNotFoundError):
        await store.get("other")
    assert await names(store) == ["name"]
    assert await names(store, "other/") == []


async def test_no_room_says_so_and_leaves_nothing(store, root, monkeypatch):
    await store.put("name", b"old")

    def write_half(descriptor, pieces):
        os.write(descriptor, bytes(pieces[0])[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "write_all", write_half)
    for call in (store.put("name", b"new"), store.put_if_absent("more", b"new", b"new")):
        with pytest.raises(ObjectStoreError, match="No space left on device: make room") as caught:
            await call
        assert not isinstance(caught.value, UnavailableError)
    assert await store.get("name") == b"old"
    assert await names(store) == ["name"]
    assert os.listdir(root / durable.SCRATCH) == ["lock"]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EACCES, AccessDeniedError),
        (errno.EROFS, AccessDeniedError),
        (errno.EDQUOT, ObjectStoreError),
        (errno.EIO, ObjectStoreError),
        (errno.ESTALE, UnavailableError),
        (errno.EMFILE, UnavailableError),
    ],
)
async def test_errors_of_the_system_are_translated(store, monkeypatch, number, error):
    await store.put("name", b"x")
    fail_with(monkeypatch, "open", number)
    for call in (store.get("name"), store.put("name", b"y"), store.delete("name"), store.put_if_absent("n", b"", b"")):
        with pytest.raises(ObjectStoreError, match=os.strerror(number)) as caught:
            await call
        assert type(caught.value) is error


async def test_a_flush_that_fails_is_no_success(store, monkeypatch):
    await store.put("name", b"x")
    fail_with(monkeypatch, "fsync", errno.EIO)
    for call in (
        store.put("name", b"y"),
        store.put_if_absent("new", b"y", b"y"),
        store.put_if_match("name", b"y", (await store.head("name")).version, b"y"),
        store.delete("name"),
    ):
        with pytest.raises(ObjectStoreError, match="in trouble"):
            await call


@pytest.mark.parametrize("kind", ["put", "put_if_absent", "put_if_match"])
async def test_data_then_name_then_directory(store, root, monkeypatch, kind):
    await store.put("dir/name", b"x")
    version = (await store.head("dir/name")).version
    events = []

    def record(function, label):
        real = getattr(os, function)

        def recorded(*arguments, **places):
            events.append(label(*arguments))
            return real(*arguments, **places)

        monkeypatch.setattr(os, function, recorded)

    record("fsync", lambda descriptor: f"flush {Path(os.readlink(f'/proc/self/fd/{descriptor}')).parent.name}")
    record("link", lambda source, target: "publish")
    record("rename", lambda source, target: "publish")
    calls = {
        "put": lambda: store.put("dir/name", b"y"),
        "put_if_absent": lambda: store.put_if_absent("dir/other", b"y", b"y"),
        "put_if_match": lambda: store.put_if_match("dir/name", b"y", version, b"y"),
    }
    await calls[kind]()
    # The scratch file lies in the hidden directory, the directory itself in the root.
    assert events == [f"flush {durable.SCRATCH}", "publish", f"flush {root.name}"]
    events.clear()
    await store.delete("dir/name")
    assert events == [f"flush {root.name}"]


async def test_a_lost_create_flushes_what_won(store, monkeypatch):
    """Its maker may have died before flushing, and our caller will act upon its existence."""
    await store.put_if_absent("dir/name", b"x", b"x")
    flushed = []
    monkeypatch.setattr(durable, "fsync_directory", flushed.append)
    with pytest.raises(PreconditionFailedError):
        await store.put_if_absent("dir/name", b"y", b"y")
    assert [path.name for path in flushed] == ["dir"]


async def test_a_name_cannot_be_object_and_directory(store):
    await store.put("a/b", b"x")
    for call in (
        store.put("a", b"y"),
        store.put_if_absent("a", b"y", b"y"),
        store.put("a/b/c", b"y"),
        store.put_if_absent("a/b/c", b"y", b"y"),
    ):
        with pytest.raises(ObjectStoreError, match="in the way") as caught:
            await call
        assert type(caught.value) is ObjectStoreError
