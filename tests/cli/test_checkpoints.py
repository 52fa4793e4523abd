"""`zerofs checkpoint` and `zerofs collect` on a volume that nobody has mounted: what they print, and how they exit."""

import json
import os
import re

import pytest
import trio

from tests.cli.conftest import PASSWORD
from zerofs.admin import registry
from zerofs.cli.plan import volume_identity
from zerofs.config import load
from zerofs.config.paths import runtime_directory
from zerofs.fs.access import Caller
from zerofs.keys.password import check_password
from zerofs.volume import OpenOptions, open_bare, open_volume
from zerofs.world import World

ROOT = Caller(uid=0, gid=0)
NO_VOLUME, IN_USE, CHECKPOINT = 10, 11, 22


def with_volume(home, work, **options):
    """What `work(fs)` returns, done on the volume of this home."""

    async def run():
        settings = load(home.config, home.environ)
        async with open_volume(settings, check_password(PASSWORD), OpenOptions(**options), World()) as volume:
            return await work(volume.fs)

    return trio.run(run)


def tighten(home):
    """Merge what was overwritten away, as a mount does when nobody writes."""

    async def run():
        settings = load(home.config, home.environ)
        async with open_bare(settings, check_password(PASSWORD), OpenOptions(), World()) as engine:
            await engine.maintenance.tighten()

    trio.run(run)


def write(home, name, data):
    async def work(fs):
        handle, _ = await fs.create(ROOT, 1, name, 0o644, os.O_RDWR | os.O_TRUNC)
        await fs.write(handle, 0, data)
        await fs.release(handle)

    with_volume(home, work)


def names(home, **options):
    async def work(fs):
        handle = await fs.opendir(ROOT, 1)
        return [entry.name for entry in await fs.readdir(handle, 2, 100)]

    return with_volume(home, work, **options)


def objects(home):
    """Every object with its contents."""
    store = home.folder / "store"
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and ".zerofs_local" not in path.parts
    }


def size(home):
    return sum(map(len, objects(home).values()))


@pytest.fixture(autouse=True)
def volume(home):
    home.write_config()
    write(home, b"one", b"1")


def failed(result, code):
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("zerofs: error: ")
    assert result.err.count("\n") == 1
    return result.err.removeprefix("zerofs: error: ").rstrip("\n")


def test_the_life_of_a_checkpoint(home):
    code, out, err = home.run("checkpoint", "create", "first", "-c", "zerofs.toml")
    assert (code, err) == (0, "")
    made = re.fullmatch(r"Checkpoint first created, id ([0-9a-f]{32})\n", out)[1]
    code, out, err = home.run("checkpoint", "create", "se_cond", "--json")
    assert (code, err) == (0, "")
    second = json.loads(out)
    assert second.keys() == {"name", "id", "manifest_id", "created_at"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", second["created_at"])

    before = objects(home)
    code, out, err = home.run("checkpoint", "list", "--json")
    assert (code, err) == (0, "")
    listed = json.loads(out)["checkpoints"]
    assert [point["name"] for point in listed] == ["first", "se_cond"]
    assert listed[1] == second
    code, out, err = home.run("checkpoint", "list")
    assert (code, err) == (0, "")
    for text in ("Checkpoints", "Name", "Created", "first", "se_cond", made, second["created_at"]):
        assert text in out
    code, out, _ = home.run("checkpoint", "info", "se_cond")
    assert code == 0
    assert "manifest id" in out
    assert second["id"] in out
    assert json.loads(home.run("checkpoint", "info", made, "--json").out) == listed[0]
    assert objects(home) == before, "list and info write nothing"

    assert tuple(home.run("checkpoint", "delete", made)) == (
        0,
        "Checkpoint first deleted; what only it held is removed from the store\n",
        "",
    )
    assert json.loads(home.run("checkpoint", "delete", "se_cond", "--json").out) == second
    assert tuple(home.run("checkpoint", "list")) == (0, "There are no checkpoints\n", "")
    assert json.loads(home.run("checkpoint", "list", "--json").out) == {"checkpoints": []}


@pytest.mark.parametrize("command", ["info", "delete", "restore"])
def test_a_checkpoint_that_is_not_there(home, command):
    home.run("checkpoint", "create", "first")
    result = home.run("checkpoint", command, "zeroth")
    assert failed(result, CHECKPOINT) == "there is no checkpoint 'zeroth'; there are: first"
    assert tuple(home.run("checkpoint", "create", "second"))[::2] == (0, ""), "the volume was closed as it should be"


def test_names_that_are_refused(home):
    home.run("checkpoint", "create", "first")
    assert "there is a checkpoint 'first' already" in failed(home.run("checkpoint", "create", "first"), CHECKPOINT)
    assert "cannot be the name of a checkpoint" in failed(home.run("checkpoint", "create", "a/b"), CHECKPOINT)
    assert "has 1 to 255 bytes" in failed(home.run("checkpoint", "create", ""), CHECKPOINT)


def test_a_restored_volume_is_what_it_was_and_can_go_back(home):
    home.run("checkpoint", "create", "good")
    write(home, b"two", b"2")
    code, out, err = home.run("checkpoint", "restore", "good")
    assert (code, err) == (0, "")
    told = re.fullmatch(
        r"The volume is what it was at checkpoint good, made \S+Z\n"
        r"What it was before is kept as checkpoint (before-restore-[0-9a-f]{8})\n",
        out,
    )
    assert names(home) == [b"one"]
    done = json.loads(home.run("checkpoint", "restore", told[1], "--json").out)
    assert done["restored"]["name"] == told[1]
    assert done["before"]["name"].startswith("before-restore-")
    assert names(home) == [b"one", b"two"]
    assert names(home, read_only=True, checkpoint="good") == [b"one"]


def test_a_deleted_checkpoint_gives_its_space_back(home):
    write(home, b"large", os.urandom(1_000_000))
    home.run("checkpoint", "create", "large")
    write(home, b"large", b"small now")
    tighten(home)
    assert size(home) > 1_000_000
    assert home.run("checkpoint", "delete", "large").code == 0
    assert size(home) < 100_000


def test_collect(home):
    write(home, b"large", os.urandom(1_000_000))
    write(home, b"large", b"small now")
    (home.folder / "store" / "compacted" / "README").write_text("not ours")
    before = objects(home)
    code, out, err = home.run("collect", "--dry-run", "--json")
    assert (code, err) == (0, "")
    would = json.loads(out)
    assert would["dry_run"] is True
    assert would["objects"].keys() == {"sst", "wal", "manifest"}
    assert would["size_bytes"] > 1_000_000
    assert (would["strangers"], would["stranger_names"]) == (1, ["compacted/README"])
    assert before.keys() <= objects(home).keys()
    code, out, err = home.run("collect")
    assert (code, err) == (0, "")
    assert "Deleted" in out
    assert "objects: wal" in out
    assert size(home) < sum(map(len, before.values())) - 1_000_000
    assert json.loads(home.run("collect", "--json").out)["objects"]["sst"] == 0
    assert names(home) == [b"one", b"large"]


@pytest.mark.parametrize("command", [["list"], ["info", "x"], ["create", "x"], ["delete", "x"], ["restore", "x"]])
def test_where_there_is_no_volume_none_is_made(home, command):
    home.write_config()
    home.config.write_text(home.config.read_text().replace("/store", "/elsewhere"))
    assert "there is no volume at" in failed(home.run("checkpoint", *command), NO_VOLUME)
    assert "there is no volume at" in failed(home.run("collect"), NO_VOLUME)


def test_while_another_command_has_the_volume(home):
    settings = load(home.config, home.environ)
    record = registry.MountRecord(
        mountpoint="", identity=volume_identity(settings), pid=4711, read_only=False, config=str(home.config)
    )
    with registry.claim(runtime_directory(home.environ), record, take_over=False):
        for command in (["checkpoint", "create", "x"], ["checkpoint", "restore", "x"], ["collect"], ["run"]):
            message = failed(home.run(*command, "-c", "zerofs.toml"), IN_USE)
            assert message == "a command is changing the volume: process 4711; try again when it has ended"
        assert home.run("checkpoint", "list").code == 0
        assert "is not mounted on this host" in home.run("status", "-c", "zerofs.toml").err


def test_what_ended_without_closing_is_taken_over_with_a_warning(home):
    class Crash(Exception):
        pass

    async def crash(fs):
        await fs.mkdir(ROOT, 1, b"two", 0o755)
        await fs.sync()
        raise Crash

    with pytest.raises((Crash, BaseExceptionGroup)):
        with_volume(home, crash, mountpoint="/mnt/there")
    code, _, err = home.run("checkpoint", "create", "x")
    assert code == 0
    assert "taking the volume over from pid" in err
    assert "/mnt/there" in err
    assert names(home, read_only=True, checkpoint="x") == [b"one", b"two"]
