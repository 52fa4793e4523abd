"""What is measured: how each system is mounted, made cold, and taken away again, and what its acknowledgements mean.

Every system works below one directory on one disk. Each ends only processes that it started.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benches.mounts import TIMEOUT_S, FailedError, detach, is_mounted, run
from benches.processes import end, processes_with

PASSWORD = "a password for measurements"
MEMORY, LOCAL_DISK, STORE = "memory", "local disk", "store"
COUNTERS = {
    "requests": "store_requests_total",
    "sent_bytes": "store_sent_bytes",
    "received_bytes": "store_received_bytes",
}


class System:
    """One system under measurement.

    `acknowledges_close` and `…_fsync` say where the data is when these system calls return.
    """

    name = ""
    acknowledges_close = MEMORY
    acknowledges_fsync = MEMORY

    def __init__(self, base: Path):
        self.base = base / self.name
        self.directory = self.base / "mnt"

    def prepare(self):
        """Make what is needed once. Raises UnavailableError."""
        self.directory.mkdir(parents=True)

    def start(self):
        """Mount."""

    def stop(self):
        """Unmount; everything is stored."""

    def make_cold(self):
        """Nothing of the system's is cached in its process or on disk. The kernel's caches are the caller's."""
        self.stop()
        self.start()

    def pids(self) -> list[int]:
        """The processes that serve it."""
        return []

    def own_environment(self) -> dict[str, str]:
        """What its commands are to find in their environment."""
        return {}

    def counters(self) -> dict[str, float]:
        """What it has counted since it was mounted: `requests`, `sent_bytes`, `received_bytes` of the store, hits and
        misses of its caches. Empty if it counts nothing."""
        return {}

    def remove(self):
        """Take away whatever is left."""
        with contextlib.suppress(FailedError, TimeoutError, subprocess.TimeoutExpired):
            self.stop()
        detach(self.directory)
        # One that was interrupted while it mounted goes on without a mount, and would miss what is deleted next.
        end(self.pids())


@contextlib.contextmanager
def mounted(system: System):
    """A new one, mounted within the block."""
    try:
        system.prepare()
        system.start()
        yield system
    finally:
        system.remove()


class PlainDirectory(System):
    """A directory of the disk itself."""

    name = "plain"
    acknowledges_close = MEMORY
    acknowledges_fsync = LOCAL_DISK

    def make_cold(self):
        """The kernel's caches are all there is."""


class NullFilesystem(System):
    """A filesystem that does no work, through the same frontend: the ceiling."""

    name = "null"
    acknowledges_close = MEMORY
    acknowledges_fsync = MEMORY
    driver = "native"
    arguments: tuple[str, ...] = ()

    def __init__(self, base):
        super().__init__(base)
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "benches.null_fs", str(self.directory), "--driver", self.driver]
        command += self.arguments
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise FailedError("the null filesystem did not mount")

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(TIMEOUT_S)
            self.process.stdout.close()
            self.process = None

    def make_cold(self):
        """Its memory is its store."""

    def pids(self):
        return [self.process.pid] if self.process is not None else []


class NullThroughLibfuse(NullFilesystem):
    """The same, through pyfuse3 and libfuse."""

    name = "null-pyfuse3"
    driver = "pyfuse3"


class NullWithoutStayAwake(NullFilesystem):
    """The same, sleeping after every request."""

    name = "null-asleep"
    arguments = ("--no-stay-awake",)


class NullWithoutWriteback(NullFilesystem):
    """The same, without the kernel's writeback cache."""

    name = "null-direct"
    arguments = ("--no-writeback",)


class Zerofs(System):
    """A volume on a local directory, mounted by the command as a user mounts it."""

    name = "zerofs-file"
    driver = "native"
    acknowledges_close = MEMORY
    acknowledges_fsync = STORE

    def prepare(self):
        super().prepare()
        # Short, because the names of sockets are limited to 107 bytes.
        self.runtime = Path(tempfile.mkdtemp(prefix="zb"))
        self.config = self.base / "zerofs.toml"
        self.config.write_text(
            f'[cache]\ndir = "{self.base / "cache"}"\ndisk_size_gb = 4.0\nmemory_size_gb = 0.25\n'
            f'[storage]\nurl = "{self._url()}"\nencryption_password = "{PASSWORD}"\n'
            f'[servers.fuse]\nmountpoint = "{self.directory}"\ndriver = "{self.driver}"\n{self._more()}'
        )
        self.config.chmod(0o600)

    def _url(self):
        return f"file://{self.base / 'store'}"

    def _more(self):
        return ""

    def start(self):
        self._run("mount", "-c", str(self.config), str(self.directory))

    def stop(self):
        if is_mounted(self.directory):
            self._run("umount", str(self.directory))

    def make_cold(self):
        self.stop()
        shutil.rmtree(self.base / "cache", ignore_errors=True)
        self.start()

    def status(self):
        """What `zerofs status --json` says."""
        return json.loads(self._run("status", "--json", str(self.directory)))

    def counters(self):
        status = self.status()
        counted = {
            short: sum(value for name, value in status["metrics"].items() if name.startswith(long))
            for short, long in COUNTERS.items()
        }
        for name, cache in status["engine"].items():
            if name.endswith("_cache"):
                counted |= {f"{name}_{word}": cache[word] for word in ("hits", "misses")}
        return counted

    def _run(self, *arguments):
        installed = Path(sys.executable).with_name("zerofs")
        command = [str(installed)] if installed.exists() else [sys.executable, "-m", "zerofs"]
        return run([*command, *arguments], os.environ | self.own_environment())

    def own_environment(self):
        """What keeps apart what the user's own volumes leave on this host: it is not ours to mix with."""
        return {"XDG_STATE_HOME": str(self.base / "state"), "ZEROFS_RUNTIME_DIR": str(self.runtime)}

    def remove(self):
        super().remove()
        shutil.rmtree(self.runtime, ignore_errors=True)

    def pids(self):
        return processes_with(b"zerofs", str(self.directory).encode())


class ZerofsThroughLibfuse(Zerofs):
    """The same, through pyfuse3 and libfuse."""

    name = "zerofs-pyfuse3"
    driver = "pyfuse3"


class ZerofsOnS3(Zerofs):
    """A volume on an S3 server on this machine."""

    name = "zerofs-s3"

    def __init__(self, base, server):
        super().__init__(base)
        self.server = server

    def _url(self):
        return self.server.url("zerofs")

    def _more(self):
        return (
            f'[aws]\nendpoint = "{self.server.endpoint}"\naccess_key_id = "{self.server.access_key_id}"\n'
            f'secret_access_key = "{self.server.secret_access_key}"\ndefault_region = "us-east-1"\nallow_http = true\n'
        )
