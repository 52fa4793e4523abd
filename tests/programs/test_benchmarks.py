"""dbench, bonnie++ and postmark, for what they do rather than for how fast: none of them meets an error."""

import os
import re
from pathlib import Path

import pytest

from tests.programs import kit

pytestmark = kit.MARKS

LOAD = Path("/usr/share/dbench/client.txt")


def test_dbench(mount):
    """A file server's load, of many calls of every kind; it ends at a call whose result is not the recorded one."""
    kit.need("dbench")
    if not LOAD.exists():
        pytest.skip(f"NOT TESTED: {LOAD} is missing: apt-get install dbench")
    said = kit.run("dbench", "-c", LOAD, "-t", "10", "-D", mount.path, 4, cwd=mount.path)
    assert re.search(r"^Throughput \d+\.\d+ MB/sec  4 clients", said, re.MULTILINE), said
    assert "ERROR" not in said, said
    assert "failed" not in said.replace("failed to create barrier semaphore", ""), said
    kit.unchanged_after_cold_remount(mount, mount.path)


def test_bonnie(mount):
    """Writing, rewriting and seeking; creating, statting and deleting files, in order and at random."""
    kit.need("bonnie++")
    # Not byte by byte (-f): each write(2) is a question to the daemon, and 24 MB would take half an hour.
    options = ("-f", "-r", "8", "-s", "24", "-n", "2:20000:10:4")
    said = kit.run("bonnie++", "-u", str(os.geteuid()), "-d", mount.path, "-m", "mount", *options, cwd=mount.path)
    for step in ("Rewriting...done", "start 'em...done", "Delete files in random order...done"):
        assert step in said, said
    assert "Bonnie: drastic I/O error" not in said
    assert os.listdir(mount.path) == []


def test_postmark(mount):
    """A mail server's load: small files made, appended to, read and deleted."""
    kit.need("postmark")
    orders = f"set location {mount.path}\nset size 500 40000\nset number 500\nset transactions 2000\nrun\nquit\n"
    said = kit.run("postmark", cwd=mount.path, stdin=orders)
    assert "Error" not in said, said
    made, gone = (int(re.search(rf"(\d+) {word} \(", said)[1]) for word in ("created", "deleted"))
    assert made == gone > 500
    assert os.listdir(mount.path) == []
