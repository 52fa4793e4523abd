"""Stalls, seen from outside: how long a forced stat, and a small fsync, take while a real mount is busy.

The stat is statx(2) with AT_STATX_FORCE_SYNC, so that the kernel asks the daemon each time.
"""

import ctypes
import os
import statistics
import subprocess
import sys
import threading
import time

from benches.load import MIB
from benches.systems import Zerofs

STAT_PAUSE_S, FSYNC_PAUSE_S = 0.002, 0.05
# Samples must not be the load themselves, nor keep the daemon from falling asleep.

AT_FDCWD, AT_STATX_FORCE_SYNC, STATX_BASIC = -100, 0x2000, 0x7FF

_statx = ctypes.CDLL(None, use_errno=True).statx
_buffer = ctypes.create_string_buffer(256)


def forced_stat(path):
    """Seconds that one stat took, asked of the daemon itself."""
    begun = time.perf_counter()
    if _statx(AT_FDCWD, os.fsencode(path), AT_STATX_FORCE_SYNC, STATX_BASIC, _buffer):
        raise OSError(ctypes.get_errno(), "statx")
    return time.perf_counter() - begun


def percentile(samples, share):
    """The sample below which `share` of them lie."""
    return sorted(samples)[min(int(share * len(samples)), len(samples) - 1)]


class Busy:
    """Another process that creates files, or copies a large one, until it is told to end."""

    def __init__(self, workload, directory):
        command = [sys.executable, "-m", "benches.stalls", workload, str(directory)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)


def create_for_ever(directory):
    number = 0
    while True:
        folder = f"{directory}/{number // 1000}"
        if number % 1000 == 0:
            os.mkdir(folder)
        with open(f"{folder}/{number}", "wb") as file:
            file.write(b"x" * 300)
        number += 1


def copy_for_ever(directory):
    block = os.urandom(4 * MIB)
    while True:
        with open(f"{directory}/bulk", "wb", buffering=0) as file:
            file.writelines(memoryview(block)[offset % (3 * MIB) :][:MIB] for offset in range(0, 1 << 30, MIB))


def stalls(base, scale):
    """(what, measured, bar, met) of each figure."""
    seconds = 60 / scale + 3
    system = Zerofs(base)
    system.prepare()
    try:
        system.start()
        path = system.directory / "probe"
        path.write_bytes(b"x" * 4096)
        at_rest = _watch_stat(path, 2.0)
        busy = system.directory / "busy"
        busy.mkdir()
        before = _counters(system)
        load = Busy("create", busy)
        try:
            samples = _watch_stat(path, seconds)
        finally:
            load.end()
        after = _counters(system)
        p99_ms = 1000 * percentile(samples, 0.99)
        rows = [
            (
                "p99 of a forced stat beside creates, flushes and merges",
                f"{p99_ms:.1f} ms of {len(samples)} (at rest {1000 * percentile(at_rest, 0.99):.1f}; "
                f"{after[0] - before[0]:.0f} flushes, {after[1] - before[1]:.0f} merges)",
                "<= 5 ms",
                p99_ms <= 5,
            )
        ]
        load = Busy("copy", busy)
        try:
            fsyncs = _watch_fsync(path, seconds)
        finally:
            load.end()
        rows.append(
            (
                "4 KiB fsync beside a bulk copy, p50 and p99",
                f"{1000 * statistics.median(fsyncs):.0f} ms, {1000 * percentile(fsyncs, 0.99):.0f} ms of {len(fsyncs)}",
                "stated",
                True,
            )
        )
        return rows
    finally:
        system.remove()


def _counters(system):
    metrics = system.status()["metrics"]
    return metrics.get("flushes", 0), metrics.get("compactions", 0)


def _watch_stat(path, seconds):
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        samples.append(forced_stat(path))
        time.sleep(STAT_PAUSE_S)
    return samples


def _watch_fsync(path, seconds):
    samples, end = [], time.perf_counter() + seconds
    with open(path, "r+b", buffering=0) as file:
        while time.perf_counter() < end:
            file.seek(0)
            file.write(os.urandom(4096))
            begun = time.perf_counter()
            os.fsync(file.fileno())
            samples.append(time.perf_counter() - begun)
            time.sleep(FSYNC_PAUSE_S)
    return samples


def main():
    workload, directory = sys.argv[1:]
    work = {"create": create_for_ever, "copy": copy_for_ever}[workload]
    threading.Thread(target=work, args=(directory,), daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
