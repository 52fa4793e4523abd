import errno
import fcntl
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.errors import StoreUnsuitableError
from zerofs.objectstore import durable


@pytest.fixture
def root(tmp_path):
    durable.make_root(tmp_path / "store")
    return tmp_path / "store"


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def scratch(root):
    return [entry.name for entry in (root / durable.SCRATCH).iterdir()]


# --- writing


@given(pieces=st.lists(st.binary(max_size=9), max_size=30), takes=st.lists(st.integers(1, 25), min_size=1, max_size=9))
def test_short_writes_lose_and_double_nothing(pieces, takes):
    written = bytearray()
    turn = iter(takes * 1000)

    def writev(descriptor, buffers):
        taken = b"".join(buffers)[: next(turn)]
        written.extend(taken)
        return len(taken)

    durable.write_all(0, pieces, writev)
    assert written == b"".join(pieces)


def test_more_pieces_than_one_call_takes(tmp_path):
    pieces = [b"%d," % number for number in range(5000)]
    with (tmp_path / "file").open("wb") as file:
        durable.write_all(file.fileno(), pieces)
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


def test_pieces_are_bytes_whatever_their_type(tmp_path):
    wide = memoryview(bytearray(b"12345678")).cast("I")
    with (tmp_path / "file").open("wb") as file:
        durable.write_all(file.fileno(), [wide, bytearray(b"x"), b""])
    assert (tmp_path / "file").read_bytes() == b"12345678x"


@pytest.mark.parametrize(
    "sizes",
    [[0], [durable.WRITE_BYTES], [durable.WRITE_BYTES + 1], [48, *[32813] * 100, 5], [7, durable.WRITE_BYTES * 2 + 17]],
    ids=lambda sizes: f"{len(sizes)}-pieces-{sum(sizes)}-bytes",
)
def test_no_call_is_given_more_than_the_kernel_takes_cheaply(tmp_path, sizes):
    pieces, given_sizes = [os.urandom(size) for size in sizes], []

    def writev(descriptor, buffers):
        given_sizes.append(sum(map(len, buffers)))
        return os.writev(descriptor, buffers)

    with (tmp_path / "file").open("wb") as file:
        durable.write_all(file.fileno(), pieces, writev)
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
    assert all(size <= durable.WRITE_BYTES for size in given_sizes)


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(root, monkeypatch):
    def write_all(descriptor, pieces):
        os.write(descriptor, bytes(4096))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "write_all", write_all)
    with pytest.raises(OSError, match="No space left"), durable.stage(root, [bytes(5 << 20)], "unique", 0):
        pass
    assert scratch(root) == []


# --- directories


def test_directories_are_private_and_made_as_needed(tmp_path):
    root = tmp_path / "a" / "b"
    durable.make_root(root)
    durable.make_directories(root / "c" / "d", within=root)
    for path in (tmp_path / "a", root, root / durable.SCRATCH, root / "c", root / "c" / "d"):
        assert mode(path) == 0o700
    durable.make_root(root)
    durable.make_directories(root / "c" / "d", within=root)


def test_each_new_entry_is_flushed_in_its_directory(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(durable, "fsync_directory", flushed.append)
    durable.make_directories(tmp_path / "a" / "b", within=tmp_path)
    assert flushed == [tmp_path, tmp_path / "a"]


def test_a_file_in_the_way_of_a_directory_is_named(root):
    (root / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="file"):
        durable.make_directories(root / "file" / "below", within=root)


# --- staging and publishing


def test_a_staged_file_is_flushed_before_it_is_seen(root, monkeypatch):
    events = []
    real_fsync, real_link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), real_fsync(descriptor))[1])
    monkeypatch.setattr(
        os, "link", lambda source, target, **places: (events.append("link"), real_link(source, target, **places))[1]
    )
    with durable.stage(root, [b"one", b"two"], "u", 5_000_000_007) as staged:
        assert not (root / "name").exists()
        staged.link_to(root / "name")
    assert events == ["fsync", "link"]
    assert (root / "name").read_bytes() == b"onetwo"
    assert (root / "name").stat().st_mtime_ns == 5_000_000_007
    assert mode(root / "name") == 0o600
    assert (root / "name").stat().st_nlink == 1
    assert scratch(root) == []


def test_a_staged_file_disappears_unless_published(root):
    with pytest.raises(RuntimeError), durable.stage(root, [b"x"], "u", 0):
        raise RuntimeError
    with durable.stage(root, [b"x"], "u", 0):
        assert len(scratch(root)) == 1
    assert scratch(root) == []


def test_a_taken_name_is_refused(root):
    (root / "name").write_bytes(b"old")
    with durable.stage(root, [b"new"], "u", 0) as staged, pytest.raises(FileExistsError):
        staged.link_to(root / "name")
    assert (root / "name").read_bytes() == b"old"


def test_a_link_that_succeeded_twice_is_ours(root, monkeypatch):
    """What a network filesystem does when the reply to link() is lost and the request repeated."""
    real_link = os.link

    def link_twice(source, target, **places):
        real_link(source, target, **places)
        real_link(source, target, **places)

    monkeypatch.setattr(os, "link", link_twice)
    with durable.stage(root, [b"x"], "u", 0) as staged:
        staged.link_to(root / "name")
    assert (root / "name").read_bytes() == b"x"


def test_a_filesystem_without_links_is_unsuitable(root, monkeypatch):
    def refuse(source, target, **places):
        raise OSError(errno.EOPNOTSUPP, "no links")

    monkeypatch.setattr(os, "link", refuse)
    with durable.stage(root, [b"x"], "u", 0) as staged, pytest.raises(StoreUnsuitableError, match="no hard links"):
        staged.link_to(root / "name")


# --- leftovers


def test_leftovers_of_dead_writers_are_removed_and_files_in_the_making_are_not(root):
    (root / durable.SCRATCH / "new-dead").write_bytes(b"half of")
    (root / durable.SCRATCH / "lock").write_bytes(b"")
    with durable.stage(root, [b"x"], "alive", 0) as staged:
        assert durable.remove_leftovers(root) == 1
        assert sorted(scratch(root)) == ["lock", "new-alive"]
        staged.link_to(root / "name")
    assert (root / "name").read_bytes() == b"x"
    assert durable.remove_leftovers(root) == 0


def test_nothing_to_clean_up_in_a_store_that_was_never_written(tmp_path):
    assert durable.remove_leftovers(tmp_path / "absent") == 0


def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked_is_made_again(root, monkeypatch):
    real_flock = fcntl.flock
    cleanings = [True]

    def flock(descriptor, operation):
        if cleanings and operation == fcntl.LOCK_EX:
            cleanings.clear()
            assert durable.remove_leftovers(root) == 1
        real_flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with durable.stage(root, [b"x"], "u", 0) as staged:
        staged.link_to(root / "name")
    assert (root / "name").read_bytes() == b"x"


def test_the_lock_excludes(root):
    path = root / durable.SCRATCH / durable.LOCK_NAME
    with durable.exclusive(root), path.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
