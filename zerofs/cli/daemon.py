"""Becoming a daemon, and telling the command that started it how that went.

    command ── fork ── setsid ── fork ── daemon
       └──────────── pipe ─────────────────┘     {"pid": N}, then {"pid": N, "ready": true}
                                             or {"pid": N, "error": TEXT, "exit_code": N}

The command returns when the daemon says that it is ready, and otherwise ends with the daemon's own error and exit code.
A signal that ends the command before that ends the daemon too: nothing is mounted later behind the back of somebody who
gave up. The fork happens before trio and before any thread; whatever needs the terminal (the password) has been done by
then.
"""

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from zerofs.admin.control.protocol import RemoteError
from zerofs.cli import exitcodes
from zerofs.errors import ConfigError, MountpointError, ZerofsError

_MESSAGE_LIMIT_BYTES = 64 * 1024
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a command."""


class StoppedError(ZerofsError):
    """A signal told the command to end before the mount was there. The exit code is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name} before it was mounted; the mount is given up")
        self.exit_code = exitcodes.for_signal(number)


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
        StoppedError, KeyboardInterrupt: told to end; the daemon has been told the same.
        ConfigError: `log` cannot be written.
    """
    output = _open_log(log)
    ours, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # No signal in between: one that ended only the command would leave the daemon behind.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    child = os.fork()
    if child == 0:
        os.close(ours)
        _detach(output)
        _run(work, Reporter(theirs), mask)
    os.close(theirs)
    os.close(output)
    with open(ours, "rb", buffering=0) as pipe, _told_to_end() as told:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.waitpid(child, 0)
        if not _is_mounted(_Listener(pipe), told):
            raise MountpointError(f"the mount's process ended without a word; its log is {log}")


def _is_mounted(listener: "_Listener", told: int) -> bool:
    """Wait for the daemon's word: True when it is ready, False when it ended without one. Raises as `start` does."""
    while listener.open:
        readable, _, _ = select.select([listener.pipe.fileno(), told], [], [])
        if told in readable:
            number = os.read(told, 1)[0]
            listener.end_daemon()
            raise KeyboardInterrupt if number == signal.SIGINT else StoppedError(number)
        for message in listener.receive():
            if "error" in message:
                raise RemoteError(message["error"], message["exit_code"])
            if "ready" in message:
                return True
    return False


class _Listener:
    """The command's end of the pipe."""

    def __init__(self, pipe: BinaryIO) -> None:
        self.pipe = pipe
        self.open = True
        self._pid: int | None = None
        self._begun = b""

    def receive(self) -> list[dict[str, Any]]:
        """Wait for something; the messages that are complete now. Clears `open` when there will be no more."""
        data = self.pipe.read(_MESSAGE_LIMIT_BYTES)
        self.open = bool(data)
        *lines, self._begun = (self._begun + data).split(b"\n")
        messages = [json.loads(line) for line in lines]
        if messages:
            self._pid = messages[0]["pid"]
        return messages

    def end_daemon(self) -> None:
        """Tell the daemon to stop; if it has not told its pid yet, that is what it does first of all."""
        while self._pid is None and self.open:
            self.receive()
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)


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


@contextlib.contextmanager
def _told_to_end() -> Iterator[int]:
    """A descriptor that gives the numbers of the signals that want to end us, which do nothing else meanwhile.

    No exceptions out of handlers: they could come between reading a message and noting it. What is ignored stays so.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.getsignal(number) for number in _ENDING}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _run(work: Callable[[Reporter], int], reporter: Reporter, mask: Collection[int]) -> NoReturn:
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        reporter.began()
        code = work(reporter)
    finally:
        # Not sys.exit: the frames above belong to the command, which is another process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
