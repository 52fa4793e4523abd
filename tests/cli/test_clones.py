"""`checkpoint clone` and `clone detach` on volumes that nobody has mounted: what they print, and what they refuse."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import trio

from tests.cli.conftest import PASSWORD
from tests.cli.test_checkpoints import ROOT, failed, names, with_volume, write
from zerofs.admin import registry
from zerofs.admin.control import protocol, server
from zerofs.cli.plan import volume_identity
from zerofs.config import load
from zerofs.config.paths import runtime_directory
from zerofs.keys.password import check_password
from zerofs.volume import OpenOptions, open_bare
from zerofs.world import World

CONFIGURATION, NO_VOLUME, IN_USE, CORRUPTION, CHECKPOINT, CLONE = 2, 10, 11, 16, 22, 23


@pytest.fixture(autouse=True)
def volume(home):
    """A volume with a checkpoint, and something that was written since."""
    home.write_config()
    write(home, b"one", b"1")
    assert home.run("checkpoint", "create", "first").code == 0
    write(home, b"two", b"2")


def config_of(home, name):
    """A configuration of a volume at another place in this home."""
    path = home.folder / f"{name}.toml"
    path.write_text(home.config.read_text().replace(f"{home.folder}/store", f"{home.folder}/{name}"))
    return path


def points(home):
    return [point["name"] for point in json.loads(home.run("checkpoint", "list", "--json").out)["checkpoints"]]


def objects(home, name):
    return sorted(path.relative_to(home.folder) for path in (home.folder / name).rglob("*") if path.is_file())


def clone(home, name="clone", *options):
    return home.run("checkpoint", "clone", "first", f"file://{home.folder}/{name}", *options)


def test_the_life_of_a_clone(home):
    code, out, err = clone(home)
    assert (code, err) == (0, "")
    volume_id, pin = re.fullmatch(
        rf"Clone of checkpoint first made in file://{home.folder}/clone, volume ([0-9a-f]{{32}})\n"
        r"It opens with the same password\. Mount it with a configuration whose \[storage\] url is that place\n"
        rf"Until `zerofs clone detach` it reads file://{home.folder}/store, where checkpoint (\S+) must stay\n",
        out,
    ).groups()
    assert pin == f"clone-{volume_id[:8]}"
    assert points(home) == ["first", pin]
    config = config_of(home, "clone")
    shown = json.loads(home.run("debug", "manifest/00000000000000000001.manifest", "-c", config).out)
    assert [source["url"] for source in shown["sources"]] == [f"file://{home.folder}/store"]
    assert json.loads(home.run("checkpoint", "list", "--json", "-c", config).out) == {"checkpoints": []}
    code, out, err = home.run("clone", "detach", "-c", config)
    assert (code, err) == (0, "")
    assert out == f"The clone stands alone: it does not need file://{home.folder}/store any more\n"
    assert points(home) == ["first"]
    left = sorted(f"manifest/{path.name}" for path in (home.folder / "clone" / "manifest").glob("*.manifest"))
    for name in left:
        shown = json.loads(home.run("debug", name, "-c", config).out)
        assert not any(source["key_ids"] for source in shown["sources"]), f"{name} still has keys of the source"
    code, out, err = home.run("clone", "detach", "-c", config, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"was_clone": False, "sources": [], "left": []}
    assert home.run("clone", "detach").out == "The volume is no clone: it needs no other volume\n"
    shutil.rmtree(home.folder / "store")
    home.config.write_text(config.read_text())
    assert names(home) == [b"one"]


def test_places_that_are_refused(home):
    def refused(dest, *options):
        return home.run("checkpoint", "clone", "first", dest, *options)

    assert "is no place for a clone: write file:///path" in failed(refused("/tmp/x"), CONFIGURATION)
    assert "is the volume itself: a clone goes" in failed(refused(f"file://{home.folder}/store"), CONFIGURATION)
    assert "lie one in the other" in failed(refused(f"file://{home.folder}/store/x"), CONFIGURATION)
    (home.folder / "full").mkdir()
    (home.folder / "full" / "thesis.txt").write_text("...")
    assert "is not empty: thesis.txt lies there" in failed(clone(home, "full"), NO_VOLUME)
    gone = home.run("checkpoint", "clone", "second", f"file://{home.folder}/clone")
    assert failed(gone, CHECKPOINT) == "there is no checkpoint 'second'; there are: first"
    assert points(home) == ["first"]
    assert not (home.folder / "clone" / "zerofs.key").exists()


def test_a_place_where_this_host_has_seen_a_volume(home):
    assert clone(home).code == 0
    shutil.rmtree(home.folder / "clone")
    text = failed(clone(home), NO_VOLUME)
    assert "this host has seen a volume there" in text
    assert "--accept-rollback" in text
    assert len(points(home)) == 2
    assert clone(home, "clone", "--accept-rollback").code == 0
    home.config.write_text(config_of(home, "clone").read_text())
    assert names(home) == [b"one"], "the new one is what this host knows now"


def test_what_a_killed_clone_left_is_named(home):
    assert clone(home).code == 0
    (home.folder / "clone" / "zerofs.key").unlink()
    pin = points(home)[1]
    text = failed(clone(home, "clone", "--accept-rollback"), NO_VOLUME)
    assert "manifest/00000000000000000001.manifest lies there without a zerofs.key" in text
    assert f"delete that object, and the checkpoint {pin} of the source (with --force) if there is one" in text
    (home.folder / "clone" / "manifest" / "00000000000000000001.manifest").unlink()
    text = failed(home.run("checkpoint", "delete", pin), CHECKPOINT)
    assert text.startswith(f"the checkpoint '{pin}' holds what a clone of this volume reads: run `zerofs clone detach`")
    assert home.run("checkpoint", "delete", pin, "--force").code == 0
    assert clone(home, "clone", "--accept-rollback").code == 0


def test_a_backup_and_a_checkpoint_wait_for_each_other(home):
    assert clone(home).code == 0
    config = config_of(home, "clone")
    text = failed(home.run("backup", f"file://{home.folder}/backup", "-c", config), CLONE)
    assert text.startswith(f"this volume is a clone, and still reads file://{home.folder}/store: run `zerofs clone det")
    assert home.run("checkpoint", "create", "early", "-c", config).code == 0
    text = failed(home.run("clone", "detach", "-c", config), CLONE)
    assert text.startswith("checkpoints of this clone still need its source: 'early'; delete them")
    assert home.run("checkpoint", "delete", "early", "-c", config).code == 0
    assert home.run("clone", "detach", "-c", config).code == 0
    assert home.run("backup", f"file://{home.folder}/backup", "-c", config).code == 0


def test_a_source_that_is_gone_when_its_pin_is_to_be_released(home):
    assert clone(home).code == 0
    config, pin = config_of(home, "clone"), points(home)[1]
    shutil.move(home.folder / "store", home.folder / "moved")
    assert f"in the source of this clone, file://{home.folder}/store" in failed(
        home.run("clone", "detach", "-c", config), CORRUPTION
    )
    shutil.move(home.folder / "moved", home.folder / "store")
    (home.folder / "store" / "zerofs.key").rename(home.folder / "key")
    code, out, _ = home.run("clone", "detach", "-c", config, "--json")
    assert code == 0
    (left,) = json.loads(out)["left"]
    assert (left["source"], left["pin"]) == (f"file://{home.folder}/store", pin)
    assert "zerofs.key" in left["reason"]
    (home.folder / "key").rename(home.folder / "store" / "zerofs.key")
    assert json.loads(home.run("clone", "detach", "-c", config, "--json").out)["left"] == []
    assert points(home) == ["first"]


class Died(Exception):
    pass


def left_open(home, monkeypatch, *, host=None, pid=None):
    """The volume of this home, as a writer leaves it that dies, or that lives and is looked at from outside."""

    async def die(fs):
        await fs.mkdir(ROOT, 1, b"new", 0o755)
        raise Died

    with monkeypatch.context() as patch, pytest.raises((Died, BaseExceptionGroup)):
        if host is not None:
            patch.setattr(socket, "gethostname", lambda: host)
        if pid is not None:
            patch.setattr(os, "getpid", lambda: pid)
        with_volume(home, die, mountpoint="/mnt/z")


def change_table(config, **fields):
    """What somebody can write into a clone before handing it to you."""

    async def run():
        settings = load(config, {})
        async with open_bare(settings, check_password(PASSWORD), OpenOptions(), World()) as engine:

            async def change(current):
                return replace(current, foreign=tuple(replace(it, **fields) for it in current.foreign))

            await engine.maintenance._versions.edit(change)

    trio.run(run)


def test_where_another_host_may_be_writing_to_the_source(home, monkeypatch):
    assert clone(home).code == 0
    config, pin = config_of(home, "clone"), points(home)[1]
    left_open(home, monkeypatch, host="elsewhere")
    text = failed(clone(home, "another"), IN_USE)
    assert "on elsewhere has the volume open for writing" in text
    assert text.endswith("run this on that host, or unmount the volume there")
    assert not (home.folder / "another" / "manifest").exists()
    code, out, _ = home.run("clone", "detach", "-c", config, "--json")
    assert code == 0
    (left,) = json.loads(out)["left"]
    assert left["pin"] == pin
    assert "on elsewhere has the volume open for writing" in left["reason"]


def test_where_another_host_may_be_writing_to_the_clone(home, monkeypatch):
    assert clone(home).code == 0
    source, config = home.config.read_text(), config_of(home, "clone")
    home.config.write_text(config.read_text())
    left_open(home, monkeypatch, host="elsewhere")
    before = objects(home, "clone")
    text = failed(home.run("clone", "detach"), IN_USE)
    assert text == (
        f"process {os.getpid()} on elsewhere has the volume open for writing at /mnt/z, or died there: unmount it "
        "there; if that host is gone, mount the clone here once, which takes it over"
    )
    assert objects(home, "clone") == before, "it was not taken away from there"
    assert names(home) == [b"one"], "mounted once, it is taken over"
    assert home.run("clone", "detach").code == 0
    home.config.write_text(source)
    assert points(home) == ["first"]


@pytest.fixture
def zerofs_process(tmp_path):
    """A process of this host that runs zerofs as far as anybody can see, and serves nobody of this home."""
    script = tmp_path / "zerofs"
    script.write_text("import time\nprint(flush=True)\ntime.sleep(600)\n")  # it lives until the test kills it
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_beside_a_mount_of_this_host_that_another_user_has(home, monkeypatch, zerofs_process):
    assert clone(home).code == 0
    source, config = home.config.read_text(), config_of(home, "clone")
    left_open(home, monkeypatch, pid=zerofs_process.pid)
    home.config.write_text(config.read_text())
    left_open(home, monkeypatch, pid=zerofs_process.pid)
    before = objects(home, "clone"), objects(home, "store")
    text = failed(home.run("clone", "detach"), IN_USE)
    assert text == (
        f"process {zerofs_process.pid} of this host has the volume open for writing at /mnt/z, and this user's "
        "commands do not reach it: run this as the user who mounted it, or unmount it"
    )
    home.config.write_text(source)
    for command in (clone(home, "another"), home.run("backup", f"file://{home.folder}/backup")):
        assert f"process {zerofs_process.pid} of this host has the volume" in failed(command, IN_USE)
    assert (objects(home, "clone"), objects(home, "store")) == before
    zerofs_process.kill()
    zerofs_process.wait()
    assert home.run("clone", "detach", "-c", config).code == 0, "it is dead"
    assert points(home) == ["first"]


def test_a_clone_that_names_a_checkpoint_of_yours_as_its_pin(home):
    assert clone(home).code == 0
    config = config_of(home, "clone")
    change_table(config, pin="first")
    code, out, err = home.run("clone", "detach", "-c", config)
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == [
        f"The checkpoint first in file://{home.folder}/store could not be deleted: it is not what this clone's own is "
        "called; left alone"
    ]
    assert "first" in points(home)


def test_a_clone_that_names_another_volume_as_its_source(home):
    """Where a mount serves the volume, as where it is opened."""
    assert clone(home).code == 0
    config, (_, pin) = config_of(home, "clone"), points(home)
    key = home.folder / "store" / "zerofs.key"
    key.rename(home.folder / "key")
    assert home.run("clone", "detach", "-c", config).code == 0
    (home.folder / "key").rename(key)
    first = home.run("debug", "manifest/00000000000000000001.manifest", "-c", config_of(home, "store"))
    own_id = bytes.fromhex(json.loads(first.out)["header"]["volume_id"])
    change_table(config, volume_id=b"another volume's")

    def detach():
        return [left["reason"] for left in json.loads(home.run("clone", "detach", "-c", config, "--json").out)["left"]]

    assert detach() == ["another volume lies there now"]
    assert points(home) == ["first", pin]
    asked = []

    async def status(arguments):
        return {"volume_id": own_id.hex()}

    async def checkpoint(arguments):
        asked.append((arguments["action"], arguments["name"]))
        return {"checkpoints": [{"name": pin}]}

    async def serve():
        handlers = {protocol.STATUS: status, protocol.CHECKPOINT: checkpoint}
        async with server.serve(registry.socket_path(runtime, "/mnt/z"), handlers):
            return await trio.to_thread.run_sync(detach)

    runtime = runtime_directory(home.environ)
    identity = volume_identity(load(home.config, home.environ))
    record = registry.MountRecord(mountpoint="/mnt/z", identity=identity, pid=os.getpid(), read_only=False, config="")
    with registry.claim(runtime, record, take_over=False):
        assert trio.run(serve) == ["another volume lies there now"]
        assert asked == []
        change_table(config, volume_id=own_id)
        assert trio.run(serve) == []
    assert asked == [("release", pin)]
