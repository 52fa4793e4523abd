"""Programs as the load: one of them, on one directory, in a process of its own.

    python -m benches.programs WORKLOAD DIRECTORY --size-mib 100 --files 2000 --sources DIRECTORY

prints what `benches.load` prints. Each workload stands alone, but for those that look again at what an earlier one
made: they come in the order of `rows.PROGRAMS`. The sources are those of `benches.sources`.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from benches.load import BLOCK, MIB, Done, report, settle
from benches.sources import GIT_ENVIRONMENT, UNITS, Sources

PARALLEL = 16
FIO_JOBS = 4
PERCENTILES = ("50", "99", "99.9")


class Programs:
    """The workloads of one directory. Every public method is one of them."""

    def __init__(self, directory, size_mib, files, sources):
        self._here = Path(directory)
        self._size = size_mib * MIB
        self._files = files
        self._sources = Sources(Path(sources))

    def git_clone(self):
        return self._timed(["git", "clone", "-q", self._sources.repository.as_uri(), str(self._here / "clone")])

    def git_status(self):
        command = ["git", "-C", str(self._here / "clone"), "status", "--porcelain"]
        return self._timed(command, expected="")

    def untar(self):
        (self._here / "untarred").mkdir()
        return self._timed(["tar", "-xf", str(self._sources.archive), "-C", str(self._here / "untarred")])

    def build(self):
        project = self._here / "untarred" / "project"
        done = self._timed(["make", "-s", "-j2", "-C", str(project)], UNITS + 1)
        subprocess.run([project / "program"], check=True)
        return done

    def rsync(self):
        return self._timed(["rsync", "-a", f"{self._sources.tree}/", str(self._here / "copy")])

    def rsync_again(self):
        command = ["rsync", "-a", "--out-format=%n", f"{self._sources.tree}/", str(self._here / "copy")]
        return self._timed(command, expected="")

    def sqlite(self):
        return self._inserts("delete")

    def sqlite_wal(self):
        return self._inserts("wal")

    def parallel_write(self):
        blocks = [os.urandom(MIB) for _ in range(4)]
        count = max(self._size // PARALLEL // MIB, 1)

        def write(index):
            with open(self._here / f"of-{index}", "wb", buffering=0) as file:
                file.writelines(blocks[(index + number) % len(blocks)] for number in range(count))
                os.fsync(file.fileno())

        return _together(write, count)

    def parallel_read(self):
        count = max(self._size // PARALLEL // MIB, 1)

        def read(index):
            moved = 0
            with open(self._here / f"of-{index}", "rb", buffering=0) as file:
                while data := file.read(MIB):
                    moved += len(data)
            if moved != count * MIB:
                raise ValueError(f"read {moved} bytes")

        return _together(read, count)

    def fio_files(self):
        begun = time.perf_counter()
        self._fio("--create_only=1")
        return Done(time.perf_counter() - begun, FIO_JOBS, self._size)

    def fio_mix(self):
        return self._mix(self._files // FIO_JOBS)

    def fio_mix_synced(self):
        return self._mix(self._files // FIO_JOBS // 5, "--fdatasync=1")

    def remove_all(self):
        begun = time.perf_counter()
        count = sum(1 + len(files) for _, _, files in os.walk(self._here, onerror=_fail))
        for entry in os.scandir(self._here):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
        return Done(time.perf_counter() - begun, count)

    def _timed(self, command, operations=None, expected=None):
        """One program, to its end. `expected`: all that it may say."""
        begun = time.perf_counter()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | GIT_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
        )
        took = time.perf_counter() - begun
        if done.returncode:
            raise SystemExit(f"{command[0]} failed: {' '.join(done.stderr.strip().splitlines()[-2:])}")
        if expected is not None and done.stdout != expected:
            lines = done.stdout.splitlines()
            raise SystemExit(f"{command[0]} found {len(lines)} files changed: {lines[0]} and others")
        return Done(took, operations or self._files)

    def _inserts(self, mode):
        """One transaction each, on disk when it returns."""
        count = max(self._files // 10, 1)
        database = sqlite3.connect(self._here / f"{mode}.sqlite", isolation_level=None)
        (found,) = database.execute(f"PRAGMA journal_mode={mode}").fetchone()
        if found != mode:
            raise SystemExit(f"SQLite works in mode {found} here, not {mode}")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE data (number INTEGER PRIMARY KEY, value BLOB)")
        values = [os.urandom(500) for _ in range(count)]
        begun = time.perf_counter()
        for value in values:
            database.execute("INSERT INTO data (value) VALUES (?)", (value,))
        took = time.perf_counter() - begun
        database.close()
        return Done(took, count)

    def _mix(self, count, *options):
        """Reads and writes of 4 KiB at random places, 70 to 30, by several processes with a file each."""
        job = self._fio(f"--number_ios={max(count, 10)}", *options)
        operations = job["read"]["total_ios"] + job["write"]["total_ios"]
        seconds = max(job["read"]["runtime"], job["write"]["runtime"]) / 1000
        return Done(seconds, operations, operations * BLOCK, _percentiles(job))

    def _fio(self, *options):
        """What fio says of a job on the files."""
        directory = self._here / "fio"
        directory.mkdir(exist_ok=True)
        command = ["fio", "--name=mix", f"--directory={directory}", "--output-format=json", "--group_reporting"]
        command += ["--rw=randrw", "--rwmixread=70", f"--bs={BLOCK}", "--ioengine=psync", f"--numjobs={FIO_JOBS}"]
        command += [f"--size={self._size // FIO_JOBS}", "--fallocate=none", "--randseed=7", *options]
        command += [f"--percentile_list={':'.join(PERCENTILES)}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"fio failed: {' '.join(done.stderr.strip().splitlines()[-2:])}")
        (job,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
        return job


def _percentiles(job):
    """Milliseconds by what was done, of a job in fio's JSON."""
    found = {}
    for what, times in (("read", "clat_ns"), ("write", "clat_ns"), ("sync", "lat_ns")):
        measured = job.get(what, {}).get(times, {}).get("percentile", {})
        for share in PERCENTILES:
            if value := measured.get(f"{float(share):.6f}"):
                found[f"{what} p{share}"] = value / 1e6
    return found


def _together(work, blocks_each):
    """`PARALLEL` threads, each with its index; all have to succeed."""
    failures = []

    def attempt(index):
        try:
            work(index)
        except (OSError, ValueError) as error:
            failures.append(error)

    threads = [threading.Thread(target=attempt, args=(index,)) for index in range(PARALLEL)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    if failures:
        raise SystemExit(str(failures[0]))
    return Done(took, PARALLEL * blocks_each, PARALLEL * blocks_each * MIB)


def _fail(error):
    raise error


def main():
    parser = argparse.ArgumentParser(description="Run one program on one directory.")
    parser.add_argument("workload", choices=[name for name in vars(Programs) if not name.startswith("_")])
    parser.add_argument("directory")
    parser.add_argument("--size-mib", type=int, required=True)
    parser.add_argument("--files", type=int, required=True)
    parser.add_argument("--sources", required=True)
    arguments = parser.parse_args()
    programs = Programs(arguments.directory, arguments.size_mib, arguments.files, arguments.sources)
    report(getattr(programs, arguments.workload)())
    settle(arguments.directory)


if __name__ == "__main__":
    sys.exit(main())
