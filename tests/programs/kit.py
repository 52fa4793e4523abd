"""Running programs that know nothing of zerofs, and telling whether they noticed."""

import os
import pwd
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest

from tests.mount.harness import Mount
from tests.mount.stores import on_stores
from tests.mount.trees import differences, snapshot
from tests.programs import packages

TIMEOUT_S = 200.0
STOP_TIMEOUT_S = 30.0

MARKS = [pytest.mark.programs, pytest.mark.mount, on_stores("file", "minio")]
"""Of every module here: left out of `make test`, and each test on both stores."""


def need_root() -> None:
    """Skip the test, aloud, where it cannot act for other users."""
    if os.geteuid():
        pytest.skip("NOT TESTED: only root can be several users")


def need(*programs: str) -> None:
    """Skip the test, aloud, where one of these is not installed."""
    for program in programs:
        if not packages.find(program):
            pytest.skip(f"NOT TESTED: {packages.remedy(program)}")


def start(
    *command: object,
    cwd: Path,
    user: str | None = None,
    environ: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    output: IO[str] | int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Run a program beside the test, with its children in a group of their own; both outputs go to `output`."""
    program, *arguments = (str(word) for word in command)
    return subprocess.Popen(
        [packages.find(program) or program, *arguments],
        cwd=cwd,
        user=user,
        group=user and pwd.getpwnam(user).pw_gid,
        extra_groups=[] if user else None,
        env={"PATH": packages.PATH, "HOME": str(cwd), "LC_ALL": "C.UTF-8", "TZ": "UTC", **(environ or {})},
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Kill a program that still runs, and all that it started in its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_TIMEOUT_S)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def finish(process: subprocess.Popen[str], stdin: str | None = None, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Wait for a program. Its exit code and what it printed."""
    try:
        said, _ = process.communicate(stdin, timeout_s)
    except subprocess.TimeoutExpired as late:
        end(process)
        raise AssertionError(f"{process.args} took longer than {timeout_s:g} s") from late
    return process.returncode, said


def attempt(*command: object, stdin: str | None = None, timeout_s: float = TIMEOUT_S, **options) -> tuple[int, str]:
    """Run a program to its end. Its exit code and what it printed."""
    pipe = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    return finish(start(*command, stdin=pipe, **options), stdin, timeout_s)


def run(*command: object, **options) -> str:
    """Run a program that must succeed; what it printed."""
    code, said = attempt(*command, **options)
    assert code == 0, f"{' '.join(map(str, command))} ended with {code}:\n{said[-4000:]}"
    return said


def unchanged_after_cold_remount(mount: Mount, folder: Path) -> None:
    """What lies below `folder` now is there after a remount without any cache, in all that can be seen."""
    before = snapshot(folder)
    assert len(before) > 1
    mount.cold_remount()
    assert differences(before, snapshot(folder), same_filesystem=True) == []
