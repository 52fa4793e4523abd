"""P6 and P7: an S3 server that is killed and started again, or frozen, under load. Nothing is lost, and it comes back.

Time itself is the subject here: the server really is away for some seconds, in the long version for a minute.
"""

import contextlib
import errno
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mount import load
from tests.mount.harness import Lab
from tests.mount.hosts import wait_for
from tests.mount.stores import BucketStore

pytestmark = [pytest.mark.mount, pytest.mark.s3]

LONG_S = float(os.environ.get("ZEROFS_OUTAGE_S", "60"))
"""How long the server is away in the long version."""

LONGER_THAN_A_SILENCE_S = 9
"""A silence counts as an outage after that, also when some data is on its way."""

DEADLINE_S = 3
"""Of the mounts that shall feel it; that of the others is far away."""

KIB, MIB = 2**10, 2**20


@pytest.fixture
def bucket(machine):
    with contextlib.closing(BucketStore(machine.server)) as store:
        yield store


def settings(deadline_s, *, writeback=True):
    """A budget of 16 MB, of which 4 MB for what is not stored."""
    return {
        "cache": {"memory_size_gb": 0.016},
        "lsm": {"sync_timeout_s": deadline_s, "sync_interval_s": 0.5},
        "servers.fuse": {"writeback": writeback},
    }


@contextlib.contextmanager
def program(lab, *arguments):
    """`load.py ARGUMENTS`, with pipes; it must end well in the block."""
    with (lab.root / f"load {'-'.join(map(str, arguments)).replace('/', '-')[-100:]}").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, load.__file__, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        with process:
            yield process
            assert process.wait(60) == 0, Path(log.name).read_text()
    finally:
        process.kill()


def go_away(machine, how, seconds, while_away):
    """The server is killed and started again, or frozen and thawed, so many seconds later."""
    leave, return_ = {"killed": (machine.kill, machine.start), "frozen": (machine.freeze, machine.thaw)}[how]
    leave()
    back_at = time.monotonic() + seconds
    try:
        while_away()
        time.sleep(max(0.0, back_at - time.monotonic()))  # how long the server is away is what this is about
    finally:
        return_()


@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        pytest.param("killed", 7, id="killed"),
        pytest.param("frozen", LONGER_THAN_A_SILENCE_S, id="frozen"),
        pytest.param("killed", LONG_S, id="killed for long", marks=[pytest.mark.slow]),
        pytest.param("frozen", LONG_S, id="frozen for long", marks=[pytest.mark.slow]),
    ],
)
def test_a_server_that_goes_away_under_load(fuse, tmp_path, machine, bucket, how, seconds):
    with Lab(tmp_path, patience_s=200 + 4 * seconds) as lab:
        mount = lab.mount(bucket, settings=settings(10 * seconds))
        notes = [tmp_path / f"notes {number}" for number in range(3)]

        def noted():
            """Name, whether it was fsynced, and how long it took, of each file of each program."""
            return [[line.split() for line in path.read_text().splitlines()] for path in notes]

        def fsynced():
            return [sum(int(line[1]) for line in lines) for lines in noted()]

        def look():
            wait_for(lambda: mount.status()["state"] == "waiting", "the state waiting", timeout_s=seconds)
            assert mount.status()["reason"]

        with contextlib.ExitStack() as stack:
            for number, path in enumerate(notes):
                path.touch()
                process = stack.enter_context(program(lab, "files", mount.path, path, number))
                stack.callback(process.terminate)
            wait_for(lambda: min(fsynced()) > 2, "some load")
            go_away(machine, how, seconds, look)
            wait_for(lambda: mount.status()["state"] == "ok", "the state ok")
            before = fsynced()
            wait_for(lambda: all(map(int.__gt__, fsynced(), before)), "more load")
        lines = [line for program_lines in noted() for line in program_lines]
        assert max(float(line[2]) for line in lines) > seconds - 2, "somebody waited for the server"
        mount.umount()
        mount.drop_cache()
        mount.start()
        for name, *_ in lines:
            assert (mount.path / name).read_bytes() == load.content(name)
        mount.umount()
        assert mount.zerofs("fsck").returncode == 0


@pytest.mark.parametrize("how", [pytest.param("killed", marks=[pytest.mark.slow]), "frozen"])
def test_an_outage_beyond_the_deadline(fuse, lab, machine, bucket, how):
    """fsync gives up, changes are refused, what was written is held; and afterwards everything is as it was."""
    mount = lab.mount(bucket, settings=settings(DEADLINE_S))
    old, size = mount.path / "old", 6 * MIB
    old.write_bytes(b"old" * 1000)
    assert old.read_bytes() == b"old" * 1000

    def tell(writer):
        writer.stdin.write("go on\n")
        writer.stdin.flush()

    def feel():
        tell(small)
        assert int(small.stdout.readline()) == errno.EIO, "its fsync"
        wait_for(lambda: mount.status()["state"] == "read-only", "the state read-only")
        assert mount.status()["outage_s"] >= DEADLINE_S
        tell(large)
        for change in (
            lambda: (mount.path / "new").mkdir(),
            lambda: (mount.path / "new").write_bytes(b""),
            lambda: old.rename(mount.path / "other"),
            lambda: old.unlink(),
            lambda: old.chmod(0o600),
            lambda: os.truncate(old, 5),
            lambda: os.setxattr(old, "user.x", b"y"),
            lambda: os.open(old, os.O_RDWR),
        ):
            with pytest.raises(OSError) as refused:
                change()
            assert refused.value.errno == errno.EROFS
        assert old.read_bytes() == b"old" * 1000
        tell(small)

    with contextlib.ExitStack() as stack:
        # One within the budget, and one beyond it, whose pages stay in the kernel.
        small, large = writers = [
            stack.enter_context(program(lab, "one", mount.path / name, length))
            for name, length in (("small", 64 * KIB), ("large", size))
        ]
        for writer in writers:
            assert writer.stdout.readline() == "open\n"
        go_away(machine, how, 1, feel)
        assert int(large.stdout.readline()) == 0, "its fsync had to wait for its writes"
        tell(large)
        wait_for(lambda: mount.status()["state"] == "ok", "the state ok")
    (mount.path / "new").mkdir()
    with open(mount.path / "small", "rb") as file:
        os.fsync(file.fileno())
    mount.kill()
    mount.drop_cache()
    mount.start()
    assert (mount.path / "small").read_bytes() == load.content("small", 64 * KIB) + load.MORE
    assert (mount.path / "large").read_bytes() == load.content("large", size) + load.MORE
    assert sorted(path.name for path in mount.path.iterdir()) == ["large", "new", "old", "small"]
    mount.umount()


HELD = 64
WRITERS = HELD + 8
"""What the budget takes before may be the whole of some files."""


def test_cached_reads_go_on_while_64_writes_are_held(fuse, lab, machine, bucket):
    mount = lab.mount(bucket, settings=settings(600, writeback=False))
    hot = load.content("hot", 64 * KIB)
    (mount.path / "hot").write_bytes(hot)
    page = mmap.mmap(-1, len(hot))

    def read():
        """A read that reaches zerofs, and a stat that need not."""
        descriptor = os.open(mount.path / "hot", os.O_RDONLY | os.O_DIRECT)
        try:
            assert os.preadv(descriptor, [page], 0) == len(hot)
            assert page[:] == hot
            assert os.fstat(descriptor).st_size == len(hot)
        finally:
            os.close(descriptor)

    with program(lab, "at-once", mount.path, WRITERS, MIB) as writing:
        assert writing.stdout.readline() == "ready\n"
        mount.flush()
        read()

        def read_on():
            writing.stdin.write("now\n")
            writing.stdin.flush()
            wait_for(lambda: held(mount) >= HELD, "64 held writes")
            for _ in range(300):
                read()
            assert writing.poll() is None, "none was let go, none was refused"

        go_away(machine, "frozen", 1, read_on)
    mount.kill()
    mount.drop_cache()
    mount.start()
    for number in range(WRITERS):
        assert (mount.path / f"{number}").read_bytes() == load.content(str(number), MIB)
    mount.umount()


def held(mount):
    """How many writes were ever held because the budget was full."""
    return mount.status()["metrics"].get('held_writes{by="chunks"}', 0)
