"""A store that is far away: a TCP proxy that adds latency, and is as wide as a line.

    python -m benches.latency HOST:PORT [--round-trip-ms 20] [--megabytes-s 200]

prints the port of 127.0.0.1 that it listens on, and ends when its standard input does. `far_away` does that for a
program. It is a process of its own, so that it shares no interpreter lock with a load.

The model is a line: what comes in waits its turn at the given rate, one queue for all connections of a direction, and
arrives half a round trip after that. Any number of requests may be under way, so latency by itself limits no rate.
Connecting costs nothing, which flatters whoever opens a connection for each request.
"""

import argparse
import collections
import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

PIECE = 256 << 10
QUEUED_BYTES = 8 << 20
"""What one connection may have on the line: more than a round trip of the whole rate, or it would limit that."""
AHEAD_S = 0.005
"""How far the line may be booked before nobody takes in more: what senders see as a full line."""


class Line:
    """One direction, shared by all connections: when what comes in now has left on a line of this rate."""

    def __init__(self, bytes_s, delay_s):
        self._bytes_s, self._delay_s = bytes_s, delay_s
        self._free_at = 0.0
        self._lock = threading.Lock()

    def arrival(self, size):
        """When `size` bytes that come in now arrive at the other end, on the monotonic clock."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._bytes_s
            return self._free_at + self._delay_s

    def wait_for_room(self):
        """Return when the line is not booked too far ahead."""
        while (ahead := self._free_at - time.monotonic()) > AHEAD_S:
            time.sleep(ahead - AHEAD_S / 2)


class Direction:
    """One direction of one connection: a thread takes in, another gives out."""

    def __init__(self, line, source, target):
        self._line, self._source, self._target = line, source, target
        self._under_way = collections.deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._broken = False

    def start(self):
        """Both threads; returns them."""
        threads = [threading.Thread(target=work, daemon=True) for work in (self._take_in, self._give_out)]
        for thread in threads:
            thread.start()
        return threads

    def _take_in(self):
        data = b"-"
        while data:
            self._line.wait_for_room()
            try:
                data = self._source.recv(PIECE)
            except OSError:
                data = b""
            with self._changed:
                self._under_way.append((self._line.arrival(len(data)), data))
                self._queued += len(data)
                self._changed.notify_all()
                while self._queued > QUEUED_BYTES and not self._broken:
                    self._changed.wait()
            if self._broken:
                return

    def _give_out(self):
        data = b"-"
        while data:
            with self._changed:
                while not self._under_way:
                    self._changed.wait()
                at, data = self._under_way.popleft()
            time.sleep(max(at - time.monotonic(), 0))
            try:
                if data:
                    self._target.sendall(data)
                else:
                    self._target.shutdown(socket.SHUT_WR)
            except OSError:
                self._give_up()
                return
            with self._changed:
                self._queued -= len(data)
                self._changed.notify_all()

    def _give_up(self):
        """Nobody listens any more: let the other thread, and the sender, know."""
        with self._changed:
            self._broken = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._source.shutdown(socket.SHUT_RD)


def serve(listener, target, round_trip_s, bytes_s):
    """Carry every connection that `listener` gets to `target`, for ever."""
    up, down = Line(bytes_s, round_trip_s / 2), Line(bytes_s, round_trip_s / 2)
    while True:
        near, _ = listener.accept()
        threading.Thread(target=_carry, args=(near, target, up, down), daemon=True).start()


def _carry(near, target, up, down):
    with near:
        try:
            far = socket.create_connection(target)
        except OSError:
            return
        with far:
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for thread in [*Direction(up, near, far).start(), *Direction(down, far, near).start()]:
                thread.join()


@contextlib.contextmanager
def far_away(endpoint, round_trip_s=0.02, bytes_s=200e6):
    """The URL at which what listens at the URL `endpoint` is that far away, while the context lasts."""
    address = urllib.parse.urlsplit(endpoint)
    command = [sys.executable, "-m", "benches.latency", f"{address.hostname}:{address.port}"]
    command += ["--round-trip-ms", str(1000 * round_trip_s), "--megabytes-s", str(bytes_s / 1e6)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"{address.scheme}://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def main():
    parser = argparse.ArgumentParser(prog="python -m benches.latency", description="Put a TCP server far away.")
    parser.add_argument("target", metavar="HOST:PORT")
    parser.add_argument("--round-trip-ms", type=float, default=20.0)
    parser.add_argument("--megabytes-s", type=float, default=200.0, help="of each direction; `inf` for no limit")
    arguments = parser.parse_args()
    host, _, port = arguments.target.rpartition(":")
    # Far away, time.sleep must not wait for another thread's turn at the interpreter.
    sys.setswitchinterval(0.0002)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    work = (listener, (host, int(port)), arguments.round_trip_ms / 1000, arguments.megabytes_s * 1e6)
    threading.Thread(target=serve, args=work, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
