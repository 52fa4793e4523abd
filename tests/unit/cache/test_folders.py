"""Cache folders that nobody uses any more go after a month; everything else stays."""

import fcntl
import os

import pytest
import trio

from zerofs.cache.disk import DiskCache
from zerofs.cache.folders import LOCK_NAME, UNUSED_NS, remove_unused, take_lock
from zerofs.testing.world import SimWorld
from zerofs.units import MIB

NOW_NS = 2_000_000_000 * 10**9


def cache_folder(parent, name, *, age_ns, files=("000000000001.cache", "000000000001.cache-log", "record")):
    folder = parent / name
    folder.mkdir()
    for file in (LOCK_NAME, *files):
        (folder / file).write_bytes(b"" if file == LOCK_NAME else b"x")
        os.utime(folder / file, ns=(NOW_NS - age_ns, NOW_NS - age_ns))
    return folder


def test_only_those_that_were_not_used_for_a_month_are_deleted(tmp_path):
    cache_folder(tmp_path, "0123abcd", age_ns=UNUSED_NS + 1)
    cache_folder(tmp_path, "0123abcd-ro", age_ns=UNUSED_NS + 1)
    young = cache_folder(tmp_path, "fedc0000", age_ns=UNUSED_NS)
    ahead = cache_folder(tmp_path, "fedc0001", age_ns=-UNUSED_NS)
    assert remove_unused(tmp_path, NOW_NS) == ["0123abcd", "0123abcd-ro"]
    assert sorted(tmp_path.iterdir()) == [young, ahead]
    assert len(list(young.iterdir())) == 4


def test_what_somebody_uses_stays_however_old(tmp_path):
    folder = cache_folder(tmp_path, "0123abcd", age_ns=UNUSED_NS * 2)
    with open(folder / LOCK_NAME) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_unused(tmp_path, NOW_NS) == []
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("name", ["0123abc", "0123abcde", "0123ABCD", "0123abcd-rw", "photos"])
def test_a_folder_of_another_name_stays(tmp_path, name):
    folder = cache_folder(tmp_path, name, age_ns=UNUSED_NS * 2)
    assert remove_unused(tmp_path, NOW_NS) == []
    assert len(list(folder.iterdir())) == 4


def test_a_folder_without_our_lock_stays(tmp_path):
    folder = cache_folder(tmp_path, "0123abcd", age_ns=UNUSED_NS * 2)
    (folder / LOCK_NAME).unlink()
    assert remove_unused(tmp_path, NOW_NS) == []
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("foreign", ["thesis.odt", "directory", "link", "full lock"])
def test_a_folder_with_anything_that_is_not_ours_stays_as_it_is(tmp_path, foreign):
    parent = tmp_path / "caches"
    parent.mkdir()
    folder = cache_folder(parent, "0123abcd", age_ns=UNUSED_NS * 2)
    if foreign == "thesis.odt":
        (folder / "thesis.odt").write_bytes(b"all of it")
    elif foreign == "directory":
        (folder / "000000000002.cache").mkdir()
    elif foreign == "link":
        (tmp_path / "target").write_bytes(b"elsewhere")
        (folder / "000000000002.cache").symlink_to(tmp_path / "target")
    else:
        (folder / LOCK_NAME).write_bytes(b"12345")
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1), follow_symlinks=False)
    before = sorted(folder.iterdir())
    assert remove_unused(parent, NOW_NS) == []
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("young", ["record", "000000000001.cache", LOCK_NAME])
def test_any_young_file_keeps_a_folder(tmp_path, young):
    """Versions before this one did not touch the lock, and a mount that was killed has written files, no more."""
    folder = cache_folder(tmp_path, "0123abcd", age_ns=UNUSED_NS * 2)
    os.utime(folder / young, ns=(NOW_NS, NOW_NS))
    assert remove_unused(tmp_path, NOW_NS) == []
    assert len(list(folder.iterdir())) == 4


def test_whoever_opened_the_lock_of_a_folder_that_is_deleted_takes_a_new_one(tmp_path, monkeypatch):
    folder = cache_folder(tmp_path, "0123abcd", age_ns=UNUSED_NS * 2)
    real, taken = fcntl.flock, []

    def flock(descriptor, operation):
        if not taken:
            taken.append(descriptor)
            assert remove_unused(tmp_path, NOW_NS) == ["0123abcd"]
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    descriptor = take_lock(folder)
    assert os.path.samestat(os.fstat(descriptor), os.stat(folder / LOCK_NAME))
    monkeypatch.undo()
    with pytest.raises(BlockingIOError):
        take_lock(folder)
    os.close(descriptor)
    os.close(take_lock(folder))


def test_links_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    target = cache_folder(outside, "0123abcd", age_ns=UNUSED_NS * 2)
    parent = tmp_path / "caches"
    parent.mkdir()
    (parent / "0123abcd").symlink_to(target)
    assert remove_unused(parent, NOW_NS) == []
    assert len(list(target.iterdir())) == 4


async def test_a_cache_that_opens_deletes_them_and_notes_its_own_use(tmp_path, autojump_clock):
    world = SimWorld()
    old = cache_folder(tmp_path, "0123abcd", age_ns=NOW_NS)
    cache = DiskCache(tmp_path / "fedc0000", 8 * MIB, world)
    assert cache.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        await trio.sleep(1)
        assert not old.exists()
        nursery.cancel_scope.cancel()
    cache.close()
    assert (tmp_path / "fedc0000" / LOCK_NAME).stat().st_mtime_ns == world.now_ns()
