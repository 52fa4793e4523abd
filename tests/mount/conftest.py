"""Real mounts for tests: each served by a child process, and gone afterwards whatever happened."""

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.mount.harness import Lab
from tests.mount.stores import BucketStore
from tests.servers import Machine, minio_server, missing_minio, moto_server
from zerofs.mounttable import fuse_obstacle

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
PATIENCE_S = 120.0
"""How long a test may use its mounts. A system call that hangs in one answers no signal, but ends with the server."""


class MountRefusedError(Exception):
    """The child ended before it had mounted; the message is what it said."""


@dataclasses.dataclass(kw_only=True)
class Mount:
    """A mount and the process that serves it. A warning that was not `expected` fails the test."""

    path: Path
    process: subprocess.Popen
    stderr: Path
    expected: list[str] = dataclasses.field(default_factory=list)

    def said(self):
        """What the process wrote to its log so far."""
        return self.stderr.read_text()

    def is_mounted(self):
        return any(line.split()[4] == str(self.path) for line in Path("/proc/self/mountinfo").read_text().splitlines())

    def unmount(self):
        """Unmount from outside and wait for the process. Its exit code."""
        subprocess.run(["fusermount3", "-u", "--", self.path], check=True)
        return self.process.wait(STOP_TIMEOUT_S)

    def terminate(self):
        """Ask the process to stop and wait for it. Its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)

    def drop_caches(self):
        """Make the kernel forget cached pages, names and attributes. Root only."""
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")

    def check_log(self):
        unexpected = [line for line in self.said().splitlines() if not any(text in line for text in self.expected)]
        assert not unexpected, unexpected

    def remove(self):
        """No trace is left of process and mount."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process.poll() is None:
                self.terminate()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        if self.is_mounted():
            subprocess.run(["fusermount3", "-u", "-z", "--", self.path], check=True)


def wait_until_ready(process):
    """True when the child has mounted, False when it ended instead."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(START_TIMEOUT_S):
            process.kill()
            raise TimeoutError(f"not mounted after {START_TIMEOUT_S:.0f} s")
    return process.stdout.readline() == b"ready\n"


@pytest.fixture(params=["pyfuse3", "native"])
def mount(request, tmp_path):
    """A function `mount(kind, **options)`: mounts a filesystem of that kind (see `child`) and gives a `Mount`.

    Through each driver.
    """
    if reason := fuse_obstacle():
        pytest.skip(f"NOT TESTED, nothing can be mounted here: {reason}")
    mounts = []
    watchdog = threading.Timer(PATIENCE_S, lambda: [mounted.process.kill() for mounted in mounts])
    watchdog.daemon = True
    watchdog.start()

    def start(kind, *, path=None, **options):
        if path is None:
            path = tmp_path / f"mnt{len(mounts)}"
            path.mkdir()
        options = {"driver": request.param, **options}
        stderr = tmp_path / f"stderr-of-{path.name}-{len(mounts)}"
        with stderr.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.mount.child", kind, path, json.dumps(options)],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        mounted = Mount(path=path, process=process, stderr=stderr)
        if not wait_until_ready(process):
            process.wait()
            process.stdout.close()
            raise MountRefusedError(mounted.said())
        mounts.append(mounted)
        return mounted

    try:
        yield start
    finally:
        watchdog.cancel()
        for mounted in reversed(mounts):
            mounted.remove()
    for mounted in mounts:
        mounted.check_log()


@pytest.fixture(params=["null", "zerofs"])
def mounted(request, mount):
    """The directory of a mount: of the null filesystem, and of zerofs on an engine in memory."""
    return mount(request.param, fsname=f"test-{request.param}", allow_other=os.geteuid() == 0).path


@pytest.fixture(scope="session")
def fuse():
    """Skips where nothing can be mounted."""
    if reason := fuse_obstacle():
        pytest.skip(f"NOT TESTED, nothing can be mounted here: {reason}")


@pytest.fixture
def lab(fuse, tmp_path):
    """What the end-to-end tests mount with: see `harness.Lab`."""
    with Lab(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def moto():
    """moto's server, one per test process."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory):
    """A MinIO process, one per test process; skips where none was built."""
    if reason := missing_minio():
        pytest.skip(f"NOT TESTED: {reason}")
    with minio_server(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture
def machine(tmp_path_factory):
    """A MinIO of the test's own, to be frozen and killed; skips where none was built."""
    if reason := missing_minio():
        pytest.skip(f"NOT TESTED: {reason}")
    with contextlib.closing(Machine(tmp_path_factory.mktemp("machine"))) as made:
        yield made


@pytest.fixture
def store(request, lab):
    """An empty store of the kind that the test is parametrised with (`on_stores`), else a local one."""
    kind = getattr(request, "param", "file")
    if kind == "file":
        yield lab.local_store()
    else:
        with contextlib.closing(BucketStore(request.getfixturevalue(kind))) as bucket:
            yield bucket
