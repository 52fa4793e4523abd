"""The proxy that puts a store far away: how long, how wide, and nothing lost.

Upper limits are wide, because machines are busy.
"""

import contextlib
import os
import socket
import threading
import time
import urllib.parse

import pytest

from benches.latency import Line, far_away

MB = 1_000_000
ROUND_TRIP_S = 0.02


def echo(connection):
    with connection:
        while data := connection.recv(1 << 18):
            connection.sendall(data)


@pytest.fixture
def server():
    """The URL of a server that says what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def connect(url):
    address = urllib.parse.urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


def exchange(connection, data):
    """Send, hear everything back. Returns the seconds that it took."""
    begun = time.perf_counter()
    sender = threading.Thread(target=connection.sendall, args=(data,), daemon=True)
    sender.start()
    heard = bytearray()
    while len(heard) < len(data):
        piece = connection.recv(1 << 18)
        assert piece
        heard += piece
    took = time.perf_counter() - begun
    sender.join()
    assert heard == data
    return took


def test_each_exchange_takes_a_round_trip(server):
    with far_away(server, ROUND_TRIP_S) as url, connect(url) as connection:
        took = sorted(exchange(connection, b"x" * 100) for _ in range(9))
        assert took[0] >= ROUND_TRIP_S
        assert took[4] < 1.5 * ROUND_TRIP_S


def test_any_number_may_be_under_way(server):
    with far_away(server, ROUND_TRIP_S) as url, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(url)) for _ in range(16)]
        begun = time.perf_counter()
        for connection in connections:
            connection.sendall(b"x")
        assert [connection.recv(1) for connection in connections] == [b"x"] * 16
        assert ROUND_TRIP_S <= time.perf_counter() - begun < 8 * ROUND_TRIP_S


def test_the_rate_is_shared_by_all_connections(server):
    with far_away(server, 0.0, 20 * MB) as url, connect(url) as one, connect(url) as other:
        both = [threading.Thread(target=exchange, args=(connection, os.urandom(2 * MB))) for connection in (one, other)]
        begun = time.perf_counter()
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert 0.19 <= time.perf_counter() - begun < 1.0


def test_latency_limits_no_rate(server):
    with far_away(server, 0.2, 1000 * MB) as url, connect(url) as connection:
        assert exchange(connection, os.urandom(6 * MB)) < 2.0  # piece by piece it would take five seconds


def test_an_end_is_passed_on(server):
    with far_away(server, ROUND_TRIP_S) as url, connect(url) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b"last words"
        assert connection.recv(100) == b""


def test_a_line_books_one_after_the_other():
    line = Line(1000.0, 5.0)
    first, second = line.arrival(1000), line.arrival(500)
    assert second - first == pytest.approx(0.5)
    assert first == pytest.approx(time.monotonic() + 6, abs=0.5)
