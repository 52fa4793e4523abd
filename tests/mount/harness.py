"""Real mounts for tests: the `zerofs` command as a user runs it, on real stores, cleaned up whatever happens.

    with Lab(tmp_path) as lab:
        mount = lab.mount(store)            # `zerofs mount`: a daemon
        (mount.path / "file").write_text("x")
        mount.umount()                      # `zerofs umount`
        mount.drop_cache()
        mount.start()                       # a cold remount

A `Host` is one machine as zerofs sees it: its runtime, state and cache directories. A lab ends only processes that it
started, detaches only its own mountpoints, and does both by itself when a test is stuck in one of its mounts: a hanging
system call answers no signal, so a timer ends the process behind it.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.mount.hosts import Host, is_alive, is_mounted, wait_for
from tests.mount.stores import LocalStore, Store

PASSWORD = "tests-of-real-mounts"
COMMAND_TIMEOUT_S = 120.0
PATIENCE_S = 240.0
"""How long one lab may live. Below the time limit of a test, so that the lab, which can free it, is first."""

OTHER_DISK = Path("/dev/shm")
"""Where stores are not."""

DRIVER = os.environ.get("ZEROFS_TEST_DRIVER", "native")
"""Who speaks the kernel's protocol in mounts that say nothing else."""

TINY: Mapping[str, Mapping[str, object]] = {
    "cache": {"memory_size_gb": 0.008, "disk_size_gb": 0.002},
    "lsm": {"memtable_size_mb": 0.064, "chunk_sst_size_mb": 0.25, "sync_interval_s": 0.5},
}
"""Limits so small that a few megabytes reach every path of the engine."""


def zerofs_command() -> list[str]:
    """The command as it is installed beside this Python, else the package of this repository."""
    installed = Path(sys.executable).with_name("zerofs")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "zerofs"]


class Lab:
    """Everything that one test mounts. A context manager; `root` is a directory of the test's own."""

    def __init__(self, root: Path, patience_s: float = PATIENCE_S) -> None:
        self.root = root
        self.transcript: list[str] = []
        """What every command of this lab was called with and printed."""
        self._mounts: list[Mount] = []
        self._hosts: list[Host] = []
        self._outputs: list[Path] = []
        self._public: list[Path] = []
        self._stuck = False
        self._watchdog = threading.Timer(patience_s, self._rescue)
        self._watchdog.daemon = True
        self._short = Path(tempfile.mkdtemp(prefix="zf"))
        self.cache_root = Path(tempfile.mkdtemp(prefix="zf-cache-", dir=OTHER_DISK))
        """Caches: beside a store on the same disk there would be none."""
        self.host = self.new_host("here")

    def new_host(self, name: str) -> Host:
        """Another machine."""
        host = Host.make(self.root / f"host-{name}", self._short / name)
        self._hosts.append(host)
        return host

    def local_store(self, name: str = "store") -> LocalStore:
        """An empty directory to hold a volume."""
        root = self.root / name
        root.mkdir(exist_ok=True)
        return LocalStore(root)

    def public_directory(self) -> Path:
        """A directory that every user can get at, as the test's own is not. It goes with the lab."""
        path = Path(tempfile.mkdtemp(prefix="zf-public-", dir="/tmp"))
        path.chmod(0o755)
        self._public.append(path)
        return path

    def plan(self, store: Store, name: str = "mnt", **options) -> "Mount":
        """A mount that is not mounted yet. `options` are the fields of `Mount`."""
        planned = Mount(lab=self, store=store, name=name, host=options.pop("host", self.host), **options)
        self._mounts.append(planned)
        return planned

    def mount(self, store: Store, name: str = "mnt", **options) -> "Mount":
        """A mount, made by `zerofs mount`."""
        planned = self.plan(store, name, **options)
        planned.start()
        return planned

    def zerofs(
        self,
        *arguments: object,
        host: Host | None = None,
        password: str = PASSWORD,
        stdin: str = "",
        check: bool = True,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run `zerofs ARGUMENTS` and return how it ended; with `check` it must end with 0."""
        command = [*zerofs_command(), *map(str, arguments)]
        done = subprocess.run(
            command,
            env=(host or self.host).environ(password),
            cwd="/",
            input=stdin,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=timeout_s,
            check=False,
        )
        self.transcript.append(f"{command}\n{done.stdout}\n{done.stderr}")
        if check and done.returncode != 0:
            raise AssertionError(
                f"`zerofs {' '.join(map(str, arguments))}` ended with {done.returncode}: {done.stderr}"
            )
        return done

    def spawn(self, arguments: Sequence[object], host: Host, password: str) -> "Foreground":
        """Run `zerofs ARGUMENTS` beside the test."""
        output = self.root / f"output-{len(self._outputs)}.log"
        self._outputs.append(output)
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*zerofs_command(), *map(str, arguments)],
                env=host.environ(password),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        return Foreground(process=process, output=output)

    def spoken(self) -> Iterator[tuple[str, bytes]]:
        """Everything that this lab's commands and daemons said or noted down outside of stores and caches."""
        for number, text in enumerate(self.transcript):
            yield f"command {number}", text.encode()
        for host in self._hosts:
            for folder in (host.state, host.runtime, host.home):
                for path in sorted(folder.rglob("*")):
                    if path.is_file():
                        yield str(path), path.read_bytes()
        for path in self._outputs:
            yield str(path), path.read_bytes()

    def __enter__(self) -> Self:
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._clear()
        if self._stuck:
            raise AssertionError("a mount hung: the test was freed by killing the process behind it")

    def _rescue(self) -> None:
        self._stuck = True
        self._kill_all()

    def _kill_all(self) -> None:
        pids = {pid for host in self._hosts for pid in host.serving().values()}
        for mount in self._mounts:
            pids |= mount.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _clear(self) -> None:
        left = [mount for mount in self._mounts if is_mounted(mount.path)]
        self._kill_all()
        for mount in left:
            mount.detach()
        for mount in self._mounts:
            mount.reap()
        for path in self._public:
            for mountpoint in path.iterdir():
                mountpoint.rmdir()
            path.rmdir()
        shutil.rmtree(self._short, ignore_errors=True)
        shutil.rmtree(self.cache_root, ignore_errors=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Foreground:
    """A command that runs beside the test."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text(errors="backslashreplace")

    def wait(self, timeout_s: float = COMMAND_TIMEOUT_S) -> int:
        return self.process.wait(timeout_s)


@dataclasses.dataclass(kw_only=True)
class Mount:
    """One mountpoint of one volume. `settings` are tables of the configuration, over those of the store."""

    lab: Lab
    store: Store
    name: str
    host: Host
    settings: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    password: str = PASSWORD
    verbose: bool = False
    path: Path = None
    foreground: Foreground | None = None
    pid: int = 0

    def __post_init__(self) -> None:
        self.path = self.path or self.lab.root / self.name
        self.path.mkdir(exist_ok=True)
        self.cache = self.lab.cache_root / f"{self.name}-cache"
        self.config = self.lab.root / f"{self.name}.toml"
        self.configure(self.settings)

    def configure(self, settings: Mapping[str, Mapping[str, object]]) -> None:
        """Write the configuration anew, for the next start."""
        self.settings = settings
        tables: dict[str, dict[str, object]] = {
            "cache": {"dir": str(self.cache), "disk_size_gb": 0.2},
            "storage": {"encryption_password": "${ZEROFS_PASSWORD}"},
            "servers.fuse": {"mountpoint": str(self.path), "driver": DRIVER},
        }
        for source in (self.store.settings(), settings):
            for table, keys in source.items():
                tables.setdefault(table, {}).update(keys)
        lines = []
        for table, keys in tables.items():
            lines.append(f"[{table}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n")

    # --- starting and ending ----------------------------------------------------------------------------------

    def start(self, *flags: str) -> "Mount":
        """`zerofs mount`: returns when it is mounted."""
        self.try_start(*flags, check=True)
        return self

    def try_start(self, *flags: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """`zerofs mount`, and how it ended."""
        self.reap()
        done = self.zerofs("mount", *self._verbosity(), *flags, check=check)
        self.foreground, self.pid = None, self.host.serving().get(str(self.path), 0)
        return done

    def run(self, *flags: str) -> "Mount":
        """`zerofs run`, in the foreground of nobody: returns when it is mounted."""
        process = self.launch(*flags)
        wait_for(lambda: is_mounted(self.path) or process.process.poll() is not None, f"a mount at {self.path}")
        if process.process.poll() is not None:
            raise AssertionError(f"`zerofs run` ended with {process.process.returncode}: {process.said}")
        wait_for(lambda: self.try_status() == "ok", "the state ok")
        return self

    def launch(self, *flags: str) -> Foreground:
        """`zerofs run`, without waiting for anything."""
        self.foreground = self.lab.spawn(
            ["run", "-c", self.config, *self._verbosity(), *flags], self.host, self.password
        )
        self.pid = self.foreground.process.pid
        return self.foreground

    def umount(self, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`zerofs umount MOUNTPOINT`."""
        return self.lab.zerofs("umount", self.path, *flags, host=self.host, check=check)

    def kill(self) -> None:
        """kill -9, and the dead mountpoint taken away."""
        os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(self.pid), f"the end of process {self.pid}")
        self.detach()
        self.reap()

    def detach(self) -> None:
        """Take the mountpoint away, whoever uses it."""
        subprocess.run(
            ["fusermount3", "-uz", str(self.path)], capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False
        )

    def drop_cache(self) -> None:
        """Delete the disk cache."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def cold_remount(self) -> "Mount":
        """Unmount, delete the cache, mount again."""
        self.umount()
        self.drop_cache()
        return self.start()

    # --- questions --------------------------------------------------------------------------------------------

    def zerofs(self, command: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
        """`zerofs COMMAND ARGUMENTS -c CONFIG`, on this mount's host."""
        options = {"host": self.host, "password": self.password} | options
        return self.lab.zerofs(command, *arguments, "-c", self.config, **options)

    def status(self) -> dict:
        """`zerofs status MOUNTPOINT --json`."""
        return json.loads(self.lab.zerofs("status", self.path, "--json", host=self.host).stdout)

    def try_status(self) -> str:
        """The state, or nothing when nobody answers."""
        done = self.lab.zerofs("status", self.path, "--json", host=self.host, check=False)
        return json.loads(done.stdout)["state"] if done.returncode == 0 else ""

    def flush(self) -> None:
        """`zerofs flush`."""
        self.lab.zerofs("flush", self.path, host=self.host)

    @property
    def log(self) -> str:
        """What the process behind this mount logged, in the foreground or as a daemon."""
        return self.foreground.said if self.foreground is not None else self.host.logs

    def pids(self) -> set[int]:
        """The process behind this mount, if it lives."""
        process = self.foreground.process if self.foreground is not None else None
        return {process.pid} if process is not None and process.poll() is None else set()

    def reap(self) -> None:
        """Let the system forget a foreground process that ended."""
        if self.foreground is not None:
            self.foreground.wait()

    def _verbosity(self) -> list[str]:
        return ["--verbose"] if self.verbose else []
