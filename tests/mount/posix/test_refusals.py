"""Read-only mounts, full volumes, and a directory of very many entries: what is refused, and what goes on."""

import contextlib
import errno
import os
import shutil
import stat

import pytest

from tests.mount.harness import Lab
from tests.mount.posix.syscalls import renameat2
from tests.mount.posix.users import open_and_close, outcome

pytestmark = pytest.mark.mount

MIB = 1 << 20
EXCHANGE = 2


CHANGES = {
    "mkdir": lambda at: os.mkdir(at / "new"),
    "mkfifo": lambda at: os.mkfifo(at / "new"),
    "mknod": lambda at: os.mknod(at / "new", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "symlink": lambda at: os.symlink("x", at / "new"),
    "link": lambda at: os.link(at / "file", at / "new"),
    "rename": lambda at: os.rename(at / "file", at / "new"),
    "rename onto": lambda at: os.rename(at / "file", at / "other"),
    "exchange": lambda at: renameat2(at / "file", at / "other", EXCHANGE),
    "unlink": lambda at: os.unlink(at / "file"),
    "rmdir": lambda at: os.rmdir(at / "directory"),
    "chmod": lambda at: os.chmod(at / "file", 0o600),
    "chown": lambda at: os.chown(at / "file", 1, 1),
    "lchown": lambda at: os.chown(at / "symlink", 1, 1, follow_symlinks=False),
    "utime": lambda at: os.utime(at / "file", (1, 1)),
    "truncate": lambda at: os.truncate(at / "file", 0),
    "setxattr": lambda at: os.setxattr(at / "file", "user.x", b"2"),
    "removexattr": lambda at: os.removexattr(at / "file", "user.x"),
    "open for writing": lambda at: open_and_close(at / "file", os.O_WRONLY),
    "open for both": lambda at: open_and_close(at / "file", os.O_RDWR),
    "open and truncate": lambda at: open_and_close(at / "file", os.O_RDONLY | os.O_TRUNC),
    "create": lambda at: open_and_close(at / "new", os.O_RDONLY | os.O_CREAT),
}


def fill(at):
    (at / "file").write_bytes(b"data")
    os.setxattr(at / "file", "user.x", b"1")
    (at / "other").write_bytes(b"other")
    (at / "directory").mkdir()
    (at / "symlink").symlink_to("file")
    os.mkfifo(at / "fifo")


def tree_of(at):
    return {name: os.lstat(at / name)[:9] for name in sorted(os.listdir(at))}


@pytest.fixture
def read_only(lab):
    """A small tree, mounted read-only."""
    mount = lab.mount(lab.local_store())
    fill(mount.path)
    mount.umount()
    mount.start("--read-only")
    yield mount
    mount.umount()
    mount.zerofs("fsck")


def test_a_read_only_mount_refuses_every_change(read_only):
    at = read_only.path
    before = tree_of(at)
    refused = {name: outcome(change, at) for name, change in CHANGES.items()}
    assert refused == dict.fromkeys(CHANGES, "EROFS")
    assert outcome(os.mkdir, at / "file") == "EEXIST"
    assert outcome(open_and_close, at / "missing", os.O_RDONLY) == "ENOENT"
    assert (at / "symlink").read_bytes() == b"data"
    assert os.getxattr(at / "file", "user.x") == b"1"
    assert not os.access(at / "file", os.W_OK)
    assert outcome(open_and_close, at / "fifo", os.O_RDWR | os.O_NONBLOCK) == "ok"  # a pipe is no part of the volume
    assert tree_of(at) == before
    assert os.statvfs(at).f_flag & os.ST_RDONLY


@pytest.fixture(params=[True, False], ids=["writeback", "write-through"])
def small(request, lab):
    """A volume with a quota of 8 MiB."""
    settings = {"filesystem": {"max_size_gb": 8 * MIB / 1e9}, "servers.fuse": {"writeback": request.param}}
    mount = lab.mount(lab.local_store(), settings=settings)
    yield mount
    mount.umount(check=False)
    mount.zerofs("fsck")


def write_until_refused(path, size=256 << 10):
    """Write and fsync piece by piece: (bytes that were acknowledged, the error)."""
    done = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while True:
            os.write(descriptor, os.urandom(size))
            os.fsync(descriptor)
            done += size
    except OSError as error:
        return done, error
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)  # tells it once more


def test_a_full_volume_says_so_and_deleting_makes_room(small):
    at = small.path
    total = os.statvfs(at).f_blocks * os.statvfs(at).f_frsize
    assert 7 * MIB < total <= 8 * MIB
    (at / "kept").write_bytes(b"k" * 100_000)
    assert write_until_refused(at / "big")[1].errno == errno.ENOSPC
    free = os.statvfs(at)
    assert free.f_bavail * free.f_frsize < MIB
    assert shutil.disk_usage(at).total == total
    assert (at / "kept").read_bytes() == b"k" * 100_000
    os.rename(at / "kept", at / "moved")
    os.unlink(at / "moved")
    os.truncate(at / "big", 0)
    assert os.statvfs(at).f_bavail * free.f_frsize > 6 * MIB
    (at / "again").write_bytes(b"a" * MIB)
    descriptor = os.open(at / "again", os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    assert (at / "again").read_bytes() == b"a" * MIB


def test_a_full_volume_keeps_what_it_acknowledged(small):
    at = small.path
    done, error = write_until_refused(at / "big")
    assert error.errno == errno.ENOSPC
    small.umount(check=False)
    small.start()
    assert os.stat(at / "big").st_size >= done > 6 * MIB


def list_in_pieces(path):
    """The names, as one open directory gives them while something happens between its reads."""
    with os.scandir(path) as entries:
        yield from (entry.name for entry in entries)


def crowd(at, count, first=0):
    for number in range(first, first + count):
        os.mknod(at / f"{number:07}")


def read_while_it_changes(at, count):
    """Each name that stays is seen once, and no name twice, while every fourth goes and as many come."""
    seen, stable = [], {f"{number:07}" for number in range(count) if number % 4}
    doomed = iter(range(0, count, 4))
    for position, name in enumerate(list_in_pieces(at)):
        seen.append(name)
        if position % 3 == 0 and (number := next(doomed, None)) is not None:
            os.unlink(at / f"{number:07}")
            os.mknod(at / f"new-{number:07}")
    assert len(seen) == len(set(seen))
    assert stable <= set(seen)
    crowd_now = set(os.listdir(at))
    assert stable <= crowd_now
    assert len(crowd_now) == count


@pytest.mark.parametrize("count", [5_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_a_directory_of_many_entries_is_read_while_it_changes(tmp_path, fuse, count):
    with Lab(tmp_path, patience_s=7000) as lab:
        mount = lab.mount(lab.local_store())
        at = mount.path / "crowd"
        at.mkdir()
        crowd(at, count)
        read_while_it_changes(at, count)
        mount.cold_remount()
        assert len(os.listdir(at)) == count
        assert outcome(os.stat, at / "0000001") == "ok"
        assert outcome(os.rmdir, at) == "ENOTEMPTY"
        mount.umount()
        mount.zerofs("fsck", timeout_s=3000)
