"""The composition root: when a volume is made, when one is refused, and what a close says."""

import os
import shutil
import tempfile
import weakref

import pytest

from tests.mount.harness import OTHER_DISK
from zerofs import volume
from zerofs.admission import OpenOptions
from zerofs.config.loading import load
from zerofs.errors import (
    ConfigError,
    CorruptionError,
    FsError,
    KeyMissingError,
    NoVolumeError,
    RollbackError,
    UnsavedDataError,
    WrongPasswordError,
)
from zerofs.fs.access import Caller
from zerofs.keys.password import check_password
from zerofs.lsm.options import LsmOptions
from zerofs.units import CHUNK_SIZE
from zerofs.volume import open_volume
from zerofs.world import World

PASSWORD = check_password("correct horse battery")
ROOT = Caller(uid=0, gid=0, pid=1, umask=0o022, groups=frozenset)


class Host:
    """One machine with a configuration for a volume in a directory."""

    def __init__(self, tmp_path, name="host"):
        self.store = tmp_path / "store"
        home = tmp_path / name
        home.mkdir()
        cache = tempfile.mkdtemp(prefix="zf-cache-", dir=OTHER_DISK)  # beside the store there would be none
        weakref.finalize(self, shutil.rmtree, cache)
        config = home / "zerofs.toml"
        config.write_text(f'[cache]\ndir = "{cache}/here"\n[storage]\nurl = "file://{self.store}"\n')
        self.settings = load(config, {"XDG_STATE_HOME": str(home / "state"), "HOME": str(home)})

    def open(self, password=PASSWORD, **options):
        return open_volume(self.settings, password, OpenOptions(**options), World())

    async def make(self, name: bytes) -> None:
        async with self.open() as opened:
            await opened.fs.mkdir(ROOT, 1, name, 0o755)

    async def names(self, **options) -> list[bytes]:
        async with self.open(**options) as opened:
            handle = await opened.fs.opendir(ROOT, 1)
            return [entry.name for entry in await opened.fs.readdir(handle, 2, 100)]


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def only(error_type, group):
    """The one error that nested groups hold."""
    while isinstance(group, BaseExceptionGroup):
        (group,) = group.exceptions
    assert isinstance(group, error_type), repr(group)
    return group


async def refused(error_type, opening, match: str) -> None:
    with pytest.raises((error_type, BaseExceptionGroup)) as caught:
        async with opening:
            pass
    assert match in str(only(error_type, caught.value))


async def test_a_volume_is_made_where_nothing_is_and_opened_afterwards(host):
    await host.make(b"one")
    await host.make(b"two")
    assert await host.names() == [b"one", b"two"]
    await refused(WrongPasswordError, host.open(check_password("another password")), "Failed to unwrap DEK")


async def test_opening_a_volume_that_was_closed_takes_few_requests(host):
    for number in range(3):
        async with host.open() as opened:
            handle, _ = await opened.fs.create(ROOT, 1, b"file%d" % number, 0o644, os.O_RDWR)
            await opened.fs.write(handle, 0, os.urandom(3_000_000))
            await opened.fs.release(handle)
    async with host.open() as opened:
        metrics = opened.status()["metrics"]
        made = {name: number for name, number in metrics.items() if name.startswith("store_requests_total")}
        assert sum(made.values()) <= 20, made


async def test_the_status_says_what_programs_moved_and_what_it_cost_the_store(host):
    data = os.urandom(3_000_000)
    async with host.open() as opened:
        assert opened.status()["traffic"]["write_amplification_ratio"] is None, "nothing was written yet"
        handle, node = await opened.fs.create(ROOT, 1, b"file", 0o644, os.O_RDWR)
        await opened.fs.write(handle, 0, data)
        await opened.fs.fsync(handle)
        traffic = opened.status()["traffic"]
        assert traffic["written_bytes"] == len(data)
        assert 1 < traffic["write_amplification_ratio"] < 1.1
        assert traffic["write_amplification_ratio"] == traffic["sent_bytes"] / len(data)
    async with host.open() as opened:
        handle = await opened.fs.open(ROOT, node.inode, os.O_RDONLY)
        for _ in range(2):
            assert await opened.fs.read(handle, 0, len(data)) == data
        traffic = opened.status()["traffic"]
        assert traffic["read_bytes"] == 2 * len(data)
        assert 0.5 < traffic["read_amplification_ratio"] < 0.6, "the second read cost the store nothing"
        metrics = opened.status()["metrics"]
        assert metrics["read_amplification_ratio"] == traffic["read_amplification_ratio"]
        assert metrics['cache_hit_ratio{cache="chunk"}'] == 0.5
        assert opened.status()["engine"]["chunk_cache"]["hit_ratio"] == 0.5


async def test_an_emptied_store_is_not_taken_for_a_new_one(host):
    await host.make(b"one")
    shutil.rmtree(host.store)
    await refused(NoVolumeError, host.open(), "has seen a volume there")
    assert await host.names(accept_rollback=True) == []


async def test_a_missing_key_is_named_with_its_remedy(host):
    await host.make(b"one")
    (host.store / "zerofs.key").unlink()
    await refused(KeyMissingError, host.open(), "restore zerofs.key from a backup")


async def test_a_key_alone_is_not_an_empty_volume_for_a_host_that_knows_better(host):
    await host.make(b"one")
    for folder in ("manifest", "wal", "compacted"):
        shutil.rmtree(host.store / folder, ignore_errors=True)
    await refused(NoVolumeError, host.open(), "no other object of a volume that this host has seen")


async def test_data_without_a_manifest_is_refused(host):
    await host.make(b"one")
    shutil.rmtree(host.store / "manifest")
    await refused(NoVolumeError, host.open(), "no manifest")


async def test_a_read_only_mount_creates_nothing(host):
    await refused(NoVolumeError, host.open(read_only=True), "creates none")
    assert not host.store.exists()


async def test_an_older_backup_is_refused_or_accepted_also_read_only(host, tmp_path):
    await host.make(b"one")
    shutil.copytree(host.store, tmp_path / "backup")
    await host.make(b"two")
    shutil.rmtree(host.store)
    shutil.copytree(tmp_path / "backup", host.store)
    for read_only in (True, False):
        await refused(RollbackError, host.open(read_only=read_only), "--accept-rollback")
    assert await host.names(read_only=True, accept_rollback=True) == [b"one"]
    assert await host.names(accept_rollback=True) == [b"one"]
    assert await host.names() == [b"one"]


@pytest.mark.parametrize("read_only", [False, True])
async def test_another_volume_in_the_place_of_the_known_one_is_refused_or_accepted(host, tmp_path, read_only):
    """The same password opens both, so that nothing but this host's memory tells one from the other."""
    await host.make(b"one")
    shutil.move(host.store, tmp_path / "first")
    await Host(tmp_path, "elsewhere").make(b"two")
    await refused(RollbackError, host.open(read_only=read_only), "but this host has seen the volume")
    assert await host.names(read_only=read_only, accept_rollback=True) == [b"two"]
    if read_only:  # a look changes nothing
        await refused(RollbackError, host.open(read_only=True), "but this host has seen the volume")
    else:
        assert await host.names() == [b"two"]


async def test_a_key_that_belongs_to_another_volume_is_not_remembered_for_the_place(host, tmp_path):
    await host.make(b"one")
    shutil.copytree(host.store, tmp_path / "copy")
    copy, other = Host(tmp_path, "elsewhere"), Host(tmp_path, "third")
    shutil.rmtree(host.store)
    await other.make(b"two")
    alien = (host.store / "zerofs.key").read_bytes()
    shutil.rmtree(host.store)
    shutil.copytree(tmp_path / "copy", host.store)
    true = (host.store / "zerofs.key").read_bytes()
    (host.store / "zerofs.key").write_bytes(alien)
    await refused(CorruptionError, copy.open(), "belongs to another volume")
    (host.store / "zerofs.key").write_bytes(true)
    assert await copy.names() == [b"one"]


@pytest.mark.parametrize("left", ["manifest/00000000000000000001.manifest.bak", "manifest/floor"])
async def test_what_is_no_manifest_does_not_stand_for_one(host, tmp_path, left):
    """A volume whose manifests are gone is never made anew over its data."""
    await host.make(b"one")
    for path in (host.store / "manifest").iterdir():
        path.unlink()
    (host.store / left).write_bytes(b"x")
    await refused(NoVolumeError, Host(tmp_path, "elsewhere").open(), "no manifest")


async def test_memory_that_cannot_be_read_is_a_configuration_error(host):
    await host.make(b"one")
    (seen,) = host.settings.state_dir.glob("*.seen")
    seen.unlink()
    seen.mkdir()
    await refused(ConfigError, host.open(), f"{seen}, where this host remembers")


async def test_a_crashed_writer_is_taken_over_with_a_warning(host, tmp_path, caplog):
    class Crash(Exception):
        pass

    with pytest.raises((Crash, BaseExceptionGroup)):
        async with host.open(mountpoint="/mnt/first") as opened:
            await opened.fs.mkdir(ROOT, 1, b"one", 0o755)
            await opened.fs.sync()
            raise Crash
    assert "taking the volume over" not in caplog.text
    assert await Host(tmp_path, "elsewhere").names() == [b"one"]
    assert "taking the volume over" in caplog.text
    assert "/mnt/first" in caplog.text


async def test_status_has_numbers_and_no_names(host):
    async with host.open(mountpoint="/mnt") as opened:
        await opened.fs.mkdir(ROOT, 1, b"telling-name", 0o755)
        status = opened.status()
        assert status["state"] == "ok"
        assert status["reason"] == ""
        assert status["dirty_bytes"] > 0
        assert status["oldest_unsynced_s"] > 0
        assert "telling-name" not in str(status)
        await opened.flush()
        assert opened.status()["dirty_bytes"] == 0


async def test_a_close_on_a_dead_store_says_that_data_is_lost(host, monkeypatch):
    monkeypatch.setattr(volume, "engine_options", lambda settings: LsmOptions(close_timeout_s=0.2))
    with pytest.raises((UnsavedDataError, BaseExceptionGroup)) as caught:
        async with host.open() as opened:
            await opened.fs.mkdir(ROOT, 1, b"one", 0o755)
            shutil.rmtree(host.store)
    assert "is lost" in str(only(UnsavedDataError, caught.value))


def states(opened):
    """What the gauges of the state say."""
    metrics = opened.status()["metrics"]
    return {state: metrics[f'mount_state{{state="{state}"}}'] for state in volume.STATES}


async def test_the_state_is_a_gauge_and_an_operator_clears_a_lost_write(host, caplog):
    async with host.open() as opened:
        assert opened.status()["outage_s"] == 0.0
        assert states(opened) == dict.fromkeys(volume.STATES, 0) | {"ok": 1}
        assert not opened.clear_data_lost()
        opened.fs._ctx._data_lost = True
        assert states(opened) == dict.fromkeys(volume.STATES, 0) | {"data-lost": 1}
        assert opened.clear_data_lost()
        assert "cleared by an operator" in caplog.text
        assert states(opened)["ok"] == 1
        await opened.fs.sync()


async def test_a_lost_write_takes_nothing_else_along(host, tmp_path):
    """In the state `data-lost`, ending the mount stores whatever can be stored before it says what was lost."""
    async with host.open() as opened:
        handle, _ = await opened.fs.create(ROOT, 1, b"damaged", 0o644, os.O_RDWR)
        await opened.fs.write(handle, 0, os.urandom(200_000))
    shutil.rmtree(host.settings.cache.dir)
    with pytest.raises((FsError, BaseExceptionGroup)) as caught:
        async with host.open() as opened:
            (host.store / "compacted").rename(tmp_path / "away")
            file = await opened.fs.lookup(ROOT, 1, b"damaged")
            handle = await opened.fs.open(ROOT, file.inode, os.O_RDWR)
            with pytest.raises(FsError):
                await opened.fs.write(handle, 10_000, b"part of a chunk that cannot be read")
            assert opened.status()["state"] == "data-lost"
            (tmp_path / "away").rename(host.store / "compacted")
            await opened.fs.mkdir(ROOT, 1, b"other", 0o755)
            handle, _ = await opened.fs.create(ROOT, 1, b"large", 0o644, os.O_RDWR)
            await opened.fs.write(handle, 0, bytes(range(256)) * 10_000)
    assert "a write was refused and its data is lost" in str(only(FsError, caught.value))
    async with host.open() as opened:
        assert (await opened.fs.lookup(ROOT, 1, b"other")).inode
        large = await opened.fs.lookup(ROOT, 1, b"large")
        handle = await opened.fs.open(ROOT, large.inode, os.O_RDONLY)
        assert await opened.fs.read(handle, 0, 10_000_000) == bytes(range(256)) * 10_000
        assert opened.status()["state"] == "ok"


async def damaged_below(host):
    """A volume of which no chunk of the file `damaged` can be read."""
    async with host.open() as opened:
        handle, _ = await opened.fs.create(ROOT, 1, b"damaged", 0o644, os.O_RDWR)
        await opened.fs.write(handle, 0, os.urandom(60 * CHUNK_SIZE))
        await opened.fs.fsync(handle)
    shutil.rmtree(host.settings.cache.dir)
    large = [path for path in (host.store / "compacted").iterdir() if path.stat().st_size > 50 * CHUNK_SIZE]
    for path in large:
        body = bytearray(path.read_bytes())
        for position in range(200, len(body) - 10_000, 1000):
            body[position] ^= 1
        path.write_bytes(body)
    assert large


async def overwrite_a_part(opened):
    file = await opened.fs.lookup(ROOT, 1, b"damaged")
    handle = await opened.fs.open(ROOT, file.inode, os.O_RDWR)
    await opened.fs.write(handle, 5, b"lost")
    return handle


async def test_what_is_lost_by_the_last_flush_is_told(host):
    """The write was taken without reading what it lies on, and nobody asked for an fsync."""
    await damaged_below(host)
    with pytest.raises((FsError, BaseExceptionGroup)) as caught:
        async with host.open() as opened:
            handle = await overwrite_a_part(opened)
            await opened.fs.flush(handle)
    assert "its data is lost" in str(only(FsError, caught.value))


async def test_what_is_lost_when_others_store_it_is_told_by_the_next_close(host):
    await damaged_below(host)
    with pytest.raises((FsError, BaseExceptionGroup)) as caught:
        async with host.open() as opened:
            handle = await overwrite_a_part(opened)
            await opened.checkpoint("create", "one")
            assert opened.status()["state"] == "data-lost"
            with pytest.raises(FsError, match="cannot be made durable"):
                await opened.fs.flush(handle)
    assert "its data is lost" in str(only(FsError, caught.value))
