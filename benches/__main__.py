"""One command, one table: how fast zerofs is beside a null filesystem, the plain directory, and its peers.

    python -m benches [--programs] [--quick] [--systems NAME,NAME] [--runs N] [--size-mib N] [--files N] [--far]

All systems are mounted at the same time and take turns at every workload, so that whatever else the machine does hits
all alike. The load runs in a process of its own. Cold means: remounted, disk cache deleted, kernel caches dropped.

With --programs, another table: git, tar, make, rsync, SQLite, many threads, fio. What is given in seconds is better the
smaller it is; ratios are of speeds.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benches import report
from benches.catalogue import NAMES, ON_REQUEST, start_systems
from benches.measuring import forget, measured, printed_by
from benches.mounts import FailedError, UnavailableError, require
from benches.processes import Usage
from benches.rows import SUITES
from benches.sources import Sources

LOAD_TIMEOUT_S = 900
IDLE_AFTER_S, IDLE_FOR_S = 1.5, 3.0
SOURCES = "sources"
PARAMETERS = ("suite", "runs", "size_mib", "files", "quick", "far")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="python -m benches", description="Measure zerofs beside others.")
    parser.add_argument("--programs", action="store_true", help="the table of programs instead of that of system calls")
    parser.add_argument("--quick", action="store_true", help="small and once: shows that it works, not how fast")
    parser.add_argument("--systems", help=f"comma-separated: {', '.join(NAMES)}; default: all but {ON_REQUEST}")
    parser.add_argument("--runs", type=int, help="repetitions of everything; default 5, quick 1")
    parser.add_argument("--size-mib", type=int, help="the large file; default 100, quick 16")
    parser.add_argument(
        "--files", type=int, help="small files, and random accesses; default 3000 (programs 2000), quick 300"
    )
    parser.add_argument("--far", action="store_true", help="the S3 server is 20 ms and 200 MB/s away: benches.latency")
    parser.add_argument("--directory", type=Path, default=Path("build"), help="whose disk is measured; default build")
    arguments = parser.parse_args()
    arguments.suite = "programs" if arguments.programs else "files"
    usual_files = SUITES[arguments.suite].usual_files
    for name, usual, quick in (("runs", 5, 1), ("size_mib", 100, 16), ("files", usual_files, 300)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else usual)
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    chosen = [name.strip() for name in arguments.systems.split(",")] if arguments.systems else []
    for name in chosen:
        if name not in NAMES:
            parser.error(f"unknown system {name!r}; there are: {', '.join(NAMES)}")
    arguments.chosen = [name for name in NAMES if name in chosen] or [name for name in NAMES if name not in ON_REQUEST]
    return arguments


def run_load(row, system, arguments):
    """One run. Returns what `measuring.measured` says of it."""
    suite = SUITES[arguments.suite]
    options = [system.directory, "--size-mib", arguments.size_mib, "--files", arguments.files]
    options += ["--sources", system.base.parent / SOURCES] if suite.has_sources else []
    if row.prepared_by:
        printed_by(suite.module, row.prepared_by, *options, timeout_s=LOAD_TIMEOUT_S)
    forget(row.caches, system)
    return measured(system, suite.module, row.workload, *options, timeout_s=LOAD_TIMEOUT_S)


def missing_programs(suite):
    """Rows that cannot run here: what to say of each."""
    lacking = {}
    for row in suite.rows:
        for program in row.needs:
            try:
                require(program)
            except UnavailableError as error:
                lacking[row] = str(error)
    return lacking


def measure(arguments, systems, steps, missing):
    """Every run of every row, interleaved. Where rows build on each other, a system that fails is left out from then
    on, otherwise from that row; it is said."""
    suite = SUITES[arguments.suite]
    lacking = missing_programs(suite)
    missing |= {row.title: reason for row, reason in lacking.items()}
    runs = {}
    failed = set()
    for number in range(arguments.runs):
        for row in suite.rows:
            # Another one goes first every time.
            first = number % max(len(systems), 1)
            for system in systems[first:] + systems[:first]:
                steps.step(f"run {number + 1}: {row.title}: {system.name}")
                if row in lacking or {system.name, (system.name, row)} & failed:
                    continue
                try:
                    runs.setdefault((row.title, system.name), []).append(run_load(row, system, arguments))
                except (FailedError, TimeoutError, subprocess.TimeoutExpired) as error:
                    failed.add((system.name, row) if suite.stands_alone else system.name)
                    where = f"{system.name}, {row.title}" if suite.stands_alone else system.name
                    missing[where] = f"failed at {row.title}: {error}"
    return runs


def idle_cpu(systems):
    """Per cent of a core that each server uses while nothing happens."""
    time.sleep(IDLE_AFTER_S)
    usages = {system.name: Usage(pids) for system in systems if (pids := system.pids())}
    time.sleep(IDLE_FOR_S)
    return {name: 100 * usage.cpu_seconds() / IDLE_FOR_S for name, usage in usages.items()}


def warnings_about(base):
    """What makes the figures mean less than they seem to."""
    found = []
    if os.geteuid() != 0:
        found.append("not root: kernel caches cannot be dropped, so cold and warm reads of the plain directory are not")
    kind = subprocess.run(["stat", "-f", "-c", "%T", base], capture_output=True, text=True, check=False).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        found.append(f"{base} lies in memory ({kind}): local disk means memory here")
    return found


def main():
    arguments = parse_arguments()
    console = Console(stderr=False, width=None if sys.stdout.isatty() else 200)
    environment = report.environment()
    missing = {}
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.directory.resolve()))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        systems = start_systems(arguments, base, stack, missing)
        warnings = warnings_about(base)
        suite = SUITES[arguments.suite]
        if suite.has_sources:
            Sources(base / SOURCES).make(arguments.files)
        with report.Steps(console, arguments.runs * len(suite.rows) * len(systems)) as steps:
            runs = measure(arguments, systems, steps, missing)
        # Before anything is cleared away, which may fail.
        document = {
            "environment": environment,
            "parameters": {name: getattr(arguments, name) for name in PARAMETERS},
            "results": report.summarise(suite.rows, systems, runs),
            "idle_cpu_percent": idle_cpu(systems),
            "not_measured": missing,
            "warnings": warnings,
        }
        path = report.write_json(document)
        report.show(console, document)
        console.print(f"written to {path}", highlight=False)
    return 0 if systems else 1


if __name__ == "__main__":
    sys.exit(main())
