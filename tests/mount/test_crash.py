"""P2 and P3: what a killed process leaves behind (point 4 of the issue)."""

import contextlib
import mmap
import os
import random
import shutil
import time

import pytest

from tests.mount import journal
from tests.mount.harness import TINY, Lab
from tests.mount.stores import on_stores
from tests.mount.working import STRICT, check_moment, check_prefixes, steps_noted, wait_for_fsyncs, working

pytestmark = pytest.mark.mount

ROUNDS = int(os.environ.get("ZEROFS_CRASH_ROUNDS", "150"))
"""Of each kind in the long version of the rounds at the end."""

KEPT_MAX = 8
"""So many rounds stay in the volume and are read again after each crash; older ones are deleted."""


def crash_while_working(lab, mount, root, seed, fsyncs):
    """Kill the daemon after the program has noted so many fsyncs. The number of steps that were durable then."""
    with working(lab, root, seed) as notes:
        wait_for_fsyncs(notes, fsyncs)
        mount.kill()
    return steps_noted(notes)


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
        check_moment(seed, durable, found)
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


MANY = [pytest.mark.slow, pytest.mark.timeout(600 + 20 * ROUNDS)]


@pytest.mark.parametrize(
    ("rounds", "writeback"),
    [
        pytest.param(2, False, id="few"),
        pytest.param(ROUNDS, False, id="many", marks=MANY),
        pytest.param(ROUNDS, True, id="many, writeback", marks=MANY),
    ],
)
def test_rounds_of_kills_at_random_moments(fuse, tmp_path, rounds, writeback):
    """Work, kill -9 at random, mount, look; kill again, delete the cache, mount, look again. Small limits, so that
    flushes, merges, repacks and collections are what is killed."""
    with Lab(tmp_path, patience_s=300 + 20 * rounds) as lab:
        chance = random.Random(rounds)
        small = TINY | {"lsm": TINY["lsm"] | {"memtable_size_mb": 0.004, "sync_interval_s": 0.05}}
        settings = small if writeback else small | {"servers.fuse": STRICT["servers.fuse"]}
        mount = lab.mount(lab.local_store(), settings=settings)
        kept = {}
        for seed in range(1000, 1000 + rounds):
            root = mount.path / f"round {seed}"
            root.mkdir()
            durable = kill_at_random(lab, mount, root, seed, chance)
            mount.start()
            found = read_if_there(root)
            assert found is not None or not durable, f"round {seed}: the directory is gone"
            if found is not None:
                (check_prefixes if writeback else check_moment)(seed, durable, found)
                kept[root] = found
            mount.kill()
            mount.drop_cache()
            mount.start()
            for earlier, contents in kept.items():
                assert read_if_there(earlier) == contents, f"{earlier.name} after the crash of round {seed}"
            for old in list(kept)[:-KEPT_MAX]:
                shutil.rmtree(old)
                del kept[old]
                fsync(mount.path)  # or the next kill might bring it back
        mount.umount()
        assert mount.zerofs("fsck").returncode == 0
        mount.drop_cache()
        mount.start()
        assert {path.name for path in mount.path.iterdir()} == {root.name for root in kept}
        assert {root: journal.read_directory(root) for root in kept} == kept
        mount.umount()


@pytest.mark.parametrize("how", ["O_SYNC", "O_DSYNC", "MS_SYNC"])
def test_a_synchronous_write_survives_a_crash(lab, store, how):
    """With the writeback cache, and without any fsync."""
    mount = lab.mount(store)
    path, data = mount.path / "file", os.urandom(100_000)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, how, 0), 0o600)
    if how == "MS_SYNC":
        os.ftruncate(descriptor, len(data))
        mapping = mmap.mmap(descriptor, 0)
        mapping[:] = data
        mapping.flush()
    else:
        assert os.write(descriptor, data) == len(data)
    mount.kill()
    with contextlib.suppress(OSError):
        os.close(descriptor)
    mount.drop_cache()
    mount.start()
    assert path.read_bytes() == data
    mount.umount()


def kill_at_random(lab, mount, root, seed, chance):
    """Kill the daemon some time after a random number of fsyncs. The number of steps that were durable then."""
    with working(lab, root, seed) as notes:
        wait_for_fsyncs(notes, chance.choice((0, 1, 3, 10, 30)))
        time.sleep(chance.uniform(0, 0.1))  # the moment of the kill is what this is about
        mount.kill()
    return steps_noted(notes)


def fsync(directory):
    descriptor = os.open(directory, os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def read_if_there(root):
    return journal.read_directory(root) if root.exists() else None
