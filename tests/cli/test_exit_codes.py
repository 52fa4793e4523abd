"""Every row of the table of exit codes, reached by a command. What needs a mount is in test_real_mounts."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
import trio

import zerofs.volume
from tests.cli.conftest import PASSWORD
from zerofs import mounttable
from zerofs.admin import registry
from zerofs.admin.control import protocol, server
from zerofs.admin.registry import MountRecord
from zerofs.cli import umount
from zerofs.cli.rooms import RealRooms
from zerofs.config import load
from zerofs.crypto.kdf import DEFAULT_COST, KdfCost
from zerofs.crypto.secret import Secret
from zerofs.errors import FencedError, UnavailableError, UnsavedDataError, UnsupportedFormatError
from zerofs.keys import vault
from zerofs.objectstore.memory import MemoryStore
from zerofs.volume import OpenOptions, open_volume
from zerofs.world import World


@pytest.fixture(autouse=True)
def cheap_keys(monkeypatch):
    """New volumes whose key costs little to derive; the everyday cost is tested with the keys."""
    cheap = KdfCost(memory_kib=8192, time_cost=1, parallelism=1)
    assert cheap.work_kib < DEFAULT_COST.work_kib
    create = vault.create
    monkeypatch.setattr(vault, "create", lambda store, world, password: create(store, world, password, cheap))


@pytest.fixture(autouse=True)
def no_mount(monkeypatch):
    """A command that should have failed, and did not, ends here and not in a mount."""

    async def serve(*arguments, task_status):
        raise AssertionError("the volume was opened")

    monkeypatch.setattr(RealRooms, "serve", serve)
    monkeypatch.setattr(mounttable, "fuse_obstacle", lambda **options: "")


@pytest.fixture
def store(home):
    """A volume that was mounted and closed once; its store's folder. Opening it again makes it newer."""
    home.write_config()
    open_once(home)
    return home.folder / "store"


def open_once(home):
    async def opened():
        settings = load(home.config, home.environ)
        async with open_volume(settings, Secret(PASSWORD.encode()), OpenOptions(), World()) as volume:
            await volume.flush()

    trio.run(opened)


def fails(home, code, message, *arguments):
    """`zerofs run` ends with this code and one line that says why."""
    result = home.run("run", "-c", "zerofs.toml", *arguments)
    line = next(line for line in result.err.splitlines() if line.startswith("zerofs: error: "))
    assert (result.code, result.out) == (code, "")
    assert message in line
    assert PASSWORD not in result.err


def test_2_configuration(home):
    home.write_config('encryption_password = "short77"')
    fails(home, 2, "Password must be at least 8 characters long")


def test_10_no_volume(home):
    home.write_config()
    fails(home, 10, "no volume", "--read-only")
    assert not any((home.folder / "store").rglob("zerofs.key"))


def test_11_in_use(home, store):
    identity = f"file://{store}"
    record = MountRecord(mountpoint="/mnt/other", identity=identity, pid=4711, read_only=False, config="")
    with registry.claim(Path(home.environ["ZEROFS_RUNTIME_DIR"]), record, take_over=False):
        fails(home, 11, "process 4711, mounted at /mnt/other")


def test_12_wrong_password(home, store):
    home.write_config('encryption_password = "not-the-password"')
    fails(home, 12, "the password does not open this volume (Failed to unwrap DEK: Invalid password or corrupted key)")


def test_13_key_missing(home, store):
    (store / "zerofs.key").unlink()
    fails(home, 13, "zerofs.key")
    assert not (store / "zerofs.key").exists()


class Down:
    """A store that cannot be reached."""

    url = "s3://down"

    def __getattr__(self, name):
        async def unreachable(*arguments):
            raise UnavailableError("the object store does not answer")

        return unreachable

    async def aclose(self):
        pass


class Careless(Down):
    """A store that takes every put and looks at no condition."""

    url = "s3://careless"

    def __init__(self):
        self._store = MemoryStore()

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def put_if_absent(self, name, body, put_id):
        await self._store.put(name, body)

    async def put_if_match(self, name, body, version, put_id):
        await self._store.put(name, body)


@pytest.mark.parametrize(
    ("kind", "code", "message"), [(Down, 14, "does not answer"), (Careless, 15, "conditional writes")]
)
def test_14_and_15_the_store(home, monkeypatch, kind, code, message):
    home.write_config()
    monkeypatch.setattr(zerofs.volume, "open_store", lambda *arguments: kind())
    fails(home, code, message)


def test_16_corruption(home, store):
    manifest = max((store / "manifest").iterdir())
    body = bytearray(manifest.read_bytes())
    body[-1] ^= 1
    manifest.write_bytes(body)
    fails(home, 16, "manifest")


def test_17_rollback(home, store):
    older = home.folder / "older"
    shutil.copytree(store, older)
    open_once(home)
    shutil.rmtree(store)
    older.rename(store)
    fails(home, 17, "older")


@pytest.mark.parametrize(
    ("error", "code"),
    [(FencedError("somebody was faster"), 18), (UnsupportedFormatError("made by a newer zerofs"), 21)],
)
def test_18_and_21_whatever_opening_says(home, monkeypatch, error, code):
    @contextlib.asynccontextmanager
    async def refuse(*arguments):
        raise error
        yield

    home.write_config()
    monkeypatch.setattr(zerofs.volume, "open_volume", refuse)
    fails(home, code, str(error))


def test_19_unsaved_data(home, monkeypatch, tmp_path):
    """A mount's process, in this one, that could not store everything, and `zerofs umount` that hears of it."""
    runtime = Path(home.environ["ZEROFS_RUNTIME_DIR"])
    record = MountRecord(mountpoint="/mnt/z", identity="x", pid=os.getpid(), read_only=False, config="")
    monkeypatch.setattr(umount.client, "wait_for_exit", lambda pid, timeout_s: True)

    async def status(arguments):
        return {}

    async def stop(arguments):
        raise UnsavedDataError("2 MiB could not be stored")

    async def serve():
        handlers = {protocol.STATUS: status, protocol.STOP: stop}
        async with server.serve(registry.socket_path(runtime, "/mnt/z"), handlers):
            return await trio.to_thread.run_sync(home.run, "umount", "/mnt/z")

    with registry.claim(runtime, record, take_over=False):
        result = trio.run(serve)
    assert tuple(result) == (19, "", "zerofs: error: 2 MiB could not be stored\n")


def test_20_mountpoint(home, store):
    home.mountpoint.rmdir()
    fails(home, 20, "does not exist")
