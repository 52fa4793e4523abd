"""The rules for passwords: one function, whatever source the text comes from."""

from zerofs.crypto.secret import Secret
from zerofs.errors import ConfigError

MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_SIZE = 4096
PLACEHOLDER = "CHANGEME"


def check_password(text: str) -> Secret:
    """The password in `text`, with surrounding whitespace removed, as UTF-8.

    Whitespace goes from every source alike, so that the newline at the end of a password file or a pipe never matters.
    No Unicode normalisation: what a secret manager holds is used as it is. Bytes that are not UTF-8 come as surrogate
    escapes and go back to what they were.

    Raises:
        ConfigError: empty, shorter than 8 characters, longer than 4096 bytes, or the placeholder of the sample
            configuration. The message never contains the text.
    """
    password = text.strip()
    if not password:
        raise ConfigError("Password cannot be empty")
    if password == PLACEHOLDER:
        raise ConfigError(f"Please choose a secure password, not '{PLACEHOLDER}'")
    if len(password) < MIN_PASSWORD_LENGTH:
        raise ConfigError(f"Password must be at least {MIN_PASSWORD_LENGTH} characters long")
    value = _encode(password)
    if value is None:
        raise ConfigError("Password contains characters that cannot be encoded")
    if len(value) > MAX_PASSWORD_SIZE:
        raise ConfigError(f"Password must be at most {MAX_PASSWORD_SIZE} bytes long")
    return Secret(value)


def _encode(password: str) -> bytes | None:
    # None instead of an error in flight: a UnicodeEncodeError holds the whole text, and would go along as context.
    try:
        return password.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
