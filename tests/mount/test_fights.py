"""P2 and P4: two machines that take one volume from each other, again and again, while programs write on both."""

import contextlib
import os
import random
import time

import pytest

from tests.mount import journal
from tests.mount.harness import TINY, Lab
from tests.mount.hosts import is_mounted, wait_for
from tests.mount.stores import BucketStore
from tests.mount.working import STRICT, check_moment, check_prefixes, steps_noted, wait_for_fsyncs, working

pytestmark = [pytest.mark.mount, pytest.mark.s3]

TAKEOVERS = int(os.environ.get("ZEROFS_TAKEOVERS", "60"))
"""Of the long version."""

FENCED = 18


MANY = [pytest.mark.slow, pytest.mark.timeout(600 + 20 * TAKEOVERS)]


@pytest.mark.parametrize(
    ("takeovers", "writeback"),
    [
        pytest.param(3, False, id="few"),
        pytest.param(TAKEOVERS, False, id="many", marks=MANY),
        pytest.param(TAKEOVERS, True, id="many, writeback", marks=MANY),
    ],
)
def test_what_fsync_acknowledged_to_anybody_is_there(fuse, tmp_path, minio, takeovers, writeback):
    small = TINY | {"lsm": TINY["lsm"] | {"memtable_size_mb": 0.004, "sync_interval_s": 0.05}}
    settings = small if writeback else small | {"servers.fuse": STRICT["servers.fuse"]}
    with (
        Lab(tmp_path, patience_s=300 + 20 * takeovers) as lab,
        contextlib.closing(BucketStore(minio)) as store,
        contextlib.ExitStack() as work,
    ):
        chance = random.Random(takeovers)
        sides = [lab.plan(store, name, host=lab.new_host(name), settings=settings) for name in ("left", "right")]
        noted = {}
        for seed in range(2000, 2000 + takeovers):
            mine, other = sides[seed % 2], sides[(seed + 1) % 2]
            mine.run()  # fences the other, whose program is at work
            root = mine.path / f"round {seed}"
            root.mkdir()
            ours = contextlib.ExitStack()
            noted[seed] = ours.enter_context(working(lab, root, seed))
            wait_until_shut_out(other, chance, work)
            wait_for_fsyncs(noted[seed], chance.choice((1, 5, 20)))
            time.sleep(chance.uniform(0, 0.1))  # how much it is ahead of its last fsync is left to chance
            work = ours
        last = sides[(2000 + takeovers - 1) % 2]
        last.kill()
        work.close()
        last.drop_cache()
        last.run()
        for seed, notes in noted.items():
            found = journal.read_directory(last.path / f"round {seed}")
            (check_prefixes if writeback else check_moment)(seed, steps_noted(notes), found)
        last.umount()
        assert last.zerofs("fsck").returncode == 0


def wait_until_shut_out(mount, chance, work):
    """The program on a mount that was fenced ends with an error, and so does the mount, one way or the other."""
    if not is_mounted(mount.path):
        return
    if chance.random() < 0.3:
        mount.kill()
        work.close()
        return
    work.close()
    # It learns of it at its next sync. A write that came before, to a chunk that the winner has collected, is lost.
    wait_for(lambda: mount.status()["state"] == "fenced", "the mount to see that it was fenced")
    assert mount.umount(check=False).returncode == FENCED
    assert mount.foreground.wait() == FENCED
