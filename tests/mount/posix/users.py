"""Users that make system calls: a forked process each, with real ids and supplementary groups of its own, if root may
give it any; several of them at the same time, if a test asks for that.
"""

import errno
import os
import pickle
import select
import signal
import struct
import time
from typing import Any

import pytest

GROUP = 64_000
"""Of alice and of bob, besides their own."""

only_mounts = pytest.mark.parametrize("ground", ["pyfuse3", "native"], indirect=True)
"""For what a plain directory does otherwise."""

only_pyfuse3 = pytest.mark.parametrize("ground", ["pyfuse3"], indirect=True)
only_native = pytest.mark.parametrize("ground", ["native"], indirect=True)
"""For what one driver hands on, and the other does not."""

_LENGTH = struct.Struct("<I")


class User:
    """One user. Every function of `os` is a method, called as that user: `alice.mkdir(path)`. Its error comes back."""

    def __init__(self, name: str, uid: int, gid: int, groups: list[int]) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        ours, theirs = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(ours[1])
            os.close(theirs[0])
            _serve(ours[0], theirs[1], uid, gid, groups)
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = ours[1], theirs[0]

    def do(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """Call a function of `os`, by name, or one that can be pickled, as this user."""
        self.begin(function, *arguments, **options)
        return self.result()

    def begin(self, function: Any, *arguments: Any, **options: Any) -> None:
        """The same, without waiting for it: `result` does."""
        _send(self._to, (function, arguments, options))

    def result(self, patience_s: float | None = None) -> Any:
        """What the call that was begun came to; what it raised is raised. TimeoutError: not yet."""
        ready, _, _ = select.select([self._from], [], [], patience_s)
        if not ready:
            raise TimeoutError
        ok, result = _receive(self._from)
        if ok:
            return result
        raise result

    def kill(self) -> None:
        """kill -9, whatever it is doing; it is gone afterwards."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._to)
        os.close(self._from)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self.do(name, *arguments, **options)

    def end(self) -> None:
        """Let the process go. It is told: those forked later hold its pipe, too, so it would not see the end."""
        _send(self._to, None)
        os.close(self._to)
        os.close(self._from)
        os.waitpid(self.pid, 0)

    def __repr__(self) -> str:
        return self.name


def _serve(incoming: int, outgoing: int, uid: int, gid: int, groups: list[int]) -> None:
    try:
        if not os.geteuid():
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        os.umask(0)
        while request := _receive(incoming):
            function, arguments, options = request
            call = getattr(os, function) if isinstance(function, str) else function
            try:
                answer = True, call(*arguments, **options)
            except Exception as error:
                answer = False, error
            _send(outgoing, answer)
    finally:
        os._exit(0)


def _send(descriptor: int, message: Any) -> None:
    data = pickle.dumps(message)
    os.write(descriptor, _LENGTH.pack(len(data)) + data)


def _receive(descriptor: int) -> Any:
    head = os.read(descriptor, _LENGTH.size)
    if not head:
        return None
    (size,) = _LENGTH.unpack(head)
    data = b""
    while len(data) < size:
        data += os.read(descriptor, size - len(data))
    return pickle.loads(data)


def outcome(call: Any, *arguments: Any, **options: Any) -> str:
    """The name of the error that a call ends with, or "ok"."""
    try:
        call(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"


def write_to(path: str, data: bytes, flags: int = os.O_WRONLY, offset: int = 0) -> int:
    """Open, write, close."""
    descriptor = os.open(path, flags, 0o644)
    try:
        return os.pwrite(descriptor, data, offset)
    finally:
        os.close(descriptor)


def open_and_close(path: str, flags: int, mode: int = 0o644) -> None:
    """open(2), and nothing of it is left."""
    os.close(os.open(path, flags, mode))


def names_in(path: str) -> list[str]:
    """opendir(3) and readdir(3)."""
    return sorted(os.listdir(path))


def tick() -> None:
    """Let the clock that stamps files move on: it may be as coarse as a timer tick."""
    time.sleep(0.02)
