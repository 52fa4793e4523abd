"""Becoming a daemon, and telling the command that started it how that went.

    command ── fork ── setsid ── fork ── daemon
       └──────────── pipe ─────────────────┘     {"pid": N}, then {"pid": N, "ready": true}
                                             or {"pid": N, "error": TEXT, "exit_code": N}

The command returns when the daemon says that it is ready, and otherwise ends with the daemon's own error and exit code.
The fork happens before trio and before any thread; whatever needs the terminal (the password) has been done by then.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from zerofs.admin.control.protocol import RemoteError
from zerofs.errors import ConfigError, MountpointError

_MESSAGE_LIMIT_BYTES = 64 * 1024
_LOG_LIMIT_BYTES = 10 * 1024 * 1024


class Reporter:
    """The daemon's end of the pipe. Speaks once; afterwards nobody listens any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def ready(self) -> None:
        """The mount can be used: let the command return."""
        self._last({"ready": True})

    def failed(self, message: str, exit_code: int) -> None:
        """The mount cannot be had: let the command end with this. Without effect after `ready`."""
        self._last({"error": message[:4096], "exit_code": exit_code})

    def began(self) -> None:
        """Tell our pid, so that the command can end us while we are not ready."""
        self._send({})

    def _last(self, message: dict[str, Any]) -> None:
        self._send(message)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _send(self, message: dict[str, Any]) -> None:
        if self._descriptor is not None:
            # The command may be gone (Ctrl-C); a mount that somebody asked for is not given up for that.
            with contextlib.suppress(OSError):
                os.write(self._descriptor, json.dumps({"pid": os.getpid(), **message}).encode() + b"\n")


def start(log: Path, work: Callable[[Reporter], int]) -> None:
    """Run `work` in a daemon whose output goes to `log`; return when it reports that it is ready.

    `work` returns the daemon's exit code and must have reported before it does. It runs in the daemon only: there this
    function never returns.

    Raises:
        RemoteError: the daemon's own error, with its exit code.
        MountpointError: the daemon ended without a word.
        ConfigError: `log` cannot be written.
    """
    output = _open_log(log)
    ours, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _detach(output)
        _run(work, Reporter(theirs))
    os.close(theirs)
    os.close(output)
    with os.fdopen(ours, "rb") as pipe:
        pid: int | None = None
        try:
            os.waitpid(child, 0)
            for message in _messages(pipe):
                pid = message["pid"]
                if _is_ready(message):
                    return
        except KeyboardInterrupt:
            _end_daemon(pid, pipe)
            raise
    raise MountpointError(f"the mount's process ended without a word; its log is {log}")


def _open_log(log: Path) -> int:
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_name(log.name + ".1"))
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"the log {log} cannot be written: {error.strerror}") from error


def _detach(output: int) -> None:
    """Leave the session of the terminal for good, and put standard input and output where they disturb nobody."""
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)


def _run(work: Callable[[Reporter], int], reporter: Reporter) -> NoReturn:
    code = 1
    try:
        reporter.began()
        code = work(reporter)
    finally:
        # Not sys.exit: the frames above belong to the command, which is another process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _is_ready(message: dict[str, Any]) -> bool:
    if "error" in message:
        raise RemoteError(message["error"], message["exit_code"])
    return "ready" in message


def _end_daemon(pid: int | None, pipe: BinaryIO) -> None:
    """Tell the daemon to stop; if it has not told its pid yet, that is what it does first of all."""
    pid = pid or next((message["pid"] for message in _messages(pipe)), None)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _messages(pipe: BinaryIO) -> Iterator[dict[str, Any]]:
    while line := pipe.readline(_MESSAGE_LIMIT_BYTES):
        yield json.loads(line)
