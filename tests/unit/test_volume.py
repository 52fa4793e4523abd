"""The composition root: when a volume is made, when one is refused, and what a close says."""

import shutil

import pytest

from zerofs import volume
from zerofs.config.loading import load
from zerofs.errors import KeyMissingError, NoVolumeError, RollbackError, UnsavedDataError, WrongPasswordError
from zerofs.fs.access import Caller
from zerofs.keys.password import check_password
from zerofs.lsm.options import LsmOptions
from zerofs.volume import OpenOptions, open_volume
from zerofs.world import World

PASSWORD = check_password("correct horse battery")
ROOT = Caller(uid=0, gid=0, pid=1, umask=0o022, groups=frozenset)


class Host:
    """One machine with a configuration for a volume in a directory."""

    def __init__(self, tmp_path, name="host"):
        self.store = tmp_path / "store"
        home = tmp_path / name
        home.mkdir()
        config = home / "zerofs.toml"
        config.write_text(f'[cache]\ndir = "{home}/cache"\n[storage]\nurl = "file://{self.store}"\n')
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
