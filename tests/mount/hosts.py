"""Machines and processes as the end-to-end tests see them: where zerofs keeps what, what runs, what is mounted."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Return when `condition` holds. Processes and the kernel run in real time, so this polls."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{timeout_s:g} s passed without: {what}")
        time.sleep(0.02)


def is_mounted(path: Path) -> bool:
    """Whether the kernel has a mount exactly there. Does not touch it."""
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def peak_memory_bytes(pid: int) -> int:
    """The most memory that the process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """The directories by which one machine, and one user on it, is told from another."""

    runtime: Path
    state: Path
    home: Path

    @classmethod
    def make(cls, root: Path, runtime: Path) -> "Host":
        """A machine that has never seen a volume. `runtime` is short: sockets lie in it."""
        host = cls(runtime=runtime, state=root / "state", home=root / "home")
        for folder in (host.runtime, host.state, host.home):
            folder.mkdir(mode=0o700, parents=True)
        return host

    def environ(self, password: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        return kept | {
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.state),
            "ZEROFS_RUNTIME_DIR": str(self.runtime),
            "ZEROFS_PASSWORD": password,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONFAULTHANDLER": "1",
        }

    @property
    def logs(self) -> str:
        """What every daemon of this host logged."""
        return "".join(path.read_text() for path in sorted(self.state.rglob("*.log")))

    def serving(self) -> dict[str, int]:
        """The living processes in this host's registry, by the mountpoint that they serve."""
        found = {}
        for path in self.runtime.glob("*.mount"):
            with contextlib.suppress(ValueError, KeyError, OSError):
                record = json.loads(path.read_text())
                if _is_ours(record["pid"], str(self.runtime)):
                    found[record["mountpoint"]] = record["pid"]
        return found


def _is_ours(pid: int, runtime: str) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return is_alive(pid) and f"ZEROFS_RUNTIME_DIR={runtime}\0".encode() in environ
