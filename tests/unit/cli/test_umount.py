"""zerofs.cli.umount: the order in which nothing is lost silently, against a scripted mount process."""

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from zerofs import mounttable
from zerofs.admin import mounts
from zerofs.admin.control import client, protocol
from zerofs.admin.mounts import Holder
from zerofs.cli.locate import LocatedMount
from zerofs.cli.umount import unmount
from zerofs.errors import MountpointError, UnsavedDataError
from zerofs.mounttable import MountEntry

OK = protocol.encode_result({})


@pytest.fixture
def diary(monkeypatch):
    """What was asked of the process and of the kernel, in order."""
    diary = []
    monkeypatch.setattr(
        mounttable, "unmount", lambda mountpoint, *, lazy=False: diary.append("lazy unmount" if lazy else "unmount")
    )
    monkeypatch.setattr(client, "wait_for_exit", lambda pid, timeout_s: diary.append("exit") or True)
    return diary


@pytest.fixture
def mount():
    folder = tempfile.mkdtemp(prefix="zerofs-")
    yield LocatedMount(mountpoint="/mnt/z", socket=Path(folder) / "s", kernel=True)
    shutil.rmtree(folder)


@contextlib.contextmanager
def process(mount, diary, **answers):
    """A process that writes requests into the diary and answers as told; None hangs up."""

    def serve():
        connection, _ = listener.accept()
        # A command that fails leaves without hearing every answer.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as lines:
            for line in lines:
                request = protocol.decode_request(line)
                diary.append(" ".join([request.name, *(f"{key}={value}" for key, value in request.arguments.items())]))
                answer = answers.get(request.name, OK)
                if answer is None:
                    return
                connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(mount.socket))
        listener.listen(1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(10)
            assert not thread.is_alive()


def entry(kind="fuse.zerofs"):
    return MountEntry(mountpoint="/mnt/z", device="0:1", filesystem_type=kind, source="x", owner=0)


def test_flush_then_unmount_then_wait(mount, diary):
    with process(mount, diary):
        unmount(mount, lazy=False, force=False)
    # `wait` is answered at once by this process; that it was asked before the unmount is its own test below.
    assert [step for step in diary if step != "wait"] == ["flush kernel=False", "status", "unmount", "exit"]
    assert "wait" in diary


def test_the_wait_is_asked_before_the_unmount(mount, diary, monkeypatch):
    asked = threading.Event()
    unmounted = threading.Event()

    def unmount_now(mountpoint, *, lazy=False):
        assert asked.wait(10)
        unmounted.set()

    monkeypatch.setattr(mounttable, "unmount", unmount_now)

    def serve():
        connection, _ = listener.accept()
        # A command that fails leaves without hearing every answer.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as lines:
            for line in lines:
                if protocol.decode_request(line).name == "wait":
                    asked.set()
                    assert unmounted.wait(10)
                connection.sendall(OK)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(mount.socket))
        listener.listen(1)
        thread = threading.Thread(target=serve)
        thread.start()
        unmount(mount, lazy=False, force=False)
        thread.join(10)
    assert unmounted.is_set()


def test_a_failed_flush_leaves_it_mounted(mount, diary):
    refusal = pytest.raises(protocol.RemoteError, match="does not answer; /mnt/z stays mounted; --force")
    with process(mount, diary, flush=protocol.encode_error("the store does not answer", 14)), refusal as caught:
        unmount(mount, lazy=False, force=False)
    assert caught.value.exit_code == 14
    assert diary == ["flush kernel=False"]


def test_force_unmounts_all_the_same_and_is_no_success(mount, diary):
    refusal = pytest.raises(protocol.RemoteError)
    with process(mount, diary, flush=protocol.encode_error("the store does not answer", 14)), refusal as caught:
        unmount(mount, lazy=False, force=True)
    assert caught.value.exit_code == 14
    assert "unmount" in diary


def test_a_fenced_mount_goes_with_its_own_code(mount, diary):
    refusal = pytest.raises(protocol.RemoteError)
    with process(mount, diary, flush=protocol.encode_error("another writer", 18)), refusal as caught:
        unmount(mount, lazy=False, force=False)
    assert caught.value.exit_code == 18
    assert "unmount" in diary


def test_what_could_not_be_stored_at_the_end_is_told(mount, diary):
    refusal = pytest.raises(protocol.RemoteError, match="unsaved")
    with process(mount, diary, wait=protocol.encode_error("unsaved", 19)), refusal as caught:
        unmount(mount, lazy=False, force=False)
    assert caught.value.exit_code == 19
    assert diary[-1] == "exit"


def test_busy_names_the_processes_and_changes_nothing(mount, diary, monkeypatch):
    def busy(mountpoint, *, lazy=False):
        raise mounttable.BusyError("busy")

    holders = [
        Holder(pid=7, program="bash", uses=frozenset({"working directory"})),
        Holder(pid=8, program=None, uses=frozenset({"running program"})),
    ]
    monkeypatch.setattr(mounttable, "unmount", busy)
    monkeypatch.setattr(mounts, "find_holders", lambda mountpoint: holders)
    with process(mount, diary), pytest.raises(MountpointError) as caught:
        unmount(mount, lazy=False, force=False)
    assert str(caught.value) == (
        "/mnt/z is busy, held by bash (pid 7: working directory); a program in the mount (pid 8: running program): "
        "end them, or unmount with --lazy"
    )
    assert "exit" not in diary


def test_busy_with_processes_that_cannot_be_seen(mount, diary, monkeypatch):
    def busy(mountpoint, *, lazy=False):
        raise mounttable.BusyError("busy")

    monkeypatch.setattr(mounttable, "unmount", busy)
    monkeypatch.setattr(mounts, "find_holders", lambda mountpoint: [])
    with process(mount, diary), pytest.raises(mounttable.BusyError, match="processes that this user may not see"):
        unmount(mount, lazy=False, force=False)


def test_lazy_leaves_the_unmounting_to_the_process(mount, diary):
    with process(mount, diary):
        unmount(mount, lazy=True, force=False)
    assert diary == ["flush kernel=False", "status", "stop", "exit"]


def test_a_mount_that_is_ending_already_is_waited_for(mount, diary):
    ending = LocatedMount(mountpoint=mount.mountpoint, socket=mount.socket, kernel=False)
    with process(ending, diary):
        unmount(ending, lazy=False, force=False)
    assert diary == ["status", "stop", "exit"]


def test_a_process_that_does_not_end(mount, diary, monkeypatch):
    monkeypatch.setattr(client, "wait_for_exit", lambda pid, timeout_s: False)
    with process(mount, diary), pytest.raises(MountpointError, match=f"process {os.getpid()} does not end"):
        unmount(mount, lazy=False, force=False)


def test_a_dead_process_is_buried_and_that_is_no_success(mount, diary, monkeypatch):
    monkeypatch.setattr(mounttable, "read_mounts", lambda: [entry()])
    with pytest.raises(UnsavedDataError, match="ended without storing everything") as caught:
        unmount(mount, lazy=False, force=False)
    assert caught.value.exit_code == 19
    assert diary == ["lazy unmount"]


def test_a_process_that_dies_while_closing(mount, diary, monkeypatch):
    monkeypatch.setattr(mounttable, "read_mounts", lambda: [entry("ext4")])
    with process(mount, diary, wait=None), pytest.raises(UnsavedDataError):
        unmount(mount, lazy=False, force=False)
    assert "unmount" in diary
    assert "lazy unmount" not in diary, "what lies there now is not ours"
