"""The load: one workload on one directory, in a process of its own that shares no interpreter lock with a server.

    python -m benches.load WORKLOAD DIRECTORY --size-mib 100 --files 2000

prints one JSON object: how long it took, how many operations it did, how many bytes it moved. The workloads of one
directory build on each other, in the order of `WORKLOADS`; what a workload needs to be cold or warm is its caller's
business. Data is random, so that nobody profits from compressing it, and made before the clock starts.
"""

import argparse
import contextlib
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field

KIB = 1024
MIB = 1024 * KIB
BLOCK = 4 * KIB
FILES_PER_DIRECTORY = 500


@dataclass(frozen=True)
class Done:
    """What a workload did while the clock ran."""

    seconds: float
    operations: int
    moved_bytes: int = 0
    percentiles_ms: dict[str, float] = field(default_factory=dict)  # "read p99" and so on


class Load:
    """The workloads of one directory."""

    def __init__(self, directory, size_mib, files):
        self.big = os.path.join(directory, "big")
        self.tree = os.path.join(directory, "tree")
        self.size = size_mib * MIB
        self.files = files
        self.random = random.Random(files)

    def paths(self):
        for index in range(self.files):
            yield f"{self.tree}/{index // FILES_PER_DIRECTORY:04}/file-{index:06}"

    def sequential_write(self):
        blocks = _random_blocks(self.size)
        begun = time.perf_counter()
        handle = os.open(self.big, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        for block in blocks:
            _write(handle, block)
        os.fsync(handle)
        os.close(handle)
        return Done(time.perf_counter() - begun, len(blocks), self.size)

    def sequential_read(self):
        moved = operations = 0
        begun = time.perf_counter()
        handle = os.open(self.big, os.O_RDONLY)
        while data := os.read(handle, MIB):
            moved += len(data)
            operations += 1
        os.close(handle)
        done = Done(time.perf_counter() - begun, operations, moved)
        if moved != self.size:
            raise SystemExit(f"read {moved} of {self.size} bytes")
        return done

    def random_read(self):
        offsets = self._offsets()
        begun = time.perf_counter()
        handle = os.open(self.big, os.O_RDONLY)
        # Readahead would turn this into a sequential read of the whole file.
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        for offset in offsets:
            os.pread(handle, BLOCK, offset)
        os.close(handle)
        return Done(time.perf_counter() - begun, len(offsets), len(offsets) * BLOCK)

    def random_write(self):
        offsets, block = self._offsets(), os.urandom(BLOCK)
        begun = time.perf_counter()
        handle = os.open(self.big, os.O_WRONLY)
        for offset in offsets:
            os.pwrite(handle, block, offset)
        os.fsync(handle)
        os.close(handle)
        return Done(time.perf_counter() - begun, len(offsets), len(offsets) * BLOCK)

    def create(self):
        paths, data = list(self.paths()), os.urandom(BLOCK)
        for directory in sorted({os.path.dirname(path) for path in paths}):
            os.makedirs(directory, exist_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        begun = time.perf_counter()
        for path in paths:
            handle = os.open(path, flags, 0o644)
            os.write(handle, data)
            os.close(handle)
        return Done(time.perf_counter() - begun, len(paths), len(paths) * BLOCK)

    def stat_walk(self):
        begun = time.perf_counter()
        count = _walk(self.tree)
        done = Done(time.perf_counter() - begun, count)
        expected = self.files + -(-self.files // FILES_PER_DIRECTORY)
        if count != expected:
            raise SystemExit(f"walked over {count} of {expected} entries")
        return done

    def small_read(self):
        paths = list(self.paths())
        self.random.shuffle(paths)
        begun = time.perf_counter()
        for path in paths:
            handle = os.open(path, os.O_RDONLY)
            size = len(os.read(handle, 2 * BLOCK))
            os.close(handle)
            if size != BLOCK:
                raise SystemExit(f"a file of {size} bytes")
        return Done(time.perf_counter() - begun, len(paths), len(paths) * BLOCK)

    def delete(self):
        paths = list(self.paths())
        begun = time.perf_counter()
        for path in paths:
            os.unlink(path)
        done = Done(time.perf_counter() - begun, len(paths))
        for directory in sorted({os.path.dirname(path) for path in paths}):
            os.rmdir(directory)
        os.rmdir(self.tree)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.big)
        return done

    def _offsets(self):
        blocks = self.size // BLOCK
        return [self.random.randrange(blocks) * BLOCK for _ in range(self.files)]


WORKLOADS = (
    "sequential_write",
    "sequential_read",
    "random_read",
    "random_write",
    "create",
    "stat_walk",
    "small_read",
    "delete",
)


def _random_blocks(size):
    """1 MiB blocks that all differ, for less than the price of as many random ones."""
    base = os.urandom(4 * MIB)
    return [memoryview(base)[offset : offset + MIB] for offset in _offsets_within(len(base) - MIB, size // MIB)]


def _offsets_within(room, count):
    step = max(room // max(count, 1), 1)
    return [(index * step) % room for index in range(count)]


def _write(handle, data):
    while data:
        data = data[os.write(handle, data) :]


def _walk(path):
    count = 0
    with os.scandir(path) as entries:
        for entry in entries:
            count += 1
            entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                count += _walk(entry.path)
    return count


def report(done):
    """Say it, before anything else happens."""
    json.dump(asdict(done), sys.stdout)
    sys.stdout.flush()


def settle(directory):
    """Everything that was written is where it goes, so that nobody pays for it later."""
    handle = os.open(directory, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def main():
    parser = argparse.ArgumentParser(description="Run one workload on one directory.")
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("directory")
    parser.add_argument("--size-mib", type=int, required=True)
    parser.add_argument("--files", type=int, required=True)
    arguments = parser.parse_args()
    load = Load(arguments.directory, arguments.size_mib, arguments.files)
    done = getattr(load, arguments.workload)()
    report(done)
    settle(arguments.directory)


if __name__ == "__main__":
    main()
