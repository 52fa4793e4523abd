"""zerofs.cli.failure: every exception becomes one line and a code."""

import pytest
import trio

from zerofs import errors
from zerofs.cli import failure
from zerofs.cli.failure import describe


def test_our_errors_speak_for_themselves():
    assert describe(errors.KeyMissingError("no")) == failure.Failure(message="no", exit_code=13)


def test_a_group_speaks_with_the_voice_that_matters():
    group = BaseExceptionGroup("g", [KeyError("x"), BaseExceptionGroup("h", [errors.FencedError("fenced")])])
    assert describe(group) == failure.Failure(message="fenced", exit_code=18)
    group = ExceptionGroup("g", [errors.FencedError("fenced"), errors.UnsavedDataError("unsaved")])
    assert describe(group).exit_code == 19


def test_interruptions():
    assert describe(KeyboardInterrupt()).exit_code == 130
    assert describe(BaseExceptionGroup("g", [KeyboardInterrupt()])).exit_code == 130
    assert describe(BrokenPipeError()).exit_code == 141


def raise_with_a_secret():
    name = "secret-file-" + "name"
    raise ValueError(name)


def test_what_nobody_expected_is_written_down_without_its_text(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    try:
        raise_with_a_secret()
    except ValueError as error:
        found = describe(error)
    log = tmp_path / "zerofs" / "logs" / "errors.log"
    assert found.exit_code == 1
    assert found.message == f"internal error (ValueError); the details are in {log}; -v shows it here"
    text = log.read_text()
    assert "builtins.ValueError" in text
    assert "raise_with_a_secret" in text
    assert "secret-file-name" not in text
    assert log.stat().st_mode & 0o777 == 0o600


def test_an_error_log_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "zerofs").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert "could not be written" in describe(ValueError()).message


async def test_a_real_nursery():
    async def fail():
        raise errors.MountpointError("busy")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
    assert describe(caught.value) == failure.Failure(message="busy", exit_code=20)


def test_a_wrong_password_has_a_remedy():
    failed = describe(errors.WrongPasswordError("Failed to unwrap DEK"))
    assert failed.exit_code == 12
    assert failed.message.startswith("the password does not open this volume (Failed to unwrap DEK): check ")
    assert "zerofs change-password" in failed.message
