"""What is measured: how each system is mounted, made cold, and taken away again, and what its acknowledgements mean.

Every system works below one directory on one disk. Each ends only processes that it started.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PASSWORD = "a password for measurements"
TIMEOUT_S = 120
MEMORY, LOCAL_DISK, STORE = "memory", "local disk", "store"


class UnavailableError(Exception):
    """This system cannot be measured here; the message says why."""


class FailedError(Exception):
    """A system did not do what it should; the message holds what it said."""


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

    def remove(self):
        """Take away whatever is left."""
        with contextlib.suppress(FailedError):
            self.stop()
        detach(self.directory)


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

    def _run(self, *arguments):
        installed = Path(sys.executable).with_name("zerofs")
        command = [str(installed)] if installed.exists() else [sys.executable, "-m", "zerofs"]
        # What the user's own volumes leave on this host is not ours to mix with.
        own = {"XDG_STATE_HOME": str(self.base / "state"), "ZEROFS_RUNTIME_DIR": str(self.runtime)}
        run([*command, *arguments], os.environ | own)

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


class Gocryptfs(System):
    """Encrypts file by file onto the disk below: no log, no store."""

    name = "gocryptfs"
    acknowledges_close = MEMORY
    acknowledges_fsync = LOCAL_DISK

    def prepare(self):
        require("gocryptfs")
        super().prepare()
        self.cipher, self.password = self.base / "cipher", self.base / "password"
        self.cipher.mkdir()
        self.password.write_text(PASSWORD + "\n")
        run(["gocryptfs", "-init", "-q", "-passfile", str(self.password), str(self.cipher)])

    def start(self):
        run(["gocryptfs", "-q", "-passfile", str(self.password), str(self.cipher), str(self.directory)])

    def stop(self):
        unmount(self.directory)

    def pids(self):
        return processes_with(b"gocryptfs", str(self.directory).encode())


class S3fs(System):
    """One object per file, uploaded when it is closed; not encrypted."""

    name = "s3fs"
    acknowledges_close = STORE
    acknowledges_fsync = STORE

    def __init__(self, base, server):
        super().__init__(base)
        self.server = server

    def prepare(self):
        require("s3fs")
        super().prepare()
        self.password = self.base / "password"
        self.password.touch(mode=0o600)
        self.password.write_text(f"{self.server.access_key_id}:{self.server.secret_access_key}\n")
        with contextlib.closing(self.server.client()) as client:
            client.put_object(Bucket=self.server.bucket, Key="s3fs/", Body=b"")

    def start(self):
        options = f"passwd_file={self.password},url={self.server.endpoint},use_path_request_style"
        run(["s3fs", f"{self.server.bucket}:/s3fs", str(self.directory), "-o", options])
        wait_until_mounted(self.directory)

    def stop(self):
        unmount(self.directory)

    def pids(self):
        return processes_with(b"s3fs", str(self.directory).encode())


class Rclone(System):
    """One object per file; writes go to a cache on the disk first and are uploaded later; not encrypted."""

    name = "rclone"
    acknowledges_close = LOCAL_DISK
    acknowledges_fsync = LOCAL_DISK

    def __init__(self, base, server):
        super().__init__(base)
        self.server = server

    def prepare(self):
        require("rclone")
        super().prepare()
        self.config = self.base / "rclone.conf"
        self.config.write_text(
            f"[bench]\ntype = s3\nprovider = Minio\nendpoint = {self.server.endpoint}\n"
            f"access_key_id = {self.server.access_key_id}\nsecret_access_key = {self.server.secret_access_key}\n"
        )

    def start(self):
        options = [
            "--vfs-cache-mode",
            "writes",
            "--vfs-write-back",
            "0s",
            "--cache-dir",
            str(self.base / "cache"),
            "--daemon",
        ]
        source = f"bench:{self.server.bucket}/rclone"
        # Its S3 library refuses to start with a bundle of certificates that it has no use for on this endpoint.
        environment = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
        command = ["rclone", "--config", str(self.config), "mount", *options, source, str(self.directory)]
        run(command, environment=environment)
        wait_until_mounted(self.directory)

    def stop(self):
        unmount(self.directory)

    def make_cold(self):
        self.stop()
        shutil.rmtree(self.base / "cache", ignore_errors=True)
        self.start()

    def pids(self):
        return processes_with(b"rclone", str(self.directory).encode())


def require(program):
    """Raise UnavailableError if a program is not installed."""
    if shutil.which(program) is None:
        raise UnavailableError(f"{program} is not installed (Debian: apt install {program})")


def run(command, environment=None):
    """Run a command to its end. Its output goes to a file: a daemon that it leaves behind would keep a pipe open."""
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            timeout=TIMEOUT_S,
            check=False,
        )
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    if done.returncode != 0:
        raise FailedError(f"`{' '.join(map(str, command))}` failed with {done.returncode}: {said}")


def is_mounted(path):
    """Whether the kernel has a mount exactly there."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def wait_until_mounted(path):
    """For daemons that return before they have mounted."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_mounted(path):
        if time.monotonic() > deadline:
            raise FailedError(f"nothing was mounted at {path}")
        time.sleep(0.05)


def unmount(path):
    """Unmount if mounted."""
    if is_mounted(path):
        run(["fusermount3", "-u", "--", str(path)])


def detach(path):
    """Take a mount away even if it is in use."""
    if is_mounted(path):
        subprocess.run(["fusermount3", "-u", "-z", "--", str(path)], check=False)


def processes_with(*texts):
    """The processes whose command line contains all of the texts."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if all(text in line for text in texts):
                    found.append(int(entry.name))
    return found


LOCAL = (
    *(PlainDirectory, NullFilesystem, NullThroughLibfuse, NullWithoutStayAwake, NullWithoutWriteback),
    *(Zerofs, ZerofsThroughLibfuse, Gocryptfs),
)
ON_S3 = (ZerofsOnS3, S3fs, Rclone)
NAMES = tuple(kind.name for kind in (*LOCAL, *ON_S3))
ON_REQUEST = tuple(
    kind.name for kind in (NullThroughLibfuse, NullWithoutStayAwake, NullWithoutWriteback, ZerofsThroughLibfuse)
)
"""Measured only when named."""
