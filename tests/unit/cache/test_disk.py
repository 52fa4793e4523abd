"""The disk cache: keeps what it is given, within its budget, for one owner, and never matters when it fails."""

import os

import pytest
import trio

from zerofs.cache import disk
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
    await cache.discard(b"k49")
    assert await cache.get_many([b"k49"]) == [None]
    cache.close()


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


async def test_a_torn_file_and_a_power_loss_cost_only_the_cache(folder, monkeypatch, tmp_path):
    folder.mkdir()
    (folder / "000000000001.cache").write_bytes(os.urandom(100_000))
    cache = DiskCache(folder, 8 * MIB, SimWorld())
    assert cache.open()
    assert await cache.get_many([b"k"]) == [None]
    other_boot = tmp_path / "boot_id"
    other_boot.write_text("another boot\n")
    # The process dies: the lock goes with it, the boot id stays in the lock file.
    os.close(cache._lock_fd)
    monkeypatch.setattr(disk, "BOOT_ID", other_boot)
    successor = DiskCache(folder, 8 * MIB, SimWorld())
    assert successor.open()
    assert list(folder.glob("*.cache")) == []
    successor.close()


async def test_a_failing_disk_ends_the_cache_not_the_request(folder, autojump_clock, monkeypatch, caplog):
    cache = DiskCache(folder, 8 * MIB, SimWorld())
    assert cache.open()

    def full(self, batch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk._RingFile, "write", full)
    async with trio.open_nursery() as nursery:
        cache.put(b"k", b"v")
        nursery.start_soon(cache.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert "going on without it" in caplog.text
    cache.put(b"k", b"v")
    assert await cache.get_many([b"k"]) == [None]


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
        await cache.discard(b"k3")
        nursery.cancel_scope.cancel()
    cache.close()
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    assert len(stored) > 100_000
    assert not [start for start in range(len(secret)) if (secret * 2)[start : start + 16] in stored]


async def test_without_an_allocator_that_clears_memory_there_is_no_cache(folder, monkeypatch, caplog):
    monkeypatch.setattr(disk, "_M_PERTURB", 12345)  # an option that this C library does not know
    assert not DiskCache(folder, 64 * MIB, SimWorld()).open()
    assert "does not clear memory" in caplog.text
    assert not folder.exists()
