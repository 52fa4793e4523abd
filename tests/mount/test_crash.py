"""P2 and P3: what a killed process leaves behind (point 4 of the issue)."""

import contextlib
import os
import subprocess
import sys

import pytest

from tests.mount import journal
from tests.mount.hosts import wait_for
from tests.mount.stores import on_stores

pytestmark = pytest.mark.mount

LOOK_AHEAD = 2000
"""Steps after the last fsync that could have been done when the process died."""


@contextlib.contextmanager
def working(lab, root, seed):
    """The journal program at work below `root`; the file that it notes down in."""
    notes = lab.root / f"notes {seed}"
    notes.touch()
    command = [sys.executable, journal.__file__, root, notes, str(seed)]
    with (lab.root / f"journal {seed}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield notes
        assert process.wait(60) == 1, "it ends with the error that the dead filesystem gives it"
    finally:
        process.kill()
        process.wait()


def crash_while_working(lab, mount, root, seed, fsyncs):
    """Kill the daemon after the program has noted so many fsyncs. The number of steps that were durable then."""
    with working(lab, root, seed) as notes:
        wait_for(lambda: notes.read_bytes().count(b"\n") >= fsyncs, f"{fsyncs} fsyncs")
        mount.kill()
    return int(notes.read_text().split()[-1])


@on_stores()
def test_a_crash_leaves_a_prefix_of_the_requests(lab, store):
    mount = lab.mount(store, settings={"servers.fuse": {"writeback": False}, "lsm": {"sync_interval_s": 0.05}})
    kept = {}
    for seed, fsyncs in ((1, 3), (2, 17), (3, 40)):
        root = mount.path / f"round {seed}"
        root.mkdir()
        durable = crash_while_working(lab, mount, root, seed, fsyncs)
        mount.drop_cache()
        mount.start()
        found = journal.read_directory(root)
        moments = journal.states(seed, durable, durable + LOOK_AHEAD)
        assert any(state == found for state in moments), f"round {seed}: no prefix of {durable} or more steps"
        kept[root] = found
        for earlier, contents in kept.items():
            assert journal.read_directory(earlier) == contents
    mount.umount()


@on_stores("file", "minio")
def test_a_crash_with_the_writeback_cache_keeps_what_was_fsynced(lab, store):
    mount = lab.mount(store, settings={"lsm": {"sync_interval_s": 0.05}})
    for seed, fsyncs in ((11, 5), (12, 30)):
        root = mount.path / f"round {seed}"
        root.mkdir()
        durable = crash_while_working(lab, mount, root, seed, fsyncs)
        mount.drop_cache()
        mount.start()
        check_prefixes(seed, durable, journal.read_directory(root))
    mount.umount()


def check_prefixes(seed, durable, found):
    """Names are those of one moment; every file holds a prefix of what was appended to it, and what was fsynced.

    The kernel keeps written pages back and hands them over when it likes, but an fsync makes it hand over one file.
    """
    sizes = journal.fsynced_sizes(seed, durable)
    for state in journal.states(seed, durable, durable + LOOK_AHEAD):
        if state.keys() == found.keys() and all(
            is_prefix(found[name], whole, sizes.get(name, 0)) for name, whole in state.items()
        ):
            return
    raise AssertionError(f"no moment after at least {durable} steps explains {sorted(found)}")


def is_prefix(data, whole, size):
    if data is None or whole is None:
        return data is whole
    return whole.startswith(data) and len(data) >= size


def test_a_flush_then_kill_loses_nothing(lab, store):
    mount = lab.mount(store)
    for number in range(30):
        (mount.path / f"file {number}").write_bytes(b"%d" % number * 5000)
    mount.flush()
    mount.kill()
    mount.drop_cache()
    mount.start()
    for number in range(30):
        assert (mount.path / f"file {number}").read_bytes() == b"%d" % number * 5000
    mount.umount()


def test_a_dead_mount_is_buried_with_the_truth(lab, store):
    mount = lab.mount(store)
    (mount.path / "file").write_bytes(b"not fsynced")
    os.kill(mount.pid, 9)
    done = mount.umount(check=False)
    assert done.returncode == 19
    assert "may be lost" in done.stderr
    mount.start()
    mount.umount()
