"""zerofs.config.password: every source, the same trimming and the same rules."""

import os
import sys

import pytest

from zerofs.config import password
from zerofs.config.password import is_placeholder, read_password, single_line
from zerofs.config.settings import ConfiguredPassword, PasswordCommand, PasswordFile, PasswordPrompt
from zerofs.crypto.secret import Secret
from zerofs.errors import ConfigError

GOOD = "correct horse battery"


def no_prompt(question):
    raise AssertionError("the terminal must not be asked")


def configured(text):
    return ConfiguredPassword(text=Secret(text.encode()))


@pytest.fixture
def in_file(tmp_path):
    def in_file(content, mode=0o600):
        path = tmp_path / "password"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return PasswordFile(path=path)

    return in_file


def printing(text, code=0):
    program = f"import sys; sys.stdout.write({text!r}); sys.stderr.write('noise ' + {text!r}); sys.exit({code})"
    return PasswordCommand(argv=(sys.executable, "-c", program))


def test_all_sources_trim_alike(in_file):
    padded = f"  {GOOD}\t\r\n"
    sources = [configured(padded), in_file(padded), printing(padded)]
    found = [read_password(source, no_prompt).reveal().decode() for source in sources]
    asked = []
    found.append(read_password(PasswordPrompt(), lambda question: asked.append(question) or padded).reveal().decode())
    assert found == [GOOD] * 4
    assert asked == ["Password: "]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Password cannot be empty"),
        ("   \n", "Password cannot be empty"),
        ("short77", "Password must be at least 8 characters long"),
        (" CHANGEME\n", "Please choose a secure password, not 'CHANGEME'"),
    ],
)
def test_all_sources_obey_the_rules(in_file, text, message):
    for source in (configured(text), in_file(text), printing(text), PasswordPrompt()):
        with pytest.raises(ConfigError, match=f"^{message}$"):
            read_password(source, lambda _: text)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o601])
def test_a_file_that_others_may_read_is_refused(in_file, mode):
    source = in_file(GOOD, mode)
    with pytest.raises(ConfigError, match=rf"mode {mode:04o}.*chmod 600 {source.path}"):
        read_password(source, no_prompt)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(in_file, mode):
    assert read_password(in_file(GOOD, mode), no_prompt).reveal() == GOOD.encode()


def test_bytes_that_are_not_text_come_through(in_file):
    assert read_password(in_file(b"\xff\xfe-and-more\n"), no_prompt).reveal() == b"\xff\xfe-and-more"


def test_more_than_one_line_is_refused_without_showing_it(in_file):
    for source in (in_file(f"{GOOD}\nsecond line\n"), printing(f"{GOOD}\nsecond line\n")):
        with pytest.raises(ConfigError, match="more than one line") as caught:
            read_password(source, no_prompt)
        assert "horse" not in str(caught.value)


def test_a_huge_file_is_not_a_password(in_file):
    with pytest.raises(ConfigError, match="too long"):
        read_password(in_file("x" * 100_000), no_prompt)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_password(PasswordFile(path=tmp_path / "missing"), no_prompt)


def test_a_failing_command_is_told_without_its_output(capfd):
    with pytest.raises(ConfigError, match="failed with exit code 3") as caught:
        read_password(printing(GOOD, 3), no_prompt)
    assert "horse" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_killed_command():
    source = PasswordCommand(argv=(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(ConfigError, match="failed with signal 9"):
        read_password(source, no_prompt)


def test_a_command_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="password_command cannot be run: No such file"):
        read_password(PasswordCommand(argv=(str(tmp_path / "nothing"),)), no_prompt)


def test_a_command_that_never_ends(monkeypatch):
    monkeypatch.setattr(password, "_COMMAND_TIMEOUT_S", 0.05)
    source = PasswordCommand(argv=(sys.executable, "-c", "import signal; signal.pause()"))
    with pytest.raises(ConfigError, match="gave no answer"):
        read_password(source, no_prompt)


def test_a_command_does_not_read_our_standard_input():
    reader, writer = os.pipe()
    saved = os.dup(0)
    try:
        os.write(writer, b"the new password\n")
        os.close(writer)
        os.dup2(reader, 0)
        source = PasswordCommand(argv=(sys.executable, "-c", f"import sys; print(len(sys.stdin.read()), '{GOOD}')"))
        assert read_password(source, no_prompt).reveal() == f"0 {GOOD}".encode()
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reader)


def test_placeholder():
    assert is_placeholder(configured(" CHANGEME\n"))
    assert not is_placeholder(configured("CHANGEME2"))
    assert not is_placeholder(PasswordPrompt())


def test_single_line_keeps_inner_space():
    assert single_line(b" a b \n", "it") == "a b"
