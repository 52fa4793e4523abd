"""zerofs.cli.daemon, in processes of their own: what the command learns from the daemon, and what the daemon keeps."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from zerofs.admin.control import client

PRELUDE = """
import json, os, sys, signal
from pathlib import Path
from zerofs.cli import daemon
from zerofs.errors import ZerofsError
log, out = Path(sys.argv[1]), Path(sys.argv[2])
def start(work):
    try:
        daemon.start(log, work)
    except ZerofsError as error:
        print(f"error {error.exit_code} {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(130)
    print("ready")
"""


@pytest.fixture
def run(tmp_path):
    """Runs a program that starts a daemon; `out` is a file for the daemon to write to."""

    def run(program):
        return subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(program), tmp_path / "logs" / "log", tmp_path / "out"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def test_the_command_returns_when_the_daemon_is_ready(run, tmp_path):
    done = run(
        """
        def work(reporter):
            facts = {
                "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "cwd": os.getcwd(),
                "stdin": os.readlink("/proc/self/fd/0"), "stderr": os.readlink("/proc/self/fd/2"),
                "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
            }
            out.write_text(json.dumps(facts))
            print("to the log", file=sys.stderr)
            reporter.ready()
            reporter.failed("too late", 7)
            return 0
        start(work)
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
    facts = json.loads((tmp_path / "out").read_text())
    assert client.wait_for_exit(facts["pid"], 10)
    assert facts["session"] != facts["pid"], "a session leader could get a terminal again"
    assert facts["cwd"] == "/"
    assert facts["stdin"] == os.devnull
    log = tmp_path / "logs" / "log"
    assert facts["stderr"] == str(log)
    assert log.read_text() == "to the log\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_command_does_not_wait_for_the_daemon_to_end(run, tmp_path):
    done = run(
        """
        def work(reporter):
            out.write_text(str(os.getpid()))
            reporter.ready()
            signal.pause()
            return 0
        start(work)
        """
    )
    assert done.stdout == "ready\n"
    pid = int((tmp_path / "out").read_text())
    assert not client.wait_for_exit(pid, 0)
    os.kill(pid, signal.SIGKILL)
    assert client.wait_for_exit(pid, 10)


def test_the_daemons_error_is_the_commands(run):
    done = run(
        """
        def work(reporter):
            reporter.failed("Failed to unwrap DEK", 12)
            return 12
        start(work)
        """
    )
    assert (done.returncode, done.stdout) == (12, "error 12 Failed to unwrap DEK\n")


@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)", "raise KeyError", "return 0"])
def test_a_daemon_that_ends_without_a_word(run, tmp_path, how):
    done = run(f"def work(reporter):\n    {how}\nstart(work)\n")
    assert done.returncode == 20
    assert done.stdout == f"error 20 the mount's process ended without a word; its log is {tmp_path}/logs/log\n"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGINT, "interrupted\n"),
        (signal.SIGTERM, "error 143 ended by SIGTERM before it was mounted; the mount is given up\n"),
        (signal.SIGHUP, "error 129 ended by SIGHUP before it was mounted; the mount is given up\n"),
    ],
)
def test_a_command_that_is_told_to_end_ends_its_daemon(run, tmp_path, number, said):
    done = run(
        f"""
        parent = os.getpid()
        def work(reporter):
            out.write_text(str(os.getpid()))
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
            os.kill(parent, {number})
            signal.pause()
            return 0
        start(work)
        """
    )
    assert (done.returncode, done.stdout) == (128 + number, said)
    assert client.wait_for_exit(int((tmp_path / "out").read_text()), 10)


def test_a_signal_before_the_daemon_has_told_its_pid_ends_it_too(run, tmp_path):
    done = run(
        """
        began = daemon.Reporter.began
        def late(reporter):
            os.kill(parent, signal.SIGTERM)
            out.write_text(str(os.getpid()))
            began(reporter)
        daemon.Reporter.began = late
        parent = os.getpid()
        start(lambda reporter: signal.pause() or 0)
        """
    )
    assert done.returncode == 143
    assert client.wait_for_exit(int((tmp_path / "out").read_text()), 10)


def test_a_hangup_that_is_ignored_stays_so(run):
    done = run(
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        parent = os.getpid()
        def work(reporter):
            os.kill(parent, signal.SIGHUP)
            reporter.ready()
            return 0
        start(work)
        """
    )
    assert (done.returncode, done.stdout) == (0, "ready\n")


def test_output_of_the_command_is_not_repeated_by_the_daemon(run):
    done = run(
        """
        sys.stdout.write("before ")
        def work(reporter):
            reporter.ready()
            return 0
        start(work)
        """
    )
    assert done.stdout == "before ready\n"


def test_a_long_log_is_put_aside(run, tmp_path):
    log = tmp_path / "logs" / "log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(11 * 1024 * 1024)
    assert run("start(lambda reporter: reporter.ready() or 0)").returncode == 0
    assert log.stat().st_size == 0
    assert Path(f"{log}.1").stat().st_size == 11 * 1024 * 1024


def test_a_log_that_cannot_be_written(run, tmp_path):
    (tmp_path / "logs").touch()
    done = run("start(lambda reporter: 0)")
    assert done.returncode == 2
    assert "cannot be written: File exists" in done.stdout
