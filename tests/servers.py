"""Real S3 servers as processes of their own, for tests: moto's, and MinIO where it was built.

    with moto_server() as server:
        store = open_store(server.url("some/prefix"), server.options, world, metrics)

Each server listens on a free port of 127.0.0.1, has one new bucket, dies with the process that started it, and is
killed by its own pid at the end.
"""

import contextlib
import dataclasses
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3.session
from botocore.config import Config

from zerofs.objectstore.options import S3Options

BUCKET = "zerofs-test"
MINIO = Path(__file__).resolve().parents[1] / ".tools" / "minio"

START_TIMEOUT_S = 60.0

_MOTO_PROGRAM = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server:
    """A running server. `options` reach it; `bucket` exists and was empty at the start."""

    name: str
    endpoint: str
    access_key_id: str
    secret_access_key: str
    bucket: str
    pid: int

    @property
    def options(self) -> S3Options:
        return self.options_at(self.endpoint)

    def options_at(self, endpoint: str) -> S3Options:
        """The same, reached through another address: a proxy."""
        return S3Options(
            endpoint=endpoint,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            default_region="us-east-1",
            allow_http=True,
            connect_timeout_s=5,
            read_timeout_s=20,
        )

    def url(self, prefix: str = "") -> str:
        return f"s3://{self.bucket}/{prefix}".rstrip("/")

    def client(self):
        """A plain boto3 client, to look behind the store's back. To be closed by the caller."""
        return boto3.session.Session(self.access_key_id, self.secret_access_key, region_name="us-east-1").client(
            "s3", endpoint_url=self.endpoint, config=Config(s3={"addressing_style": "path"})
        )

    def make_bucket(self) -> None:
        with contextlib.closing(self.client()) as client:
            client.create_bucket(Bucket=self.bucket)


def missing_minio() -> str:
    """Why there is no MinIO to test against and how to get it; empty when there is one."""
    if MINIO.is_file():
        return ""
    go = "" if shutil.which("go") else " (the Go toolchain is missing too)"
    return f"MinIO is missing: {MINIO} does not exist{go}. Run tests/build_minio.sh, which needs Go 1.21 or later"


@contextlib.contextmanager
def moto_server() -> Iterator[Server]:
    """moto's S3, in a process of its own."""
    command = [sys.executable, "-c", _MOTO_PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        # The program ends when its stdin does: also when this process is killed.
        try:
            port = int(_read_line(process))
            server = Server(
                name="moto",
                endpoint=f"http://127.0.0.1:{port}",
                access_key_id="test-access-key",
                secret_access_key="test-secret-access-key",
                bucket=BUCKET,
                pid=process.pid,
            )
            server.make_bucket()
            yield server
        finally:
            process.kill()


class Machine:
    """A MinIO that can be frozen, killed and started again with its data at the same address."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._frozen = False
        self._stack = contextlib.ExitStack()
        self.server = self._stack.enter_context(minio_server(directory))
        self._pid = self.server.pid
        self._again: subprocess.Popen | None = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        os.kill(self._pid, signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """It answers what it was asked meanwhile."""
        os.kill(self._pid, signal.SIGCONT)
        self._frozen = False

    def kill(self) -> None:
        """Its connections break, and new ones are refused."""
        os.kill(self._pid, signal.SIGKILL)
        if self._again is not None:
            self._again.wait()

    def start(self) -> None:
        """After `kill`: it answers again, on return."""
        address = urllib.parse.urlsplit(self.server.endpoint)
        self._again = _minio_process(self._directory, address.port)
        self._pid = self._again.pid
        if not _wait_alive(self._again, f"{self.server.endpoint}/minio/health/ready"):
            raise RuntimeError(f"MinIO did not start again: see {self._directory / 'minio.log'}")

    def close(self) -> None:
        """Whatever happened, it is gone."""
        if self._frozen:
            self.thaw()
        if self._again is not None:
            self._again.kill()
            self._again.wait()
        self._stack.close()


@contextlib.contextmanager
def minio_server(directory: Path) -> Iterator[Server]:
    """MinIO with its data in `directory`, which must be on a filesystem with O_DIRECT or be tolerated by MinIO."""
    if reason := missing_minio():
        raise FileNotFoundError(reason)
    for _ in range(3):  # another process may take the port between our look and MinIO's start
        port = free_port()
        with _minio_process(directory, port) as process:
            try:
                endpoint = f"http://127.0.0.1:{port}"
                if not _wait_alive(process, f"{endpoint}/minio/health/ready"):
                    continue
                server = Server(
                    name="minio",
                    endpoint=endpoint,
                    access_key_id="minio-test-root",
                    secret_access_key="minio-test-secret",
                    bucket=BUCKET,
                    pid=process.pid,
                )
                server.make_bucket()
                yield server
                return
            finally:
                process.kill()
    raise RuntimeError(f"MinIO did not start: see {directory / 'minio.log'}")


def _minio_process(directory: Path, port: int) -> subprocess.Popen:
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    command = [str(MINIO), "server", str(data), "--address", f"127.0.0.1:{port}", "--quiet"]
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "KILL", *command]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(directory),
        "MINIO_ROOT_USER": "minio-test-root",
        "MINIO_ROOT_PASSWORD": "minio-test-secret",
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "GOMAXPROCS": "2",
    }
    with (directory / "minio.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _read_line(process: subprocess.Popen) -> str:
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(START_TIMEOUT_S):
            raise TimeoutError(f"the server process {process.pid} said nothing for {START_TIMEOUT_S} s")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the server process {process.pid} ended before it was ready")
    return line


def _wait_alive(process: subprocess.Popen, url: str) -> bool:
    """Whether the server answers `url`, as soon as it does; False when its process ended."""
    deadline = time.monotonic() + START_TIMEOUT_S
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with direct.open(url, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)  # a process of its own starts in real time
    return False
