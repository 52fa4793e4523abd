"""A mount as its user meets it: passwords, signals, busy mountpoints, the quota, a volume in memory."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.hosts import is_alive, is_mounted, wait_for
from tests.mount.stores import on_stores

pytestmark = pytest.mark.mount

CONFIG, WRONG_PASSWORD, MOUNTPOINT = 2, 12, 20
MB = 10**6


class MemoryStore:
    """`memory://`: gone with its process."""

    kind = "memory"
    url = "memory://"

    def settings(self):
        return {"storage": {"url": self.url}}


@on_stores()
def test_the_password_is_changed_while_mounted(lab, store):
    new = "another good password"
    mount = lab.mount(store)
    (mount.path / "before").write_bytes(b"1")
    done = mount.zerofs("change-password", stdin=f"  {new}\n")
    assert "Encryption password changed successfully" in done.stdout + done.stderr
    assert "old password" in done.stdout + done.stderr, "it says that copies of the old key open with the old one"
    (mount.path / "after").write_bytes(b"2")
    mount.umount()
    mount.drop_cache()

    done = mount.try_start()
    assert done.returncode == WRONG_PASSWORD
    assert "Failed to unwrap DEK: Invalid password or corrupted key" in done.stderr
    assert mount.zerofs("change-password", stdin="yet another one\n", check=False).returncode == 1
    mount.password = new
    mount.start()
    assert [(mount.path / name).read_bytes() for name in ("before", "after")] == [b"1", b"2"]
    mount.umount()


def test_a_mountpoint_that_does_not_exist(lab, store):
    mount = lab.plan(store)
    mount.path.rmdir()
    for done in (mount.try_start(), mount.zerofs("run", check=False)):
        assert done.returncode == MOUNTPOINT
        assert f"{mount.path} does not exist" in done.stderr
    assert store.names() == [], "nothing was touched"
    mount.path.write_text("not a directory")
    assert mount.try_start().returncode == MOUNTPOINT


def test_the_errors_of_the_daemon_are_those_of_the_command(lab, store):
    mount = lab.plan(store, password="short")
    done = mount.try_start()
    assert done.returncode == CONFIG
    assert "at least 8 characters" in done.stderr
    assert not is_mounted(mount.path)
    assert store.names() == []


@on_stores("file", "minio")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stores_everything(lab, store, number):
    mount = lab.plan(store).run()
    for name in range(20):
        (mount.path / f"file {name}").write_bytes(b"%d" % name * 300_000)
    mount.foreground.process.send_signal(number)
    assert mount.foreground.wait() == 0, mount.log
    assert not is_mounted(mount.path)
    mount.drop_cache()
    mount.run()
    for name in range(20):
        assert (mount.path / f"file {name}").read_bytes() == b"%d" % name * 300_000
    # Right after cold reads, when the disk cache is still being written.
    mount.foreground.process.send_signal(number)
    assert mount.foreground.wait() == 0, mount.log


def test_a_signal_while_files_are_open_names_who_has_them(lab, store):
    mount = lab.plan(store).run()
    with open(mount.path / "open", "wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        mount.foreground.process.terminate()
        wait_for(lambda: "is busy, held by" in mount.log, "a word about the open file")
        assert f"pid {os.getpid()}: open file" in mount.log
        wait_for(lambda: not is_mounted(mount.path), "the mount to be detached")
    assert mount.foreground.wait() == 0, mount.log
    mount.start()
    assert (mount.path / "open").read_bytes() == b"x" * 100_000
    mount.umount()


def test_a_busy_mount_stays_and_names_the_process(lab, store):
    mount = lab.mount(store)
    (mount.path / "folder").mkdir()
    command = [sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, cwd=mount.path / "folder", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"ready\n"
        done = mount.umount(check=False)
        assert done.returncode == MOUNTPOINT
        assert f"pid {holder.pid}: working directory" in done.stderr
        assert is_mounted(mount.path)
        (mount.path / "folder" / "file").write_bytes(b"it goes on")
        holder.stdin.close()
        holder.wait(60)
    mount.umount()
    assert not is_mounted(mount.path)


def test_nothing_is_left_of_an_unmounted_mount(lab, store):
    mount = lab.mount(store)
    pid = mount.pid
    mount.umount()
    assert not is_alive(pid), "umount waits for the process"
    assert lab.host.serving() == {}
    assert [path.name for path in lab.host.runtime.iterdir()] == ["registry.lock"]
    assert mount.umount(check=False).returncode == MOUNTPOINT
    assert mount.zerofs("status", check=False).returncode == MOUNTPOINT


@pytest.mark.parametrize("writeback", [True, False])
def test_the_quota_is_felt_and_deleting_makes_room(lab, store, writeback):
    settings = {"filesystem": {"max_size_gb": 0.01}, "servers.fuse": {"writeback": writeback}}
    mount = lab.mount(store, settings=settings)
    for name in range(3):
        (mount.path / f"file {name}").write_bytes(os.urandom(2 * MB))
    total = os.statvfs(mount.path)
    assert total.f_blocks * total.f_frsize <= 10 * MB
    assert fill(mount.path / "too much", 8 * MB) == errno.ENOSPC
    assert fill(mount.path / "once more", 8 * MB) == errno.ENOSPC
    for name in ("too much", "once more", "file 0", "file 1"):
        (mount.path / name).unlink()
    assert fill(mount.path / "fits now", 5 * MB) == 0
    mount.cold_remount()
    assert (mount.path / "fits now").stat().st_size == 5 * MB
    assert (mount.path / "file 2").stat().st_size == 2 * MB
    assert fill(mount.path / "still too much", 8 * MB) == errno.ENOSPC
    mount.umount()


def fill(path, size):
    """Write so much and make it durable: 0, or the errno of the first call that complained."""
    try:
        with open(path, "wb", buffering=0) as file:
            file.writelines(bytes(range(250)) * 4000 for _ in range(size // MB))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return 0


def seal_batches(mount):
    metrics = mount.status()["metrics"]
    return {by: metrics.get(f'seal_batches{{by="{by}"}}', 0) for by in ("process", "thread")}


def sealing_processes(mount):
    """Those that a mount has started."""
    children = Path(f"/proc/{mount.status()['pid']}/task").glob("*/children")
    pids = [pid for file in children for pid in file.read_text().split()]
    return [pid for pid in pids if b"zerofs.lsm.sealing.child" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_bulk_data_is_sealed_by_a_process_of_its_own_and_survives_its_death(lab):
    store = lab.local_store()
    mount = lab.mount(store)
    data = os.urandom(24 * MB)
    wait_for(lambda: sealing_processes(mount), "the sealing process")
    for name in ("with", "dying", "without"):
        with (mount.path / name).open("wb") as file:
            file.write(data[: len(data) // 2])
            os.fsync(file.fileno())
            if name == "dying":
                assert seal_batches(mount)["process"] > 0
                for pid in sealing_processes(mount):
                    os.kill(int(pid), signal.SIGKILL)
            file.write(data[len(data) // 2 :])
            os.fsync(file.fileno())
    assert sealing_processes(mount) == []
    assert seal_batches(mount)["thread"] > 0
    assert "sealing process is gone" in mount.log
    mount.cold_remount()
    for name in ("with", "dying", "without"):
        assert (mount.path / name).read_bytes() == data
    mount.umount()
    mount.start("--read-only")
    assert (mount.path / "with").read_bytes() == data
    assert sealing_processes(mount) == [], "who writes nothing seals nothing"
    mount.umount()


def test_a_volume_in_memory(lab):
    mount = lab.mount(MemoryStore())
    (mount.path / "file").write_bytes(b"x" * 100_000)
    mount.flush()
    other = lab.mount(MemoryStore(), "other")
    assert list(other.path.iterdir()) == [], "every process has its own"
    assert (mount.path / "file").read_bytes() == b"x" * 100_000
    other.umount()
    mount.umount()
    mount.start()
    assert list(mount.path.iterdir()) == []
    mount.umount()
