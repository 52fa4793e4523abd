"""Stalls, seen from outside: how long a forced stat, and a small fsync, take while a real mount is busy.

The stat is statx(2) with AT_STATX_FORCE_SYNC, so that the kernel asks the daemon each time.
"""

import contextlib
import ctypes
import gc
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

from benches.load import MIB
from benches.systems import NullFilesystem, Zerofs, mounted
from zerofs.admin.control import client, protocol
from zerofs.cli.locate import locate
from zerofs.config.paths import process_environment

SECONDS, BAR_S = 60, 0.005
CHURN_FILES, CHURN_BYTES, CHURN_KEPT = 400, 256 << 10, 4
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


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What the mount is busy with, and the counters that prove it: by name, and what to call them."""

    title: str
    workload: str
    proofs: dict[str, str]
    told: dict[str, str] = field(default_factory=dict)  # counters that prove nothing by staying as they are
    flush_every_s: float | None = None  # None: as often as it does by itself


PHASES = (
    Phase(
        title="creates, flushes and merges",
        workload="create",
        proofs={"flushes": "flushes", "compactions": "merges"},
    ),
    Phase(title="bulk writes", workload="copy", proofs={"chunk_ssts": "chunk tables"}),
    # Tables become half dead with a flush, and by themselves the rows of large files bring few of those.
    Phase(
        title="deletes and repack",
        workload="churn",
        proofs={"repacked_ssts": "tables repacked", "compactions": "merges"},
        told={"collected_objects": "objects deleted"},  # at most once a minute
        flush_every_s=5.0,
    ),
)


class Busy:
    """Another process that works on a directory of a mount until it is told to end."""

    def __init__(self, workload, system, directory, flush_every_s):
        command = [sys.executable, "-m", "benches.stalls", workload, str(system.directory), str(directory)]
        command += [str(flush_every_s or 0)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | system.own_environment())

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


def churn_for_ever(directory):
    """Files of several chunks, three of four deleted again: what is left is the lesser part of its tables."""
    data = os.urandom(4 * MIB)
    for batch in itertools.count():
        os.mkdir(f"{directory}/{batch}")
        names = [f"{directory}/{batch}/{number}" for number in range(CHURN_FILES)]
        for number, name in enumerate(names):
            start = 1000 * (number + batch) % (3 * MIB)
            with open(name, "wb", buffering=0) as file:
                file.write(memoryview(data)[start : start + CHURN_BYTES])
        for name in names[: CHURN_FILES // 4 * 3]:
            os.unlink(name)
        if batch >= CHURN_KEPT:
            shutil.rmtree(f"{directory}/{batch - CHURN_KEPT}")


def flush_for_ever(mountpoint, every_s):
    """Let the mount write its tables now and then. In this process, so that it costs the samples nothing."""
    mount = locate(mountpoint, None, process_environment())
    while True:
        time.sleep(every_s)
        with client.Connection(mount.socket) as connection:
            connection.ask(protocol.FLUSH)


def stalls(base, scale):
    """(what, measured, bar, met) of each figure. Seconds are divided by `scale`."""
    seconds = SECONDS / scale + 3
    with mounted(Zerofs(base)) as system:
        path = _probe(system)
        at_rest = _watch_stat(path, 2.0 + seconds / 10)
        yield ("forced stat at rest, p99 and p99.9", _said(at_rest), "stated", True)
        for phase in PHASES:
            yield _measure(phase, system, path, seconds, 1.0 if scale > 1 else phase.flush_every_s)
        with _busy("copy", system, None):
            fsyncs = _watch_fsync(path, seconds)
        took = f"{1000 * statistics.median(fsyncs):.0f} ms, {1000 * percentile(fsyncs, 0.99):.0f} ms of {len(fsyncs)}"
        yield ("4 KiB fsync beside a bulk copy, p50 and p99", took, "stated", True)
    # A stat waits behind the writes that the kernel has sent before: that is nobody's work to be blamed for.
    with mounted(NullFilesystem(base)) as system:
        path = _probe(system)
        with _busy("copy", system, None):
            samples = _watch_stat(path, seconds / 4)
        yield ("the null filesystem's stat beside bulk writes", _said(samples), "stated", True)


def _probe(system):
    path = system.directory / "probe"
    path.write_bytes(b"x" * 4096)
    return path


def _measure(phase, system, path, seconds, flush_every_s):
    before = system.status()["metrics"]
    with _busy(phase.workload, system, flush_every_s):
        samples = _watch_stat(path, seconds)
    after = system.status()["metrics"]
    grown = {name: after.get(name, 0) - before.get(name, 0) for name in phase.proofs | phase.told}
    said = ", ".join(f"{grown[name]:.0f} {called}" for name, called in (phase.proofs | phase.told).items())
    met = percentile(samples, 0.999) <= BAR_S and all(grown[name] for name in phase.proofs)
    what = f"forced stat beside {phase.title}, p99 and p99.9"
    return (what, f"{_said(samples)} ({said})", f"p99.9 <= {1000 * BAR_S:.0f} ms, each happened", met)


@contextlib.contextmanager
def _busy(workload, system, flush_every_s):
    directory = system.directory / "busy"
    directory.mkdir()
    load = Busy(workload, system, directory, flush_every_s)
    try:
        yield
    finally:
        load.end()
        shutil.rmtree(directory)


def _said(samples):
    shares = (f"{1000 * percentile(samples, share):.1f} ms" for share in (0.99, 0.999))
    return f"{', '.join(shares)} of {len(samples)}"


def _watch_stat(path, seconds):
    samples, end = [], time.perf_counter() + seconds
    gc.disable()  # a pause of ours is none of the mount's
    try:
        while time.perf_counter() < end:
            samples.append(forced_stat(path))
            time.sleep(STAT_PAUSE_S)
    finally:
        gc.enable()
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


WORK = {"create": create_for_ever, "copy": copy_for_ever, "churn": churn_for_ever}


def main():
    workload, mountpoint, directory, flush_every_s = sys.argv[1:]
    threading.Thread(target=WORK[workload], args=(directory,), daemon=True).start()
    if float(flush_every_s):
        threading.Thread(target=flush_for_ever, args=(mountpoint, float(flush_every_s)), daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
