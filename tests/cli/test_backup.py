"""`zerofs backup`: what it prints, how it exits, what it leaves; on a volume that nobody has mounted."""

import json
import os
import re
import shutil

import pytest

from tests.cli.test_checkpoints import failed, names, objects, with_volume, write

USAGE, NO_VOLUME, IN_USE, STORE, CORRUPTION, ROLLBACK, CHECKPOINT = 2, 10, 11, 14, 16, 17, 22


@pytest.fixture(autouse=True)
def volume(home):
    home.write_config()
    write(home, b"one", b"1" * 10)
    write(home, b"large", os.urandom(200_000))


@pytest.fixture
def dest(home):
    return f"file://{home.folder}/copy"


def pins(home):
    return [point["name"] for point in json.loads(home.run("checkpoint", "list", "--json").out)["checkpoints"]]


def opened_elsewhere(home, dest):
    """The names in a copy, as a machine that never saw the volume finds them."""
    fresh = home.folder / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    home.environ["XDG_STATE_HOME"] = str(fresh)
    config = home.config.read_text()
    home.config.write_text(config.replace(f"file://{home.folder}/store", dest))
    try:
        return names(home, read_only=True)
    finally:
        home.config.write_text(config)
        del home.environ["XDG_STATE_HOME"]


def test_a_backup_and_the_next(home, dest):
    code, out, err = home.run("backup", dest)
    assert (code, err) == (0, "")
    told = re.fullmatch(
        r"Backup of checkpoint (backup-\S+Z-[0-9a-f]{8}) completed: \d+ objects, \S+ KiB, in file://\S+/copy\n"
        r"Copied: (\d+) objects, \S+ KiB\n",
        out,
    )
    assert told, out
    first, copied = told[1], int(told[2])
    assert pins(home) == [first]
    assert opened_elsewhere(home, dest) == [b"one", b"large"]
    write(home, b"two", b"2")
    done = json.loads(home.run("backup", "create", dest, "--json").out)
    assert 0 < done["copied_objects"] <= copied + 2
    assert done["copied_bytes"] < 50_000
    assert pins(home) == [done["checkpoint"]] != [first]
    assert opened_elsewhere(home, dest) == [b"one", b"large", b"two"]
    assert home.run("backup", "verify", dest).code == 0


def test_two_destinations_have_their_own_checkpoints(home, dest):
    home.run("backup", dest)
    (first,) = pins(home)
    home.run("checkpoint", "create", "backup-of-mine")
    assert home.run("backup", f"{dest}2").code == 0
    assert len(pins(home)) == 3
    assert home.run("backup", dest).code == 0
    assert first not in pins(home)
    assert "backup-of-mine" in pins(home)
    assert len(pins(home)) == 3


def test_a_checkpoint_is_backed_up_without_changing_the_volume(home, dest):
    home.run("checkpoint", "create", "then")
    write(home, b"two", b"2")
    before = objects(home)
    done = json.loads(home.run("backup", dest, "--checkpoint", "then", "--json").out)
    assert done["checkpoint"] == "then"
    assert objects(home) == before
    assert opened_elsewhere(home, dest) == [b"one", b"large"]
    assert "there is no checkpoint 'x'" in failed(home.run("backup", dest, "--checkpoint", "x"), CHECKPOINT)


def test_pruning(home, dest):
    home.run("backup", dest)
    write(home, b"large", b"small now")
    code, out, err = home.run("backup", dest, "--prune")
    assert (code, err) == (0, "")
    assert re.search(r"\nDeleted there: [1-9]\d* objects\n", out)
    assert opened_elsewhere(home, dest) == [b"one", b"large"]


def test_verifying_a_copy(home, dest):
    home.run("backup", dest)
    copy = home.folder / "copy"
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    code, out, err = home.run("backup", "verify", dest)
    assert (code, err) == (0, "")
    assert out.startswith(f"{dest}: clean (")
    report = json.loads(home.run("backup", "verify", dest, "--json").out)
    assert report["counted"]["inodes"] == 3
    assert report["counted"]["frames"] > 0
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    largest = max(copy.glob("compacted/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1000])
    code, out, _ = home.run("backup", "verify", dest)
    assert code == CORRUPTION
    assert f"compacted/{largest.name}: " in out
    assert "/large: " in out
    assert home.run("backup", "verify", f"{dest}-not-there").code == NO_VOLUME


def test_places_that_are_refused(home, dest):
    before = objects(home)

    def said(where, code, *options):
        return failed(home.run("backup", where, *options), code)

    assert "is no place for a backup" in said("/tmp/copy", USAGE)
    assert "is no place for a backup" in said("memory://", USAGE)
    assert "DEST names no bucket" in said("s3://!", USAGE)
    assert "is the volume itself" in said(f"file://{home.folder}/store", USAGE)
    assert "one in the other" in said(f"file://{home.folder}/store/below", USAGE)
    assert "one in the other" in said(f"file://{home.folder}", USAGE)
    (home.folder / "other").mkdir()
    (home.folder / "other" / "thesis.txt").write_text("…")
    assert "is not empty and no backup of this volume" in said(f"file://{home.folder}/other", NO_VOLUME)
    (home.folder / "a-file").write_text("")
    assert said(f"file://{home.folder}/a-file", STORE)
    assert home.run("backup").code == USAGE
    assert home.run("backup", dest, "--nonsense").code == USAGE
    assert home.run("backup", "--rate", "-1", dest).code == USAGE
    assert objects(home) == before, "what is refused leaves no checkpoint"


def test_another_volume_is_not_overwritten(home, dest):
    config = home.config.read_text()
    home.config.write_text(config.replace("/store", "/copy"))
    write(home, b"precious", b"data")
    home.config.write_text(config)
    assert "holds another volume" in failed(home.run("backup", dest), NO_VOLUME)
    assert "holds another volume" not in home.run("backup", "verify", dest).err
    home.config.write_text(config.replace("/store", "/copy"))
    assert names(home) == [b"precious"]


def test_a_copy_that_was_written_to_is_not_overwritten(home, dest):
    home.run("backup", dest)
    config = home.config.read_text()
    home.config.write_text(config.replace("/store", "/copy"))
    home.environ["XDG_STATE_HOME"] = str(home.folder / "another host")
    with_volume(home, lambda fs: fs.flush_all())
    del home.environ["XDG_STATE_HOME"]
    home.config.write_text(config)
    write(home, b"two", b"2")
    before = pins(home)
    message = failed(home.run("backup", dest), ROLLBACK)
    assert "choose an empty place" in message
    assert pins(home) == before


def test_a_failed_backup_leaves_no_checkpoint(home, dest, monkeypatch):
    from zerofs.admin import backup as room

    async def fail(*_):
        raise room.CorruptionError("compacted/x: missing")

    with monkeypatch.context() as patch:
        patch.setattr(room, "_needed", fail)
        assert failed(home.run("backup", dest), CORRUPTION) == "compacted/x: missing"
    assert pins(home) == []
    assert home.run("backup", dest).code == 0


def test_where_another_host_may_be_writing(home, dest, monkeypatch):
    import socket

    class Crash(Exception):
        pass

    async def crash(fs):
        await fs.sync()
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        with pytest.raises((Crash, BaseExceptionGroup)):
            with_volume(home, crash, mountpoint="/mnt/there")
    message = failed(home.run("backup", dest), IN_USE)
    assert "on elsewhere has the volume open for writing at /mnt/there" in message
    assert "--take-over" in message
    code, _, err = home.run("backup", dest, "--take-over")
    assert code == 0
    assert "taking the volume over" in err


def test_a_changed_password_reaches_the_copy(home, dest):
    home.run("backup", dest)
    assert home.run("change-password", stdin="another-password-1\n").code == 0
    home.config.write_text(home.config.read_text().replace("hunter2-hunter2", "another-password-1"))
    assert home.run("backup", dest).code == 0
    assert home.run("backup", "verify", dest).code == 0
