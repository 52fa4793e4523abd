"""The blocking side of the control socket, for commands."""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zerofs.admin.control import protocol
from zerofs.errors import MountpointError

_CONNECT_TIMEOUT_S = 10.0


class NobodyListensError(MountpointError):
    """There is no socket, or no process behind it any more."""


class Connection:
    """A conversation with the process that serves a mount. A context manager.

    Raises:
        NobodyListensError: no process is there to answer.
        MountpointError: the socket is not ours to use, or does not answer.
    """

    def __init__(self, path: Path) -> None:
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_CONNECT_TIMEOUT_S)
            self._socket.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self._socket.close()
            raise NobodyListensError("the process that served the mount has ended; run `zerofs umount`") from error
        except OSError as error:
            self._socket.close()
            raise MountpointError(f"the control socket {path} cannot be used: {error.strerror or error}") from error
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid: int = struct.unpack("3i", credentials)[0]

    def send(self, *names: str) -> None:
        """Send requests without arguments, in one piece; `receive` takes their answers one by one.

        When the first of several is answered, the next has begun: nothing can come between.
        """
        self._send([protocol.Request(name=name) for name in names])

    def _send(self, requests: Sequence[protocol.Request]) -> None:
        try:
            self._socket.sendall(b"".join(protocol.encode_request(request) for request in requests))
        except OSError as error:
            raise NobodyListensError("the process that serves the mount broke the connection off") from error

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """The next result; waits as long as it takes when `timeout_s` is None.

        Raises:
            RemoteError: the mount's process reports an error.
            NobodyListensError: the process ended without an answer.
            MountpointError: it gave none in time.
        """
        self._socket.settimeout(timeout_s)
        while b"\n" not in self._buffer:
            if len(self._buffer) > protocol.RESPONSE_LIMIT_BYTES:
                raise protocol.ControlError("the response is too long")
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise MountpointError(f"the process that serves the mount (pid {self.pid}) does not answer") from None
            except OSError as error:
                raise NobodyListensError("the process that serves the mount broke the connection off") from error
            if not data:
                raise NobodyListensError("the process that served the mount ended without an answer")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return protocol.decode_response(line)

    def ask(
        self, name: str, arguments: dict[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Send one request and wait for its answer; raises as `receive` does."""
        self._send([protocol.Request(name=name, arguments=arguments or {})])
        return self.receive(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()


def wait_for_exit(pid: int, timeout_s: float) -> bool:
    """Whether process `pid` has ended, after waiting at most `timeout_s`. It need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return True  # gone already
    with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0)):
        readable, _, _ = select.select([descriptor], [], [], timeout_s)
        return bool(readable)
