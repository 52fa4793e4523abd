"""What a server used is counted with its children, also with those that are gone."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from benches.processes import Usage, end, processes_with, with_children

MIB = 1 << 20

PROGRAM = """
import subprocess, sys, time
for line in sys.stdin:
    if line == "child\\n":
        subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.2: pass"])
    elif line == "keep\\n":
        kept = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    else:
        b"x" * int(line)
    print("done", flush=True)
"""


@contextlib.contextmanager
def server():
    command = [sys.executable, "-c", PROGRAM, "a name to be found by"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


def ask(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_a_server_is_found_with_its_children():
    with server() as process:
        ask(process, "keep")
        assert processes_with(b"a name to be found by") == [process.pid]
        assert len(with_children([process.pid])) == 2


def test_the_time_of_a_child_that_is_gone_counts_once():
    with server() as process:
        ask(process, "child")
        usage = Usage([process.pid])
        assert usage.cpu_seconds() < 0.1
        ask(process, "child")
        assert 0.19 <= usage.cpu_seconds() < 0.39


def test_the_peak_is_seen_when_it_is_over():
    with server() as process:
        ask(process, "1")
        usage = Usage([process.pid])
        before = usage.peak_bytes()
        ask(process, str(64 * MIB))
        assert 60 * MIB < usage.peak_bytes() - before < 80 * MIB
        if os.geteuid() == 0:
            assert Usage([process.pid]).peak_bytes() < before + 8 * MIB


def test_without_a_process_there_is_no_memory():
    assert Usage([]).peak_bytes() is None


@pytest.mark.parametrize("deaf", [False, True])
def test_a_process_is_ended_also_if_it_does_not_listen(deaf):
    program = "import signal, sys\n"
    program += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if deaf else ""
    program += "print(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        end([process.pid], grace_s=0.5 if deaf else 60)
        assert process.wait() == (-signal.SIGKILL if deaf else -signal.SIGTERM)
        end([process.pid])
