"""The control socket: trio server and blocking client together, over real Unix sockets."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio

from zerofs.admin.control import client, protocol, server
from zerofs.admin.control.protocol import ControlError, RemoteError
from zerofs.errors import FencedError, MountpointError


@pytest.fixture
def path():
    """Short, because the path of a Unix socket may have 107 bytes only."""
    folder = tempfile.mkdtemp(prefix="zerofs-")
    yield Path(folder) / "s"
    shutil.rmtree(folder)


class Handlers(dict):
    """A mount that knows a few requests."""

    def __init__(self):
        super().__init__(status=self.status, fenced=self.fenced, broken=self.broken, wait=self.wait, odd=self.odd)
        self.released = trio.Event()
        self.waiting = trio.Event()
        self.gave_up, self.given_up = trio.open_memory_channel(100)

    async def status(self, arguments):
        return {"state": "ok", **arguments}

    async def fenced(self, arguments):
        raise FencedError("another writer")

    async def broken(self, arguments):
        raise KeyError("a secret file name")

    async def odd(self, arguments):
        return {"x": b"not JSON"}

    async def wait(self, arguments):
        self.waiting.set()
        try:
            await self.released.wait()
        except trio.Cancelled:
            self.gave_up.send_nowait(None)
            raise
        return {"ended": True}


async def ask(path, name, arguments=None):
    def run():
        with client.Connection(path) as connection:
            return connection.ask(name, arguments, timeout_s=5)

    return await trio.to_thread.run_sync(run)


async def exchange(path, data, *, end=False):
    """Whatever the server answers to raw bytes, up to its closing the connection or, without `end`, one line."""
    stream = await trio.open_unix_socket(path)
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
        received = b""
        while end or b"\n" not in received:
            try:
                more = await stream.receive_some()
            except trio.BrokenResourceError:
                break
            if not more:
                break
            received += bytes(more)
        return received


async def test_a_question_and_its_answer(path):
    async with server.serve(path, Handlers()):
        assert await ask(path, "status", {"a": [1]}) == {"state": "ok", "a": [1]}


async def test_one_connection_asks_many_times_and_knows_the_pid(path):
    def run():
        with client.Connection(path) as connection:
            return connection.pid, [connection.ask("status", {"n": n})["n"] for n in range(5)]

    async with server.serve(path, Handlers()):
        assert await trio.to_thread.run_sync(run) == (os.getpid(), [0, 1, 2, 3, 4])


async def test_an_error_keeps_its_exit_code(path):
    async with server.serve(path, Handlers()):
        with pytest.raises(RemoteError, match="another writer") as caught:
            await ask(path, "fenced")
    assert caught.value.exit_code == 18


async def test_an_internal_error_is_hidden_and_the_server_goes_on(path, caplog):
    async with server.serve(path, Handlers()):
        with pytest.raises(RemoteError, match="internal error") as caught:
            await ask(path, "broken")
        assert "secret" not in str(caught.value)
        with pytest.raises(RemoteError, match="JSON"):
            await ask(path, "odd")
        assert (await ask(path, "status"))["state"] == "ok"
    assert "a control request failed" in caplog.text


async def test_an_unknown_request_names_the_known_ones(path):
    async with server.serve(path, Handlers()):
        with pytest.raises(RemoteError, match="broken, fenced, odd, status, wait"):
            await ask(path, "explode")


@pytest.mark.parametrize("line", [b"\n", b"hello\n", b"\xff\xfe\n", b"[]\n", b'{"zerofs": 9}\n', b"[" * 9000 + b"\n"])
async def test_malformed_lines_get_an_error_and_the_conversation_goes_on(path, line):
    good = protocol.encode_request(protocol.Request(name="status"))
    async with server.serve(path, Handlers()):
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(line + good)
            received = b""
            while received.count(b"\n") < 2:
                received += bytes(await stream.receive_some())
        first, second = received.splitlines()
        with pytest.raises(RemoteError):
            protocol.decode_response(first)
        assert protocol.decode_response(second) == {"state": "ok"}


async def test_an_endless_line_ends_the_conversation_only(path):
    async with server.serve(path, Handlers()):
        answer = await exchange(path, b"x" * (10 * protocol.REQUEST_LIMIT_BYTES), end=True)
        if answer:  # the kernel may drop it, because we were still sending
            with pytest.raises(RemoteError, match="more than"):
                protocol.decode_response(answer)
        assert (await ask(path, "status"))["state"] == "ok"


async def test_a_client_that_goes_away_disturbs_nobody(path):
    handlers = Handlers()
    async with server.serve(path, handlers):
        stream = await trio.open_unix_socket(path)
        await stream.send_all(protocol.encode_request(protocol.Request(name="wait")))
        await handlers.waiting.wait()
        await stream.aclose()
        handlers.released.set()
        assert (await ask(path, "status"))["state"] == "ok"


async def test_too_many_connections_are_told_so(path):
    async with server.serve(path, Handlers()), contextlib.AsyncExitStack() as stack:
        for _ in range(server.CONNECTIONS_MAX):
            stream = await stack.enter_async_context(await trio.open_unix_socket(path))
            await stream.send_all(protocol.encode_request(protocol.Request(name="status")))
            await stream.receive_some()
        with pytest.raises(RemoteError, match="too many connections"):
            protocol.decode_response(await exchange(path, b"", end=True))


async def test_strangers_are_refused(path, monkeypatch):
    monkeypatch.setattr(server, "_peer_uid", lambda stream: 4242)
    async with server.serve(path, Handlers()):
        with pytest.raises(RemoteError, match="its own user and root only"):
            protocol.decode_response(await exchange(path, b"", end=True))


def test_who_is_permitted(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [server._is_permitted(uid) for uid in (0, 1000, 1001)] == [True, True, False]


async def test_the_peer_is_who_the_kernel_says(path):
    async with server.serve(path, Handlers()):
        ours, theirs = socket.socketpair()
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            assert server._peer_uid(stream) == os.getuid()
        theirs.close()


async def test_the_socket_is_private_and_removed(path):
    previous = os.umask(0)
    try:
        async with server.serve(path, Handlers()):
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(previous)
    assert not path.exists()


async def test_a_stale_socket_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(os.fspath(path))
    async with server.serve(path, Handlers()):
        assert (await ask(path, "status"))["state"] == "ok"


async def test_a_socket_that_cannot_be_made(path):
    with pytest.raises(MountpointError, match="control socket"):
        async with server.serve(path.parent / "missing" / "s", Handlers()):
            pass


async def test_answers_under_way_get_out_at_the_end(path):
    handlers = Handlers()
    answers = []

    async def waiter():
        answers.append(await ask(path, "wait"))

    async with trio.open_nursery() as nursery, server.serve(path, handlers):
        nursery.start_soon(waiter)
        await handlers.waiting.wait()
        handlers.released.set()
    assert answers == [{"ended": True}]


async def test_a_request_that_never_ends_delays_the_end_for_a_moment_only(path, autojump_clock):
    handlers = Handlers()
    stream = None
    began = trio.current_time()
    async with server.serve(path, handlers):
        stream = await trio.open_unix_socket(path)
        await stream.send_all(protocol.encode_request(protocol.Request(name="wait")))
        await handlers.waiting.wait()
    await stream.aclose()
    assert trio.current_time() - began == pytest.approx(server.FAREWELL_S)


async def test_a_wait_is_given_up_with_its_client(path):
    handlers = Handlers()
    async with server.serve(path, handlers):
        for _ in range(2 * server.CONNECTIONS_MAX):
            handlers.waiting = trio.Event()
            stream = await trio.open_unix_socket(path)
            await stream.send_all(protocol.encode_request(protocol.Request(name="wait")))
            await handlers.waiting.wait()
            await stream.aclose()
            await handlers.given_up.receive()
        assert (await ask(path, "status"))["state"] == "ok"


async def test_a_request_behind_a_wait_does_not_end_it(path):
    handlers = Handlers()

    def run():
        with client.Connection(path) as connection:
            connection.send("status", "wait", "status")
            first = connection.receive(5)
            trio.from_thread.run_sync(handlers.released.set)
            return first, connection.receive(5), connection.receive(5)

    async with server.serve(path, handlers):
        answers = await trio.to_thread.run_sync(run)
    assert answers == ({"state": "ok"}, {"ended": True}, {"state": "ok"})


async def test_a_wait_may_end_with_an_error(path):
    handlers = Handlers()
    handlers["wait"] = handlers.fenced
    async with server.serve(path, handlers):
        with pytest.raises(RemoteError, match="another writer"):
            await ask(path, "wait")


def test_nobody_listens(path):
    with pytest.raises(client.NobodyListensError):
        client.Connection(path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    with pytest.raises(client.NobodyListensError):
        client.Connection(path)


def listening(path):
    """A server that says what a test tells it to."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen(1)
    return listener


def test_a_server_that_ends_without_an_answer(path):
    with listening(path) as listener, client.Connection(path) as connection:
        accepted, _ = listener.accept()
        connection.send("status")
        accepted.recv(1000)
        accepted.close()
        with pytest.raises(client.NobodyListensError, match="ended without an answer"):
            connection.receive()


def test_a_server_that_does_not_answer(path):
    with listening(path) as listener, client.Connection(path) as connection:
        accepted, _ = listener.accept()
        with pytest.raises(MountpointError, match=f"pid {os.getpid()}.*does not answer"):
            connection.ask("status", timeout_s=0.01)
        accepted.close()


def test_a_server_that_talks_nonsense(path):
    with listening(path) as listener, client.Connection(path) as connection:
        accepted, _ = listener.accept()
        accepted.sendall(b"nonsense\n")
        with pytest.raises(ControlError):
            connection.receive(1)
        accepted.close()


def test_waiting_for_a_process_to_end():
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        assert not client.wait_for_exit(process.pid, 0)
        process.stdin.close()
        assert client.wait_for_exit(process.pid, 30)
    assert client.wait_for_exit(process.pid, 0)
