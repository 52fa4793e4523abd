"""The disk cache: keeps what it is given, within its budget, for one owner, and never matters when it fails."""

import os
import sys
import threading

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from zerofs.cache import disk
from zerofs.cache import segment as segment_module
from zerofs.cache.disk import DiskCache, key_of_nonce, key_of_place
from zerofs.cache.segment import Index, Segment, paths_of
from zerofs.crypto.aead import nonces
from zerofs.pagecache import INLINE_READ_BYTES
from zerofs.testing.world import SimWorld
from zerofs.units import MIB
from zerofs.world import World

ABSENT = 4_999
"""A key that nothing was put under."""


async def _written(cache, nursery) -> None:
    nursery.start_soon(cache.run)
    while cache._queue or cache._writing:
        await trio.sleep(0.001)


def frame(number: int, size: int = 32_000) -> bytes:
    return number.to_bytes(4) * (size // 4)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


async def test_what_was_put_is_found_also_by_the_next_owner(folder, autojump_clock):
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        for number in range(50):
            cache.put(number, frame(number))
        assert await cache.get_many([7]) == [frame(7)]
        await _written(cache, nursery)
        assert await cache.get_many([7, ABSENT, 9]) == [frame(7), None, frame(9)]
        nursery.cancel_scope.cancel()
    cache.close()
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    assert await cache.get_many([49]) == [frame(49)]
    cache.close()


async def filled(folder, numbers, limit_bytes=64 * MIB):
    """A closed cache that holds these frames."""
    cache = DiskCache(folder, limit_bytes, SimWorld())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        for number in numbers:
            cache.put(number, frame(number))
            while cache._queued_bytes > MIB:
                await trio.sleep(0.001)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    cache.close()


async def found(folder, number):
    """What the next owner finds."""
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    (value,) = await cache.get_many([number])
    cache.close()
    return value


async def test_a_damaged_entry_goes_with_its_file(folder, autojump_clock):
    await filled(folder, range(200), 16 * MIB)
    cache = DiskCache(folder, 16 * MIB, SimWorld())
    assert cache.open()
    files = cache.statistics()["files"]
    assert files > 2
    await cache.discard(60)
    await cache.discard(ABSENT)
    assert await cache.get_many([60, 199]) == [None, frame(199)]
    assert cache.statistics()["files"] == len(list(folder.glob("*.frames"))) == files - 1
    async with trio.open_nursery() as nursery:
        cache.put(60, frame(60))
        await _written(cache, nursery)
        await cache.discard(60)
        cache.put(60, frame(60))
        await cache.discard(60)
        cache.put(61, frame(61))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert await cache.get_many([60, 61]) == [None, frame(61)]
    cache.close()
    assert await found(folder, 61) == frame(61)


async def test_the_budget_is_kept_by_dropping_the_oldest_file(folder, autojump_clock):
    cache = DiskCache(folder, 8 * MIB, SimWorld())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        for number in range(1000):
            cache.put(number, frame(number))
            while cache._queued_bytes > MIB:
                await trio.sleep(0.001)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert cache.statistics()["evicted_files"] > 0
    assert (await cache.get_many([0]))[0] is None
    assert (await cache.get_many([999]))[0] == frame(999)
    on_disk = sum(path.stat().st_size for path in folder.glob("*.frames"))
    assert on_disk < 16 * MIB
    cache.close()


async def test_a_second_owner_goes_without(folder, caplog):
    first, second = DiskCache(folder, 8 * MIB, SimWorld()), DiskCache(folder, 8 * MIB, SimWorld())
    assert first.open()
    assert not second.open()
    assert "another process" in caplog.text
    second.put(5_004, b"v")
    assert await second.get_many([5_004]) == [None]
    first.close()
    assert second.open()
    second.close()


def cut(path):
    os.truncate(path, path.stat().st_size // 3)


def empty(path):
    os.truncate(path, 0)


def grow(path):
    with path.open("ab") as file:
        file.write(b"x" * 7)


def no_file(path):
    path.unlink()
    path.mkdir()


def link(path):
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def gone(path):
    path.unlink()


def nonsense(path):
    path.write_bytes(os.urandom(path.stat().st_size))


@pytest.mark.parametrize("suffix", ["frames", "index"])
@pytest.mark.parametrize("damage", [cut, empty, grow, no_file, link, gone, nonsense])
async def test_damaged_files_give_nothing_or_what_was_there(folder, autojump_clock, suffix, damage):
    """Other bytes of the right length may come too: whoever asked opens them."""
    await filled(folder, range(50))
    (path,) = folder.glob(f"*.{suffix}")
    damage(path)
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    for number, value in enumerate(await cache.get_many(list(range(50)))):
        assert value is None or len(value) == len(frame(number))
        if damage in (empty, no_file, link, gone) or (damage, suffix) == (nonsense, "index"):
            assert value is None
        elif damage is grow or (damage is cut and number < 10):
            assert value == frame(number)
        elif damage is cut and number > 40:
            assert value is None
    async with trio.open_nursery() as nursery:
        cache.put(7, frame(7))
        cache.put(5_000, frame(99))
        await _written(cache, nursery)
        nursery.cancel_scope.cancel()
    assert await cache.get_many([7, 5_000]) == [frame(7), frame(99)]
    cache.close()
    assert await found(folder, 7) == frame(7)


@pytest.mark.parametrize("share", [0, 30])
async def test_an_open_file_that_is_cut_short_gives_nothing(folder, autojump_clock, share):
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        for number in range(50):
            cache.put(number, frame(number))
        await _written(cache, nursery)
        (path,) = folder.glob("*.frames")
        os.truncate(path, path.stat().st_size * share // 100)
        assert await cache.get_many([49]) == [None]
        nursery.cancel_scope.cancel()
    cache.close()


async def test_what_a_killed_owner_wrote_is_found(folder, autojump_clock):
    killed = """
import os, sys
from pathlib import Path
import trio
from zerofs.cache.disk import DiskCache, key_of_nonce, key_of_place
from zerofs.world import World

async def main():
    cache = DiskCache(Path(sys.argv[1]), 2**26, World())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        for number in range(50):
            cache.put(number, number.to_bytes(4) * 8000)
        while cache._queue or cache._writing:
            await trio.sleep(0.01)
        os._exit(9)

trio.run(main)
"""
    done = await trio.run_process([sys.executable, "-c", killed, str(folder)], check=False)
    assert done.returncode == 9
    assert await found(folder, 7) == frame(7)


async def test_files_of_earlier_versions_are_deleted(folder, autojump_clock):
    folder.mkdir(mode=0o700)
    for name in ("record", "000000000001.cache", "000000000001.cache-log", "000000000002.index"):
        (folder / name).write_bytes(b"whatever")
    (folder / "something else").write_bytes(b"stays")
    await filled(folder, range(3))
    assert {path.name for path in folder.iterdir()} == {
        *("lock", "something else", "000000000001.frames", "000000000001.index")
    }


async def test_readers_keep_a_file_that_is_evicted_under_them(folder, autojump_clock):
    await filled(folder, range(50))
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    (segment,) = cache._ring
    place = segment.index.find(7)
    segment.hold()
    await cache.discard(9)
    assert not list(folder.glob("*.frames"))
    assert segment.read([place]) == [frame(7)]
    segment.let_go()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(segment._frames)
    cache.close()


async def test_the_ring_may_turn_while_segments_are_read(folder, monkeypatch):
    """Descriptors that are closed while somebody waits for his turn would be those of the next files."""
    numbers = range(300)
    await filled(folder, numbers, 8 * MIB)
    cache = DiskCache(folder, 8 * MIB, World())
    assert cache.open()
    oldest, newest = cache._ring[0], cache._ring[-1]
    keys = [next(number for number in reversed(numbers) if segment.index.find(number)) for segment in (newest, oldest)]
    read, may_read, is_reading = Segment.read, threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def slowly(self, places):
        if self is newest:
            token.run_sync_soon(is_reading.set)
            may_read.wait(10)
        return read(self, places)

    monkeypatch.setattr(Segment, "read", slowly)
    monkeypatch.setattr(Segment, "read_cached", lambda self, places: None)  # as if the page cache had dropped them
    got = []

    async def get():
        got.extend(await cache.get_many(keys))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await is_reading.wait()
        await cache._drop(oldest)
        await cache._turn_ring()
        theirs = os.open(folder / "somebody else's", os.O_RDWR | os.O_CREAT)
        may_read.set()
        while not got:
            await trio.sleep(0.01)
        assert all(frame is not None for frame in got)
        os.fstat(theirs)
        for segment in cache._ring:
            assert os.fstat(segment._frames).st_ino == os.stat(paths_of(folder, segment.number)[0]).st_ino
        nursery.start_soon(cache.run)
        cache.put(5_001, frame(1))
        while cache._queue or cache._writing:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert await cache.get_many([5_001]) == [frame(1)]
    assert os.fstat(theirs).st_size == 0
    os.close(theirs)
    cache.close()


async def test_a_disk_that_fails_at_closing_costs_the_cache(folder, autojump_clock, monkeypatch):
    await filled(folder, range(50))
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    close, segment = os.close, cache._ring[0]

    def failing(descriptor):
        close(descriptor)
        if descriptor in descriptors:
            raise OSError(5, "Input/output error")

    descriptors = {segment._frames, segment._index_file}
    monkeypatch.setattr(os, "close", failing)
    await cache.discard(7)
    assert await cache.get_many([7]) == [None]
    cache.close()


async def test_a_smaller_budget_is_kept(folder, autojump_clock, monkeypatch):
    await filled(folder, range(1500), 64 * MIB)
    monkeypatch.setattr(disk, "FRAME_MAX_BYTES", 32_000)
    cache = DiskCache(folder, 16 * MIB, SimWorld())
    assert cache.open()
    assert 0 < cache.statistics()["bytes"] <= 17 * MIB
    cache.close()
    assert sum(path.stat().st_size for path in folder.glob("*.frames")) <= 17 * MIB


async def test_what_is_discarded_while_it_is_written_is_not_found(folder, monkeypatch):
    cache = DiskCache(folder, 64 * MIB, World())
    assert cache.open()
    write, may_write, is_writing = Segment.write, threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def slowly(self, frames):
        token.run_sync_soon(is_writing.set)
        may_write.wait(10)
        return write(self, frames)

    monkeypatch.setattr(Segment, "write", slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        cache.put(5_002, frame(1))
        cache.put(5_003, frame(2))
        await is_writing.wait()
        await cache.discard(5_003)
        may_write.set()
        while cache._writing:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert await cache.get_many([5_002, 5_003]) == [frame(1), None]
    cache.close()


async def test_what_is_put_again_replaces_what_was_there(folder, autojump_clock):
    await filled(folder, range(50))
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    assert cache.has(7)
    assert not cache.has(ABSENT)
    async with trio.open_nursery() as nursery:
        cache.put(7, frame(1007))
        cache.put(ABSENT, frame(1))
        assert cache.has(ABSENT)
        await _written(cache, nursery)
        nursery.cancel_scope.cancel()
    assert await cache.get_many([7]) == [frame(1007)]
    cache.close()
    assert await found(folder, 7) == frame(1007)


async def test_many_small_frames_turn_the_ring_too(folder, autojump_clock, monkeypatch):
    monkeypatch.setattr(disk, "ENTRIES_MAX", 10)
    await filled(folder, range(25))
    assert len(list(folder.glob("*.frames"))) == 3
    assert await found(folder, 0) == frame(0)
    assert await found(folder, 24) == frame(24)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2**40), st.integers(1, 2**20)), max_size=20), max_size=5
    )
)
def test_an_index_knows_the_last_place_of_each_key(batches):
    index, expected = Index(), {}
    for batch in batches:
        index.add(batch)
        expected.update((key, (offset, length)) for key, offset, length in batch)
        assert {key: index.find(key) for key in expected} == expected
        index = index.frozen()
        assert {key: index.find(key) for key in expected} == expected
        assert index.find(21) is None


async def test_a_folder_that_vanishes_costs_only_the_cache(folder, autojump_clock, caplog):
    cache = DiskCache(folder, 8 * MIB, SimWorld())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        cache.put(1, frame(1))
        await trio.sleep(1)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        assert await cache.get_many([1]) == [frame(1)], "the open files are still ours"
        for number in range(100):
            cache.put(number, frame(number))
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert "going on without it" in caplog.text
    assert await cache.get_many([1]) == [None]
    cache.close()


async def test_a_failing_disk_ends_the_cache_not_the_request(folder, autojump_clock, monkeypatch, caplog):
    cache = DiskCache(folder, 8 * MIB, SimWorld())
    assert cache.open()

    def full(self, batch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Segment, "write", full)
    async with trio.open_nursery() as nursery:
        cache.put(5_004, b"v")
        nursery.start_soon(cache.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert "going on without it" in caplog.text
    cache.put(5_004, b"v")
    assert await cache.get_many([5_004]) == [None]


async def test_a_full_disk_costs_nothing_that_was_there(folder, autojump_clock, monkeypatch):
    await filled(folder, range(200), 16 * MIB)

    def full(self, batch):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "write", full)
        await filled(folder, [1000], 16 * MIB)
    assert await found(folder, 60) == frame(60)


def test_keys_of_nonces_that_are_sealed_together_differ():
    together = nonces(bytes(range(24)), 5000)
    assert len({key_of_nonce(together[at : at + 24]) for at in range(0, len(together), 24)}) == 5000


def test_keys_of_places_are_those_that_were_written_before():
    """They stand in the files: other ones would never be found again."""
    assert key_of_place("compacted/0000000001-0000000000000001.sst", 64) == 0x757F39A536532A67
    assert key_of_nonce(bytes(range(24))) == 0x1818181818181818


async def test_what_the_page_cache_holds_is_read_without_a_thread(folder, autojump_clock, monkeypatch):
    await filled(folder, range(100), 64 * MIB)
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    monkeypatch.setattr(Segment, "read", None)
    assert await cache.get_many([7, ABSENT, 9]) == [frame(7), None, frame(9)]
    cache.close()


async def test_what_it_does_not_hold_and_what_is_much_is_read_in_a_thread(folder, autojump_clock, monkeypatch):
    await filled(folder, range(100), 64 * MIB)
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    read, asked = Segment.read, []
    monkeypatch.setattr(Segment, "read", lambda self, places: asked.append(len(places)) or read(self, places))
    much = INLINE_READ_BYTES // len(frame(0)) + 1
    assert await cache.get_many(list(range(much))) == [frame(number) for number in range(much)]
    monkeypatch.setattr(segment_module, "read_cached", lambda *_: None)
    assert await cache.get_many([7, 9]) == [frame(7), frame(9)]
    assert asked == [much, 2]
    cache.close()
