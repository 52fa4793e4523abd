"""The control socket inside the process that serves a mount.

Whoever connects must be this process's user or root (SO_PEERCRED), on top of the socket's mode 0600. A malformed line,
a failing handler, a client that goes away: none of them reaches the mount.
"""

import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from zerofs.admin.control import protocol
from zerofs.errors import MountpointError, ZerofsError

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers one kind of request: arguments in, result out; raises ZerofsError for an error with an exit code."""

_FOR_AS_LONG_AS_SOMEBODY_WAITS = frozenset([protocol.WAIT, protocol.STOP])
"""Requests that may take as long as the mount lives: given up with their client, or connections would run out."""

CONNECTIONS_MAX = 32
FAREWELL_S = 2.0
"""How long, at the end, answers under way may take to get out."""


@contextlib.asynccontextmanager
async def serve(path: Path, handlers: Mapping[str, Handler]) -> AsyncIterator[None]:
    """Answer requests at `path` for the duration of the context. The caller owns the path: what lies there is replaced.

    At the end, requests under way get FAREWELL_S to be answered; then the socket is removed.

    Raises:
        MountpointError: the socket cannot be made.
    """
    listener = trio.SocketListener(_listen(path))
    server = _Server(handlers)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, listener)
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await server.finish(FAREWELL_S)
                nursery.cancel_scope.cancel()
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _listen(path: Path) -> trio.socket.SocketType:
    try:
        _remove(path)
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Before bind, so that there is no moment at which others could connect.
            os.fchmod(plain.fileno(), 0o600)
            plain.bind(os.fspath(path))
            plain.listen(CONNECTIONS_MAX)
            plain.setblocking(False)
            return trio.socket.from_stdlib_socket(plain)
        except BaseException:
            plain.close()
            raise
    except OSError as error:
        raise MountpointError(f"the control socket {path} cannot be made: {error.strerror or error}") from error


class _Server:
    """Connections of one listener; each is served by its own task, one request at a time."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._answering = 0
        self._idle = trio.Condition()
        self._connections = 0

    async def run(self, listener: trio.SocketListener, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept and serve until cancelled."""
        await trio.serve_listeners(self._connection, [listener], task_status=_Started(task_status))

    async def finish(self, timeout_s: float) -> None:
        """Wait until the requests under way are answered, at most `timeout_s`."""
        with trio.move_on_after(timeout_s):
            async with self._idle:
                while self._answering:
                    await self._idle.wait()

    async def _connection(self, stream: trio.SocketStream) -> None:
        self._connections += 1
        try:
            async with stream:
                if not _is_permitted(_peer_uid(stream)):
                    await stream.send_all(protocol.encode_error("this socket serves its own user and root only", 1))
                elif self._connections > CONNECTIONS_MAX:
                    await stream.send_all(protocol.encode_error("too many connections; try again", 1))
                else:
                    await self._conversation(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            log.debug("a control connection broke off")
        except Exception:
            log.exception("a control connection failed")
        finally:
            self._connections -= 1

    async def _conversation(self, stream: trio.SocketStream) -> None:
        buffer = b""
        while True:
            line, separator, rest = buffer.partition(b"\n")
            if separator:
                buffer = rest
                await self._respond(stream, line)
                continue
            if len(buffer) >= protocol.REQUEST_LIMIT_BYTES:
                # Where the next request begins is unknown: answer, and end the conversation.
                text = f"a line of more than {protocol.REQUEST_LIMIT_BYTES} bytes"
                await stream.send_all(protocol.encode_error(text, 1))
                return
            data = await stream.receive_some(protocol.REQUEST_LIMIT_BYTES)
            if not data:
                return
            buffer += bytes(data)

    async def _respond(self, stream: trio.SocketStream, line: bytes) -> None:
        self._answering += 1
        try:
            await stream.send_all(await self._answer(line, stream))
        finally:
            self._answering -= 1
            # Shielded: a waiting `finish` must learn of this even when the connection is being cancelled.
            with trio.CancelScope(shield=True):
                async with self._idle:
                    self._idle.notify_all()

    async def _answer(self, line: bytes, stream: trio.SocketStream) -> bytes:
        try:
            request = protocol.decode_request(line)
            handler = self._handlers.get(request.name)
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                raise protocol.ControlError(f"an unknown request; known are: {known}")
            if request.name in _FOR_AS_LONG_AS_SOMEBODY_WAITS:
                return protocol.encode_result(await _while_connected(stream, handler, request.arguments))
            return protocol.encode_result(await handler(request.arguments))
        except ZerofsError as error:
            return protocol.encode_error(str(error), error.exit_code)
        except trio.BrokenResourceError:
            raise
        except Exception:
            log.exception("a control request failed")
            return protocol.encode_error("internal error; the log of the mount tells more", 1)


class _Started:
    """serve_listeners announces its listeners; our caller waits for nothing but the fact."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status

    def started(self, value: object = None) -> None:
        self._task_status.started()


async def _while_connected(stream: trio.SocketStream, handler: Handler, arguments: dict[str, Any]) -> dict[str, Any]:
    """The handler's result. Raises BrokenResourceError when the client goes away before there is one."""

    async def watch() -> None:
        await trio.lowlevel.wait_readable(stream.socket)
        # Looked at, not taken: it may be the next request, and that client is still there.
        if not await stream.socket.recv(1, socket.MSG_PEEK):
            scope.cancel()

    result: dict[str, Any] | None = None
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                result = await handler(arguments)
            except ZerofsError as error:
                failure: ZerofsError | None = error
            else:
                failure = None
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise trio.BrokenResourceError
    if failure is not None:
        raise failure
    assert result is not None
    return result


def _peer_uid(stream: trio.SocketStream) -> int:
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)


def _is_permitted(uid: int) -> bool:
    return uid in (0, os.geteuid())
