"""P2 and P3: what a killed process leaves behind (point 4 of the issue)."""

import contextlib
import itertools
import os
import subprocess
import sys

import pytest

from tests.mount import journal
from tests.mount.harness import TINY
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


STRICT = {"servers.fuse": {"writeback": False}, "lsm": {"sync_interval_s": 0.05}}
"""Every write(2) is a request of its own, and cuts happen all the time."""


@on_stores()
def test_a_crash_leaves_a_prefix_of_the_requests(lab, store):
    crash_and_check(lab, lab.mount(store, settings=STRICT), fsyncs=(3, 17, 40))


@on_stores("file", "minio")
def test_a_crash_amid_flushes_leaves_a_prefix_of_the_requests(lab, store):
    mount = lab.mount(store, settings=TINY | STRICT | {"lsm": TINY["lsm"] | {"memtable_size_mb": 0.004}})
    crash_and_check(lab, mount, fsyncs=(25, 60))
    newest = max(name for name in store.names() if name.endswith(".manifest"))
    assert int(newest.removeprefix("manifest/").removesuffix(".manifest")) > 20, "it flushed often"


def crash_and_check(lab, mount, fsyncs):
    """Rounds of work, each ended by a kill; whatever a round left stays."""
    kept = {}
    for seed, count in enumerate(fsyncs):
        root = mount.path / f"round {seed}"
        root.mkdir()
        durable = crash_while_working(lab, mount, root, seed, count)
        mount.drop_cache()
        mount.start()
        found = journal.read_directory(root)
        moments = map(dict, journal.states(seed, durable, durable + LOOK_AHEAD))
        assert any(is_between(*pair, found) for pair in itertools.pairwise(moments)), (
            f"round {seed}: no prefix of {durable} or more steps"
        )
        kept[root] = found
        for earlier, contents in kept.items():
            assert journal.read_directory(earlier) == contents
    mount.umount()


def is_between(before, after, found):
    """Whether `found` is the state before a step, or that with part of what the step appends.

    A request is all or nothing, but one write(2) may be several: the kernel ends a request at a page of the caller's
    buffer that it cannot copy at once.
    """
    return found.keys() == before.keys() and all(
        data == before[name]
        or (
            None not in (data, before[name], after.get(name))
            and data.startswith(before[name])
            and after[name].startswith(data)
        )
        for name, data in found.items()
    )


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
    nearest: list[str] | None = None
    for moment, state in enumerate(journal.states(seed, durable, durable + LOOK_AHEAD), durable):
        if state.keys() == found.keys():
            sizes = journal.fsynced_sizes(seed, durable, moment)
            wrong = [
                describe(name, found[name], whole, sizes.get(name, 0))
                for name, whole in state.items()
                if not is_prefix(found[name], whole, sizes.get(name, 0))
            ]
            if not wrong:
                return
            if nearest is None or len(wrong) < len(nearest):
                nearest = wrong
    raise AssertionError(f"no moment after at least {durable} steps explains {nearest or sorted(found)}")


def describe(name, data, whole, size):
    """What is wrong with a file: how much is there, was written, was fsynced, and where it differs."""
    if data is None or whole is None:
        return f"{name}: directory or file"
    differs = next((i for i, (a, b) in enumerate(zip(data, whole, strict=False)) if a != b), min(len(data), len(whole)))
    zeros = len(data[differs:]) - len(data[differs:].lstrip(b"\0"))
    return f"{name}: {len(data)} of {len(whole)} bytes, {size} fsynced, differs at {differs}, then {zeros} zeros"


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
