"""What the processes of a server use: their time on a processor, and the most memory that they ever held."""

import contextlib
import os
import re
import signal
import time
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def processes_with(*texts):
    """The processes whose command line contains all of the texts."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if all(text in line for text in texts):
                    found.append(int(entry.name))
    return found


def with_children(pids):
    """The processes, and all that descend from them: a server may have work done by others."""
    parents = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(_stat(entry)[1])
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def wait_until_gone(pids, timeout_s=120):
    """Return when the processes have ended. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while any(_is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still running: {pids}")
        time.sleep(0.02)


def end(pids, grace_s=20):
    """Ask the processes to end, wait, and kill those that do not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(TimeoutError):
            wait_until_gone(pids, grace_s)
            return


class Usage:
    """What the servers `pids` and their children use, from its making on.

    Memory can be measured from then on only by root; otherwise the peak is that of the processes' whole life. A child
    that ended in between is missing from the memory, not from the time.
    """

    def __init__(self, pids):
        self._pids = pids
        for pid in with_children(pids):
            with contextlib.suppress(OSError):
                (PROC / str(pid) / "clear_refs").write_text("5")
        self._before = _cpu_seconds(with_children(pids))

    def cpu_seconds(self):
        """The time on a processor, since."""
        return _cpu_seconds(with_children(self._pids)) - self._before

    def peak_bytes(self):
        """The peaks of resident memory of all processes, added: an upper bound, since they share pages and need not
        have peaked together. None without a process."""
        peaks = [_peak_bytes(pid) for pid in with_children(self._pids)]
        return sum(peaks) if peaks else None


def _cpu_seconds(pids):
    """With the time of children that are gone: it moves to their parents, so that none is lost or counted twice."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += sum(map(int, _stat(PROC / str(pid))[11:15]))
    return total / TICKS


def _peak_bytes(pid):
    with contextlib.suppress(OSError):
        if found := re.search(r"^VmHWM:\s+(\d+) kB", (PROC / str(pid) / "status").read_text(), re.MULTILINE):
            return 1024 * int(found[1])
    return 0


def _is_alive(pid):
    """One that has ended, and whose parent has not noticed yet, is not."""
    with contextlib.suppress(OSError):
        return _stat(PROC / str(pid))[0] not in ("Z", "X")
    return False


def _stat(entry):
    """The fields of proc(5)'s stat from the state on; the name before it may hold anything."""
    return (entry / "stat").read_text().rpartition(")")[2].split()
