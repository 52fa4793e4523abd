"""Programs that work at random in one mount (`byte_worker`), and breaks in which the mount comes back another way.

    python -m tests.mount.bytes_at_random --hours 4 --workers 4 --seed 17

runs until the time is over, or something is not as it should be; then it says how to do the same again. Limits are so
small that a few megabytes reach every path of the engine. What happens is a function of the seed, but for who is first.
"""

import argparse
import collections
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from tests.mount.harness import TINY, Lab, Mount
from tests.mount.hosts import REPOSITORY

COMMAND = "python -m tests.mount.bytes_at_random"
STEPS = 200
"""Operations of each program between two breaks."""

BREAKS = ("cold", "kernel caches", "none", "remount", "kernel caches", "none", "fsck", "kernel caches")
"""What happens in them, one after the other, and again."""

HOUR_S = 3600.0


class Crew:
    """The programs. A context manager; `log` is where they say what went wrong."""

    def __init__(self, root: Path, log: Path, seed: int, workers: int) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._processes = [
                subprocess.Popen(
                    [sys.executable, "-m", "tests.mount.byte_worker", root, str(seed), str(number)],
                    cwd=REPOSITORY,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
                for number in range(workers)
            ]

    def order(self, line: str) -> None:
        """Let all do it, and wait for them. Raises AssertionError with what the first says whom something ails."""
        for process in self._processes:
            with contextlib.suppress(BrokenPipeError):  # it has ended, which the answer tells
                process.stdin.write(f"{line}\n".encode())
                process.stdin.flush()
        answers = [process.stdout.readline() for process in self._processes]
        if set(answers) != {b"done\n"}:
            for process, answer in zip(self._processes, answers, strict=True):
                if not answer:
                    process.wait()
            raise AssertionError(self._log.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


class Stage:
    """Where they work: a mount and the metrics of all its lives, or a plain directory."""

    def __init__(self, root: Path, mount: Mount | None) -> None:
        self.root = root
        self._mount = mount
        self.flags = "" if mount is None or mount.settings["servers.fuse"]["writeback"] else " --no-writeback"
        """What the command wants to be told of it."""
        self.metrics: collections.Counter[str] = collections.Counter()

    def rest(self, kind: str) -> None:
        """A break, while nothing is open. Only root may drop the kernel's caches; for others it is a remount, too."""
        if self._mount is None or kind == "none":
            return
        if kind == "kernel caches" and not os.geteuid():
            Path("/proc/sys/vm/drop_caches").write_text("3")
            return
        self.end()
        if kind in ("cold", "fsck"):
            self._mount.drop_cache()
        if kind == "fsck":
            self._mount.zerofs("fsck")
        self._mount.start()

    def end(self) -> None:
        """Unmount."""
        if self._mount is not None:
            self.metrics.update(self._mount.status()["metrics"])
            self._mount.umount()


def run(stage: Stage, log: Path, *, seed: int, workers: int, rounds: Iterable[object]) -> int:
    """Work and rest, until there are no more rounds; how many there were. Raises AssertionError."""
    done = 0
    with Crew(stage.root, log, seed, workers) as crew:
        for _, kind in zip(rounds, itertools.cycle(BREAKS), strict=False):
            done += 1
            try:
                crew.order(f"work {STEPS}")
                crew.order("pause")
                stage.rest(kind)
                crew.order("look")
            except AssertionError as error:
                again = f"{COMMAND} --seed {seed} --workers {workers} --rounds {done}{stage.flags}"
                raise AssertionError(f"{error}\nthe same again: {again}") from None
    stage.end()
    return done


def rounds_of(hours: float) -> Iterator[int]:
    """Rounds, until the time is over; and what there was of them, now and then."""
    started = time.monotonic()
    for number in itertools.count(1):
        yield number
        spent = time.monotonic() - started
        if number % 100 == 0:
            print(f"{number} rounds in {spent / HOUR_S:.2f} hours", flush=True)
        if spent > hours * HOUR_S:
            return


def main() -> None:
    """See the top."""
    parser = argparse.ArgumentParser(
        description="Random operations on files in a mount, compared with bytes in memory."
    )
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, help=f"of {STEPS} operations each, instead of hours")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--no-writeback", dest="writeback", action="store_false")
    options = parser.parse_args()
    rounds = range(options.rounds) if options.rounds else rounds_of(options.hours)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="zf-bytes-") as folder:
        root = Path(folder)
        with Lab(root, patience_s=(options.hours + 1) * HOUR_S) as lab:
            mount = lab.mount(lab.local_store(), settings=settings(writeback=options.writeback))
            try:
                stage = Stage(mount.path, mount)
                done = run(stage, root / "log", seed=options.seed, workers=options.workers, rounds=rounds)
            except AssertionError as error:
                sys.exit(str(error))
            mount.zerofs("fsck")
    print(f"{done} rounds: every byte was what it should be")


def settings(*, writeback: bool) -> dict[str, dict[str, object]]:
    """Of a mount for this: the rows that a few files make are flushed and merged all the time."""
    lsm = TINY["lsm"] | {"memtable_size_mb": 0.004}
    return {**TINY, "lsm": lsm, "servers.fuse": {"writeback": writeback}}


if __name__ == "__main__":
    main()
