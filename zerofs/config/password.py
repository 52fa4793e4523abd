"""The password from wherever the configuration says: the file itself, a file, a program, or the terminal.

The same trimming and the same rules (`zerofs.keys.password`) hold for every source. Nothing here touches the store, and
no message shows a password or what a program printed.
"""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from zerofs.config.settings import ConfiguredPassword, PasswordCommand, PasswordFile, PasswordSource
from zerofs.crypto.secret import Secret
from zerofs.errors import ConfigError
from zerofs.keys.password import MAX_PASSWORD_SIZE, PLACEHOLDER, check_password

_LINE_LIMIT_BYTES = MAX_PASSWORD_SIZE + 1024
_COMMAND_TIMEOUT_S = 120.0

Prompt = Callable[[str], str]
"""Asks the terminal, without echo, and returns the line without its newline. Raises ConfigError without a terminal."""


def read_password(source: PasswordSource, prompt: Prompt) -> Secret:
    """The volume's password, trimmed and checked.

    Raises:
        ConfigError: the source cannot be read, or the password breaks a rule.
    """
    return check_password(read_text(source, prompt))


def read_text(source: PasswordSource, prompt: Prompt) -> str:
    """What the source holds, before any rule is applied. See `read_password`."""
    match source:
        case ConfiguredPassword(text=text):
            return text.reveal().decode("utf-8", "surrogateescape")
        case PasswordFile(path=path):
            return _from_file(path)
        case PasswordCommand(argv=argv):
            return _from_command(argv)
        case _:
            return prompt("Password: ")


def is_placeholder(source: PasswordSource) -> bool:
    """Whether the configuration file still holds the placeholder of a template."""
    return isinstance(source, ConfiguredPassword) and source.text.reveal().strip() == PLACEHOLDER.encode()


def single_line(data: bytes, origin: str) -> str:
    """The one line of text in `data`, trimmed. `origin` names the source in the message.

    Raises:
        ConfigError: more than one line, or too long.
    """
    if len(data) > _LINE_LIMIT_BYTES:
        raise ConfigError(f"{origin} is too long to be a password")
    text = data.decode("utf-8", "surrogateescape").strip()
    if "\n" in text or "\r" in text:
        raise ConfigError(f"{origin} holds more than one line; a password is one line")
    return text


def _from_file(path: Path) -> str:
    origin = f"[storage] password_file {path}"
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError(f"{origin} has mode {mode:04o}: others may read it; run: chmod 600 {path}")
            data = file.read(_LINE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{origin} cannot be read: {error.strerror}") from None
    return single_line(data, origin)


def _from_command(argv: tuple[str, ...]) -> str:
    origin = "[storage] password_command"
    try:
        # Its standard input is closed to it: `change-password` reads the new password from there.
        done = subprocess.run(  # noqa: S603 (the user's own configured program, without a shell)
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{origin} gave no answer for {_COMMAND_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise ConfigError(f"{origin} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        raise ConfigError(f"{origin} failed with {how}; run it by hand to see why")
    return single_line(done.stdout, f"{origin}'s output")
