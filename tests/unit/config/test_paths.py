"""zerofs.config.paths: where files are looked for."""

import os
import pwd
from pathlib import Path

import pytest

from zerofs.config import paths
from zerofs.errors import ConfigError


def test_home_comes_from_the_user_database_when_the_environment_has_none(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    assert paths.process_environment()["HOME"] == pwd.getpwuid(os.getuid()).pw_dir
    monkeypatch.setenv("HOME", "/elsewhere")
    assert paths.process_environment()["HOME"] == "/elsewhere"


def test_the_configuration_is_the_first_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    if not Path("/etc/zerofs/zerofs.toml").exists():
        with pytest.raises(ConfigError, match=r"no configuration file.*zerofs init"):
            paths.find_config(environ)
    theirs = tmp_path / "config" / "zerofs" / "zerofs.toml"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    assert paths.find_config(environ) == theirs
    (tmp_path / "zerofs.toml").touch()
    assert paths.find_config(environ) == Path("zerofs.toml")
    assert paths.find_config({**environ, "ZEROFS_CONFIG": "/named"}) == Path("/named")


def test_state_directory(monkeypatch):
    assert paths.state_directory({"XDG_STATE_HOME": "/state"}) == Path("/state/zerofs")
    # A relative path is to be ignored, says the XDG specification.
    assert paths.state_directory({"XDG_STATE_HOME": "state"}).is_absolute()
    assert paths.state_directory({"HOME": "/home/me"}) == Path("/home/me/.local/state/zerofs")
    assert paths.state_directory({}).name == "zerofs"


def test_runtime_directory(monkeypatch):
    assert paths.runtime_directory({"ZEROFS_RUNTIME_DIR": "/x"}) == Path("/x")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert paths.runtime_directory({"XDG_RUNTIME_DIR": "/run/user/0"}) == Path("/run/zerofs")
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    assert paths.runtime_directory({"XDG_RUNTIME_DIR": "/run/user/1234"}) == Path("/run/user/1234/zerofs")
    assert paths.runtime_directory({}).name == "zerofs-1234"
