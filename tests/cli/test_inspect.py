"""`zerofs fsck`, `verify` and `debug`: what they print, how they exit, and that they change nothing."""

import json
import os

import pytest

from tests.cli.test_checkpoints import objects, write


@pytest.fixture(autouse=True)
def volume(home):
    home.write_config()
    write(home, b"one", b"1" * 10)
    write(home, b"large", os.urandom(200_000))


def damage(home):
    """Cut the largest SST short; its name."""
    held = objects(home)
    name = max((name for name in held if name.startswith("compacted/")), key=lambda name: len(held[name]))
    path = home.folder / "store" / name
    path.write_bytes(path.read_bytes()[:-1000])
    return name


def test_fsck_of_a_healthy_volume(home):
    before = objects(home)
    code, out, err = home.run("fsck")
    assert (code, err) == (0, "")
    assert out.startswith(f"file://{home.folder}/store: clean (1 versions, ")
    code, out, err = home.run("fsck", "-c", "zerofs.toml", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["clean"], report["problems"], report["counted"]["inodes"]) == (True, [], 3)
    assert objects(home) == before
    home.run("checkpoint", "create", "then")
    write(home, b"later", b"")
    report = json.loads(home.run("fsck", "--checkpoint", "then", "--json").out)
    assert (report["checkpoint"], report["counted"]["inodes"]) == ("then", 3)


def test_fsck_names_what_is_wrong(home):
    name = damage(home)
    before = objects(home)
    code, out, err = home.run("fsck")
    assert (code, err) == (4, "")
    assert f"{name}: " in out
    assert "/large: " in out
    assert "is cut short" in out
    report = json.loads(home.run("fsck", "--json").out)
    assert report["problem_count"] == len(report["problems"]) == 2
    assert report["problems"][1]["path"] == "/large"
    assert objects(home) == before


def test_fsck_has_the_exit_codes_of_fsck(home):
    def code(*arguments):
        result = home.run(*arguments)
        assert (result.out, result.err.count("\n")) == ("", 1)
        assert result.err.startswith("zerofs: error: ")
        return result.code

    assert code("fsck", "--nonsense") == 16
    assert code("fsck", "-c", "nowhere.toml") == 16
    assert code("fsck", "--checkpoint", "nothing") == 8
    config = home.config.read_text()
    home.config.write_text(config.replace("hunter2-", "hunter3-"))
    assert code("fsck") == 8
    home.config.write_text(config.replace("/store", "/elsewhere"))
    assert code("fsck") == 8
    home.config.write_text(config)
    key = home.folder / "store" / "zerofs.key"
    key.write_bytes(key.read_bytes()[:-1] + b"?")
    assert code("fsck") == 4
    key.unlink()
    assert code("fsck") == 8
