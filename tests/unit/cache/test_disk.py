"""The disk cache: keeps what it is given, within its budget, for one owner, and never matters when it fails."""

import os
import subprocess
import sys

import pytest
import trio

from zerofs.cache import ringfile
from zerofs.cache.disk import DiskCache
from zerofs.testing.world import SimWorld
from zerofs.units import MIB


async def _written(cache, nursery) -> None:
    nursery.start_soon(cache.run)
    while cache._queue:
        await trio.sleep(0.001)
    async with cache._access:
        pass


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
            cache.put(b"k%d" % number, frame(number))
        assert await cache.get_many([b"k7"]) == [frame(7)]
        await _written(cache, nursery)
        assert await cache.get_many([b"k7", b"none", b"k9"]) == [frame(7), None, frame(9)]
        nursery.cancel_scope.cancel()
    cache.close()
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    assert await cache.get_many([b"k49"]) == [frame(49)]
    cache.close()


async def filled(folder, numbers, limit_bytes=64 * MIB):
    """A closed cache that holds these frames."""
    cache = DiskCache(folder, limit_bytes, SimWorld())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        for number in numbers:
            cache.put(b"k%d" % number, frame(number))
            while cache._queued_bytes > MIB:
                await trio.sleep(0.001)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    cache.close()


async def found(folder, number):
    """What the next owner finds."""
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    (value,) = await cache.get_many([b"k%d" % number])
    cache.close()
    return value


async def test_a_damaged_entry_goes_with_its_file(folder, autojump_clock):
    await filled(folder, range(200), 16 * MIB)
    cache = DiskCache(folder, 16 * MIB, SimWorld())
    assert cache.open()
    files = cache.statistics()["files"]
    assert files > 2
    await cache.discard(b"k60")
    await cache.discard(b"none")
    assert await cache.get_many([b"k60", b"k199"]) == [None, frame(199)]
    assert cache.statistics()["files"] == len(list(folder.glob("*.cache"))) == files - 1
    async with trio.open_nursery() as nursery:
        cache.put(b"k60", frame(60))
        await _written(cache, nursery)
        await cache.discard(b"k60")
        cache.put(b"k60", frame(60))
        await cache.discard(b"k60")
        cache.put(b"k61", frame(61))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert await cache.get_many([b"k60", b"k61"]) == [None, frame(61)]
    cache.close()
    assert await found(folder, 61) == frame(61)


async def test_the_budget_is_kept_by_dropping_the_oldest_file(folder, autojump_clock):
    cache = DiskCache(folder, 8 * MIB, SimWorld())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        for number in range(1000):
            cache.put(b"k%d" % number, frame(number))
            while cache._queued_bytes > MIB:
                await trio.sleep(0.001)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert cache.statistics()["evicted_files"] > 0
    assert (await cache.get_many([b"k0"]))[0] is None
    assert (await cache.get_many([b"k999"]))[0] == frame(999)
    on_disk = sum(path.stat().st_size for path in folder.glob("*.cache"))
    assert on_disk < 16 * MIB
    cache.close()


async def test_a_second_owner_goes_without(folder, caplog):
    first, second = DiskCache(folder, 8 * MIB, SimWorld()), DiskCache(folder, 8 * MIB, SimWorld())
    assert first.open()
    assert not second.open()
    assert "another process" in caplog.text
    second.put(b"k", b"v")
    assert await second.get_many([b"k"]) == [None]
    first.close()
    assert second.open()
    second.close()


def cut(path):
    os.truncate(path, path.stat().st_size // 3)


def flip(path):
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def empty(path):
    os.truncate(path, 0)


def grow(path):
    with path.open("ab") as file:
        file.write(b"x")


def no_file(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, flip, empty, grow, no_file])
async def test_a_file_that_somebody_touched_is_not_looked_at(folder, autojump_clock, damage):
    await filled(folder, range(50))
    assert await found(folder, 7) == frame(7)
    (path,) = folder.glob("*.cache")
    damage(path)
    assert await found(folder, 7) is None
    assert not path.is_file()


DIES = """
import os, sys
from pathlib import Path
import trio
from zerofs.cache.disk import DiskCache
from zerofs.testing.world import SimWorld

def cut():
    for path in folder.glob("*.cache"):
        os.truncate(path, path.stat().st_size * share // 100)

async def fill(cache, first, count):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        for number in range(first, first + count):
            cache.put(b"k%d" % number, os.urandom(32_000))
            while cache._queued_bytes > 1_000_000:
                await trio.sleep(0.001)
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()

async def main():
    cache = DiskCache(folder, 256_000_000, SimWorld())
    cache.open()
    await fill(cache, 0, 600)
    if when == "closed":
        cache.close()
        cut()
        cache = DiskCache(folder, 256_000_000, SimWorld())
        cache.open()
    else:
        cut()
    if when != "closing":
        await cache.get_many([b"k%d" % number for number in range(0, 600, 7)])
        await fill(cache, 1000, 300)
        assert (await cache.get_many([b"k1299"]))[0]
    cache.close()
    cache = DiskCache(folder, 256_000_000, SimWorld())
    assert cache.open()
    await fill(cache, 2000, 50)
    assert (await cache.get_many([b"k2049"]))[0]
    cache.close()

folder, when, share = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
trio.run(main)
"""


@pytest.mark.parametrize("when", ["closed", "open", "closing"])
@pytest.mark.parametrize("share", [0, 30])
def test_a_file_cut_short_ends_no_process(folder, when, share):
    done = subprocess.run(
        [sys.executable, "-c", DIES, folder, when, str(share)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


async def test_a_killed_owner_leaves_nothing_to_trust(folder, autojump_clock):
    await filled(folder, range(50))
    (path,) = folder.glob("*.cache")
    killed = "import os, sys; from pathlib import Path; from zerofs.cache.disk import DiskCache; "
    killed += "from zerofs.world import World; "
    killed += "print(DiskCache(Path(sys.argv[1]), 2**26, World()).open(), flush=True); os._exit(9)"
    done = await trio.run_process([sys.executable, "-c", killed, str(folder)], capture_stdout=True, check=False)
    assert (done.returncode, done.stdout) == (9, b"True\n")
    assert path.exists()
    assert await found(folder, 7) is None
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "nonsense\n", "../lock 1 2 3\n", "000000000001.cache 1 2\n", "\0" * 100_000])
async def test_a_record_that_is_none(folder, autojump_clock, text):
    await filled(folder, range(50))
    (folder / "record").write_text(text)
    assert await found(folder, 7) is None


async def test_a_record_that_is_no_file(folder, autojump_clock, caplog):
    await filled(folder, range(50))
    record = folder / "record"
    record.unlink()
    os.mkfifo(record)
    assert await found(folder, 7) is None
    record.unlink()
    record.symlink_to("lock")
    assert await found(folder, 7) is None
    record.unlink()
    record.mkdir()
    assert not DiskCache(folder, 64 * MIB, SimWorld()).open()
    assert f"no disk cache in {folder}: Is a directory" in caplog.text


async def test_a_folder_that_vanishes_costs_only_the_cache(folder, autojump_clock, caplog):
    cache = DiskCache(folder, 8 * MIB, SimWorld())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        cache.put(b"k1", frame(1))
        await trio.sleep(1)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        assert await cache.get_many([b"k1"]) == [None]
        cache.put(b"k2", frame(2))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert "was changed by somebody else" in caplog.text
    assert "going on without it" in caplog.text
    cache.close()


async def test_a_failing_disk_ends_the_cache_not_the_request(folder, autojump_clock, monkeypatch, caplog):
    cache = DiskCache(folder, 8 * MIB, SimWorld())
    assert cache.open()

    def full(self, batch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ringfile.RingFile, "write", full)
    async with trio.open_nursery() as nursery:
        cache.put(b"k", b"v")
        nursery.start_soon(cache.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert "going on without it" in caplog.text
    cache.put(b"k", b"v")
    assert await cache.get_many([b"k"]) == [None]


async def test_a_full_disk_costs_the_newest_file_only(folder, autojump_clock, monkeypatch):
    await filled(folder, range(200), 16 * MIB)
    files = len(list(folder.glob("*.cache")))

    def full(self, batch):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ringfile.RingFile, "write", lambda self, batch: (self.abandon(), full(self, batch)))
        await filled(folder, [1000], 16 * MIB)
    assert await found(folder, 60) == frame(60)
    assert len(list(folder.glob("*.cache"))) == files - 1


async def test_memory_that_was_freed_does_not_end_up_in_the_files(folder, autojump_clock):
    secret = b"what this process once knew and freed"
    freed = [secret * (size // len(secret)) for size in (600, 4_000, 33_000, 70_000) for _ in range(200)]
    del freed
    cache = DiskCache(folder, 64 * MIB, SimWorld())
    assert cache.open()
    async with trio.open_nursery() as nursery:
        for number in range(40):
            cache.put(b"k%d" % number, frame(number, 700 * (number + 1)))
        await _written(cache, nursery)
        nursery.cancel_scope.cancel()
    cache.close()
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    assert len(stored) > 100_000
    assert not [start for start in range(len(secret)) if (secret * 2)[start : start + 16] in stored]


async def test_without_an_allocator_that_clears_memory_there_is_no_cache(folder, monkeypatch, caplog):
    monkeypatch.setattr(ringfile, "_M_PERTURB", 12345)  # an option that this C library does not know
    assert not DiskCache(folder, 64 * MIB, SimWorld()).open()
    assert "does not clear memory" in caplog.text
    assert not folder.exists()
