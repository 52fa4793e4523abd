"""Logging set-up: one format, one place to write to.

    2025-11-21T10:00:00.123Z WARNING zerofs.objectstore.retrying: put wal/… failed, trying again in 0.4 s

Rooms use `logging.getLogger(__name__)` and never configure anything. A message names inodes by number and objects by
name; names and contents of files never appear, secrets neither (they have no telling repr). A traceback is printed
without values of variables. Other libraries speak from WARNING up only, whatever level is asked for: botocore's DEBUG
lines hold request headers.
"""

import datetime
import io
import logging
import os
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

from zerofs.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")

_HANDLER_NAME = "zerofs"
_LOUD_LIBRARIES = ("boto3", "botocore", "s3transfer", "urllib3", "trio", "pyfuse3")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LineFormatter(logging.Formatter):
    """`time level logger: message` in UTC. Control characters are escaped, so one message cannot pose as two."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, then the traceback if there is one."""
        message = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), record.getMessage())
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {message}"
        # Not `record.exc_text`: another formatter's cache may hold what this one would leave out.
        if record.exc_info and record.exc_info[1]:
            return f"{line}\n{self.formatException(record.exc_info)}"
        return line

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """ISO 8601 with milliseconds."""
        moment = datetime.datetime.fromtimestamp(record.created, tz=datetime.UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"

    def formatException(self, ei: _ExcInfo) -> str:
        """The traceback: lines of code and the exception's text, no variables."""
        assert ei[1], "format() asks for the traceback of an exception only"
        return "".join(traceback.TracebackException.from_exception(ei[1], capture_locals=False).format()).rstrip("\n")


class _PrivateFileHandler(logging.FileHandler):
    """Appends to a file that only its owner may read."""

    def _open(self) -> io.TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=_open_private)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def configure(level: str, file: Path | None = None) -> None:
    """Send log lines of `level` (one of LEVELS, any case) and above to `file`, or to stderr.

    May be called again: the new setting replaces the old one. The file is made with mode 0600.

    Raises:
        ConfigError: unknown level, or the file cannot be opened. The old setting stays.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"unknown log level {level!r}: use one of {', '.join(LEVELS)}")
    handler: logging.Handler
    try:
        handler = _PrivateFileHandler(file) if file else logging.StreamHandler(sys.stderr)
    except OSError as exc:
        raise ConfigError(f"cannot open the log file {file}: {exc.strerror}") from exc
    handler.setFormatter(LineFormatter())
    handler.setLevel(level.upper())
    handler.set_name(_HANDLER_NAME)
    root = logging.getLogger()
    for old in [known for known in root.handlers if known.get_name() == _HANDLER_NAME]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("zerofs").setLevel(level.upper())
    # Set explicitly: a library that sets its own logger to DEBUG would otherwise pass the root's level by.
    for name in _LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
