"""Programs that mount: run them, wait for them, take their mounts away."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

TIMEOUT_S = 120


class UnavailableError(Exception):
    """This system cannot be measured here; the message says why, and what to do about it."""


class FailedError(Exception):
    """A system did not do what it should; the message holds what it said."""


def require(program):
    """Raise UnavailableError if a program is not installed."""
    if shutil.which(program) is None:
        raise UnavailableError(f"{program} is not installed (Debian: apt install {program})")


def run(command, environment=None, said=""):
    """Run a command to its end, which hears `said`, and return what it says. Raises FailedError.

    The output goes to a file: a daemon that it leaves behind would keep a pipe open.
    """
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command,
            input=said.encode(),
            stdout=output,
            stderr=output,
            env=environment,
            timeout=TIMEOUT_S,
            check=False,
        )
        output.seek(0)
        answer = output.read().decode(errors="replace").strip()
    if done.returncode != 0:
        raise FailedError(f"`{' '.join(map(str, command))}` failed with {done.returncode}: {answer}")
    return answer


def is_mounted(path):
    """Whether the kernel has a mount exactly there."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def wait_until_mounted(path):
    """For daemons that return before they have mounted."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_mounted(path):
        if time.monotonic() > deadline:
            raise FailedError(f"nothing was mounted at {path}")
        time.sleep(0.05)


def unmount(path):
    """Unmount if mounted."""
    if is_mounted(path):
        run(["fusermount3", "-u", "--", str(path)])


def detach(path):
    """Take a mount away even if it is in use."""
    if is_mounted(path):
        subprocess.run(["fusermount3", "-u", "-z", "--", str(path)], check=False)


def drop_caches(what):
    """Make the kernel forget clean pages ("1"), names ("2"), or both ("3"). Only root may; False when not."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text(what)
    except PermissionError:
        return False
    return True
