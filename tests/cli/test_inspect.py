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


def test_verify(home):
    before = objects(home)
    for arguments in (["verify"], ["verify", "--full"], ["verify", "--full", "--rate", "1000"]):
        code, out, err = home.run(*arguments)
        assert (code, err) == (0, "")
        assert out.startswith(f"file://{home.folder}/store: clean (1 versions, ")
    report = json.loads(home.run("verify", "--full", "--json").out)
    assert report["clean"] is True
    assert report["counted"]["frames"] > 7
    assert objects(home) == before
    assert not list((home.folder / ".local/state/zerofs/verify").iterdir())


def test_verify_full_names_damaged_files(home):
    held = objects(home)
    name = max((name for name in held if name.startswith("compacted/")), key=lambda name: len(held[name]))
    body = bytearray(held[name])
    body[40_000] ^= 1
    (home.folder / "store" / name).write_bytes(bytes(body))
    assert home.run("verify").code == 0
    code, out, err = home.run("verify", "--full")
    assert (code, err) == (16, "")
    assert f"{name}: frame at byte " in out
    assert f"/large: 1 chunk cannot be read, from byte 32768 on: {name} is damaged\n" in out
    assert out.endswith(")\n")
    assert ": 2 problems (" in out


def test_verify_goes_on_where_it_was_interrupted(home):
    folder = home.folder / ".local/state/zerofs/verify"
    home.run("verify", "--full")
    from zerofs.admin.verified import Verified
    from zerofs.keys.format import decode_sidecar

    held = objects(home)
    volume_id = decode_sidecar(held["zerofs.key"]).volume_id
    done = Verified.of_volume(home.folder / ".local/state/zerofs", volume_id, f"file://{home.folder}/store")
    name = next(name for name in held if name.startswith("compacted/"))
    done.add(name, len(held[name]))
    done.close()
    code, out, err = home.run("verify", "--full")
    assert code == 0
    assert err == "going on after 1 objects that an interrupted run verified; --restart reads them again\n"
    assert "1 objects verified before" in out
    assert not list(folder.iterdir())
    done.add(name, len(held[name]))
    assert home.run("verify", "--full", "--restart").err == ""


def test_verify_has_the_common_exit_codes(home):
    assert home.run("verify", "--nonsense").code == 2
    assert home.run("verify", "--checkpoint", "nothing").code == 22
    assert home.run("verify", "--rate", "-1").code == 2


def test_debug(home):
    before = objects(home)
    for name in sorted(before):
        if name.startswith(("manifest/", "wal/", "compacted/", "zerofs.key")):
            code, out, err = home.run("debug", name)
            assert (code, err) == (0, "")
            assert json.loads(out)["object"] == name
    newest = max(name for name in before if name.endswith(".manifest"))
    assert json.loads(home.run("debug", newest).out)["closed"] is True
    code, out, err = home.run("debug", f"{home.folder}/store/{newest}")
    assert (code, err) == (0, "")
    assert json.loads(out)["object"] == newest
    assert objects(home) == before


def test_debug_shows_contents_only_on_request(home):
    names = [name for name in objects(home) if name.startswith("compacted/")]
    shown = "".join(home.run("debug", name).out for name in names)
    with_rows = "".join(home.run("debug", "--rows", name).out for name in names)
    with_values = "".join(home.run("debug", "--values", name).out for name in names)
    content = (b"1" * 10).hex()
    assert '"name": "large"' not in shown
    assert '"name": "large"' in with_rows
    assert content not in shown + with_rows
    assert content in with_values


def test_debug_without_a_password_or_a_store(home):
    newest = max(name for name in objects(home) if name.endswith(".manifest"))
    home.config.write_text(home.config.read_text().replace("hunter2-hunter2", "another-password"))
    assert home.run("debug", newest).code == 12
    clear = json.loads(home.run("debug", "--clear", newest).out)
    assert clear["kind"] == "manifest"
    assert "trees" not in clear
    assert json.loads(home.run("debug", "zerofs.key").out)["slots"][0]["label"] == "password"
    home.config.unlink()
    file = f"{home.folder}/store/{newest}"
    assert json.loads(home.run("debug", "--clear", file).out) == clear
    assert json.loads(home.run("debug", f"{home.folder}/store/zerofs.key").out)["kind"] == "key sidecar"


def test_what_debug_refuses(home):
    def said(*arguments):
        result = home.run("debug", *arguments)
        assert result.err.count("\n") == 1
        return result.code, result.err

    assert said()[0] == 2
    assert said("nonsense")[0] == 2
    code, text = said("wal/00000000000000009999.sst")
    assert (code, "there is no object wal/00000000000000009999.sst in" in text) == (2, True)
    code, text = said("/nowhere/wal/00000000000000009999.sst")
    assert (code, "cannot be read" in text) == (2, True)
    file = home.folder / "wal" / "00000000000000000001.sst"
    file.parent.mkdir()
    file.write_bytes(b"x" * 100)
    code, text = said(file)
    assert (code, "not an object of a volume" in text) == (16, True)
