"""P4: one writer (point 5 of the issue). Two real processes on one volume, on one host and on two."""

import contextlib
import errno
import os

import pytest

from tests.mount.hosts import is_mounted, wait_for
from tests.mount.stores import on_stores

pytestmark = pytest.mark.mount

IN_USE, FENCED = 11, 18


def fsync(path, data):
    """Write and fsync; the errno that came of it, 0 for success."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    except OSError as error:
        return error.errno
    return 0


def check_is_shut_out(first, second):
    """The first mount acknowledges nothing, changes nothing, and says why."""
    for attempt in range(3):
        assert first.open_file_fsync() in (errno.EIO, errno.EROFS), f"fsync number {attempt} was acknowledged"
    for change in (
        lambda: (first.path / "new").touch(),
        lambda: (first.path / "folder").mkdir(),
        lambda: (first.path / "kept").unlink(),
        lambda: (first.path / "kept").rename(first.path / "other"),
        lambda: (first.path / "kept").chmod(0o600),
        lambda: os.setxattr(first.path / "kept", "user.x", b"y"),
    ):
        with pytest.raises(OSError) as failed:
            change()
        assert failed.value.errno == errno.EROFS
    assert (first.path / "kept").read_bytes() == b"fsynced"
    wait_for(lambda: f"pid {second.pid} " in first.status()["reason"], "a reason that names the winner")
    status = first.status()
    assert status["state"] == "fenced"
    assert "another writer took over this volume" in status["reason"]
    assert str(second.path) in status["reason"]
    assert "fenced" in first.lab.zerofs("status", first.path, host=first.host).stdout


class OpenFile:
    """A descriptor that was opened before the takeover: its fsyncs are those of a program that goes on working."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)

    def __call__(self):
        try:
            os.write(self.descriptor, b"more")
            os.fsync(self.descriptor)
        except OSError as error:
            return error.errno
        return 0

    def close(self):
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


@pytest.fixture
def first(lab, store):
    """A mount with one fsynced file, one that is not, and one open."""
    mount = lab.plan(store, "first")
    mount.run()
    assert fsync(mount.path / "kept", b"fsynced") == 0
    mount.open_file_fsync = OpenFile(mount.path / "open")
    assert mount.open_file_fsync() == 0
    yield mount
    mount.open_file_fsync.close()


@on_stores()
def test_a_second_mount_takes_over_when_told_to(lab, store, first):
    refused = lab.plan(store, "refused").launch()
    assert refused.wait() == IN_USE
    assert str(first.pid) in refused.said
    assert str(first.path) in refused.said
    assert first.open_file_fsync() == 0, "a refused mount harms nobody"

    second = lab.plan(store, "second").run("--take-over")
    assert f"taking the volume over from pid {first.pid}" in second.log
    assert str(first.path) in second.log
    assert first.open_file_fsync() == errno.EIO
    check_is_shut_out(first, second)
    assert fsync(second.path / "by the second", b"2") == 0
    first.open_file_fsync.close()

    done = first.umount(check=False)
    assert done.returncode == FENCED
    assert first.foreground.wait() == FENCED
    assert not is_mounted(first.path)
    assert (second.path / "kept").read_bytes() == b"fsynced"
    assert (second.path / "open").read_bytes() == b"more" * 2
    second.umount()
    assert second.foreground.wait() == 0


def test_nothing_of_a_fenced_writer_reaches_the_volume(lab, store, first):
    (first.path / "not fsynced").write_bytes(b"1" * 100_000)
    second = lab.plan(store, "second").run("--take-over")
    before = sorted(path.name for path in second.path.iterdir())
    assert before in (["kept", "open"], ["kept", "not fsynced", "open"])
    assert lab.zerofs("flush", first.path, check=False).returncode == FENCED
    first.open_file_fsync.close()
    first.foreground.process.terminate()
    assert first.foreground.wait() == FENCED
    assert sorted(path.name for path in second.path.iterdir()) == before
    second.cold_remount()
    assert sorted(path.name for path in second.path.iterdir()) == before
    second.umount()


@on_stores("file", "moto")
def test_another_host_takes_over_with_a_warning(lab, store, first):
    second = lab.plan(store, "second", host=lab.new_host("there")).run()
    assert "WARNING" in second.log
    assert f"taking the volume over from pid {first.pid} on " in second.log
    assert first.open_file_fsync() == errno.EIO
    check_is_shut_out(first, second)
    first.open_file_fsync.close()
    assert first.umount(check=False).returncode == FENCED
    second.umount()


def test_an_idle_writer_learns_of_it_by_itself(lab, store, first):
    first.open_file_fsync.close()
    second = lab.plan(store, "second").run("--take-over")
    (first.path / "written without fsync").write_bytes(b"x")
    wait_for(lambda: first.status()["state"] == "fenced", "the fence to be noticed")
    assert first.umount(check=False).returncode == FENCED
    second.umount()


def test_a_volume_that_was_left_is_taken_without_a_word(lab, store):
    first = lab.mount(store, "first")
    first.umount()
    second = lab.plan(store, "second", host=lab.new_host("there")).run()
    assert "taking the volume over" not in second.log
    second.umount()
