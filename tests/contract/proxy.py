"""A small HTTP proxy in front of a real S3 server that loses, cuts and invents replies, and counts what passes.

One thread for each connection, none of them trio's. It forwards requests as they are: the signature covers the Host
header that the client saw, which is the proxy's, and servers check it as it arrives.
"""

import collections
import contextlib
import http.client
import http.server
import socketserver
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

LOSE_REPLY = "lose the reply"
"""Forward, wait for the answer, then close the connection without a word."""
REFUSE = "refuse"
"""Close the connection without forwarding."""
CUT_BODY = "cut the body"
"""Forward, announce the whole length, send half of the body, close."""


class Proxy:
    """What the proxy does to requests to come, and what it has seen."""

    def __init__(self, endpoint: str) -> None:
        upstream = urlsplit(endpoint)
        self.upstream = (upstream.hostname, upstream.port)
        self.endpoint = ""
        self.seen: list[str] = []
        """Methods of the requests that arrived, in their order."""
        self._plans: dict[str, collections.deque[str | int]] = collections.defaultdict(collections.deque)
        self._lock = threading.Lock()

    def plan(self, method: str, *faults: str | int) -> None:
        """What happens to the next requests of this method: a fault from above, or a status to answer by itself."""
        self._plans[method].extend(faults)

    def count(self, method: str) -> int:
        return self.seen.count(method)

    def arrived(self, method: str) -> str | int | None:
        with self._lock:
            self.seen.append(method)
            return self._plans[method].popleft() if self._plans[method] else None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.proxy.arrived(self.command)
        if fault == REFUSE:
            self.close_connection = True
        elif isinstance(fault, int):
            self._answer(fault, {"Content-Type": "application/xml"}, _error_body(fault))
        else:
            self._forward(body, fault)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _handle

    def _forward(self, body: bytes, fault: str | int | None) -> None:
        connection = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for header, value in self.headers.items():
                connection.putheader(header, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            content = reply.read()
        if fault == LOSE_REPLY:
            self.close_connection = True
            return
        headers = {header: value for header, value in reply.getheaders() if header.lower() not in _HOP_BY_HOP}
        self._answer(reply.status, headers, content, cut=fault == CUT_BODY)

    def _answer(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for header, value in headers.items():
            self.send_header(header, value)
        if self.command != "HEAD" and "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True

    def log_message(self, *arguments) -> None:
        pass


_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})

_CODES = {409: "ConditionalRequestConflict", 503: "SlowDown", 500: "InternalError", 403: "AccessDenied"}


def _error_body(status: int) -> bytes:
    return f"<Error><Code>{_CODES.get(status, 'Unknown')}</Code><Message>from the proxy</Message></Error>".encode()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy


@contextlib.contextmanager
def proxy_to(endpoint: str) -> Iterator[Proxy]:
    """A running proxy in front of `endpoint`."""
    proxy = Proxy(endpoint)
    with _Server(proxy) as server:
        proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
