"""The life of a mount: its options, its beginning and end, and what may go wrong between them."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import MountRefusedError

pytestmark = pytest.mark.mount

MIB = 1 << 20

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED, only root may do that")


def fails_with(code):
    return pytest.raises(OSError, check=lambda error: error.errno == code)


@pytest.mark.parametrize("writeback", [True, False])
@pytest.mark.parametrize("stay_awake", [True, False])
def test_data_arrives_whatever_the_options(mount, writeback, stay_awake):
    path = mount("zerofs", writeback=writeback, stay_awake=stay_awake).path
    data = os.urandom(300_000)
    for offset in range(0, len(data), 10_000):
        with (path / "a").open("ab") as file:
            file.write(data[offset : offset + 10_000])
    assert (path / "a").read_bytes() == data


@as_root
def test_what_was_written_comes_back_from_the_filesystem(mount):
    mounted = mount("zerofs")
    data = os.urandom(2 * MIB + 1)
    (mounted.path / "d").mkdir()
    (mounted.path / "d" / "a").write_bytes(data)
    mounted.drop_caches()
    assert (mounted.path / "d" / "a").read_bytes() == data


@as_root
def test_requests_are_as_long_as_the_protocol_allows(mount):
    mounted = mount("null")
    device = os.stat(mounted.path).st_dev
    bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    assert bdi.read_text() == "1024\n"


def test_a_read_only_mount(mount):
    path = mount("null", read_only=True).path
    with fails_with(errno.EROFS):
        (path / "a").touch()
    assert os.listdir(path) == []


def test_what_the_mount_table_shows(mount):
    mounted = mount("null", fsname="s3://bucket/pre,fix with space")
    fields = next(
        line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(mounted.path) in line
    )
    assert fields[-3:-1] == ["fuse.zerofs", "s3://bucket/pre,fix\\040with\\040space"]
    assert {"default_permissions"} <= set(fields[-1].split(","))
    assert {"nosuid", "nodev"} <= set(fields[5].split(","))


def test_a_bug_is_eio_and_the_mount_goes_on(mount):
    mounted = mount("broken")
    mounted.expected += ["lookup failed with ZeroDivisionError, answered with EIO", '  File "', "    "]
    for _ in range(3):
        with fails_with(errno.EIO):
            (mounted.path / "bug-in-secret-name").stat()
    (mounted.path / "fine").write_bytes(b"x")
    assert (mounted.path / "fine").read_bytes() == b"x"
    assert mounted.said().count("answered with EIO") == 1
    assert "secret" not in mounted.said()


class TestEnd:
    def test_unmounted_from_outside(self, mount):
        mounted = mount("null")
        (mounted.path / "a").write_bytes(b"x")
        assert mounted.unmount() == 0
        assert not mounted.is_mounted()

    @as_root
    def test_a_connection_that_is_cut_off_ends_it(self, mount):
        mounted = mount("null")
        handle = os.open(mounted.path / "a", os.O_CREAT | os.O_WRONLY)
        # Aborts the connection first, and then fails, as a file is open: the mount is dead but there.
        assert subprocess.run(["umount", "-f", mounted.path], capture_output=True, check=False).returncode != 0
        assert mounted.process.wait(30) == 0
        assert not mounted.is_mounted()
        with fails_with(errno.ENOTCONN):
            os.close(handle)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_unmounts(self, mount, number):
        mounted = mount("null")
        (mounted.path / "a").write_bytes(b"x")
        mounted.process.send_signal(number)
        assert mounted.process.wait(30) == 0
        assert not mounted.is_mounted()

    def test_open_files_are_served_to_their_end(self, mount):
        mounted = mount("null")
        mounted.expected.append("detaching it, open files are served a little longer")
        with (mounted.path / "a").open("w+b") as file:
            file.write(b"x" * 100_000)
            file.flush()
            mounted.process.terminate()
            while mounted.is_mounted():
                os.sched_yield()
            file.write(b"y" * 100_000)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            assert file.read() == b"x" * 100_000 + b"y" * 100_000
        assert mounted.process.wait(30) == 0

    def test_a_request_that_is_never_answered_does_not_keep_it(self, mount):
        mounted = mount("stuck")
        mounted.expected += ["detaching it", "are still open; what was not fsynced through them may be lost"]
        program = "import os, sys; fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR); print(flush=True); os.fsync(fd)"
        with subprocess.Popen(
            [sys.executable, "-c", program, mounted.path / "a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as user:
            user.stdout.readline()
            assert mounted.terminate() == 0
            _, said = user.communicate(timeout=30)
        assert b"ConnectionAbortedError" in said
        assert not mounted.is_mounted()

    def test_a_killed_server_leaves_a_mount_that_the_next_one_explains(self, mount):
        mounted = mount("null")
        mounted.process.kill()
        mounted.process.wait()
        assert mounted.is_mounted()
        with pytest.raises(MountRefusedError, match="is a zerofs mount already; unmount it with `zerofs umount"):
            mount("null", path=mounted.path)

    def test_a_second_mount_at_the_same_place_is_refused(self, mount):
        mounted = mount("null")
        with pytest.raises(MountRefusedError, match="is a zerofs mount already"):
            mount("null", path=mounted.path)
        (mounted.path / "a").write_bytes(b"still here")

    def test_mounting_again_after_an_end(self, mount):
        first = mount("null")
        assert first.terminate() == 0
        second = mount("null", path=first.path)
        assert os.listdir(second.path) == []


WAITS = """
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: os.write(1, b"."))
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
os.fsync(file)
os.write(1, b"it ended")
"""


@pytest.mark.parametrize("mount", ["native"], indirect=True)
def test_a_signal_does_not_end_a_wait_and_a_kill_does(mount):
    """Programs are not prepared for EINTR from fsync. With pyfuse3 a kill does not end it either."""
    mounted = mount("stuck")
    command = [sys.executable, "-c", WAITS, mounted.path / "f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
        waiting.kill()
        assert waiting.wait(10) == -signal.SIGKILL
        assert b"ended" not in waiting.stdout.read()
    assert mounted.unmount() == 0
