"""zerofs.cli.session: one mount from claim to farewell, with a volume, a frontend and a kernel that are fakes."""

import contextlib
import logging
import os
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from zerofs import mounttable
from zerofs.admin import mounts, registry
from zerofs.admin.control import client, protocol
from zerofs.cli.plan import MountPlan
from zerofs.cli.rooms import Kernel
from zerofs.cli.session import Session
from zerofs.config import load
from zerofs.crypto.secret import Secret
from zerofs.errors import FencedError, FsError, MountpointError, UnsavedDataError, VolumeInUseError
from zerofs.world import World

PASSWORD = Secret(b"hunter2-hunter2")


class Machine:
    """The fake rooms and kernel of one session, and a diary of what happened in which order."""

    def __init__(self):
        self.diary = []
        self.opening = trio.Event()
        self.ready = trio.Event()
        self.unmounted = trio.Event()
        self.opening_blocks = False
        self.open_error = None
        self.serve_error = None
        self.close_error = None
        self.flush_error = None
        self.unmount_error = None
        self.push_error = None
        self.state = "ok"
        self.was_lost = False
        self.deaths = []
        self.kernel = Kernel(
            unmount=self.unmount,
            find_holders=lambda mountpoint: [mounts.Holder(pid=7, program="bash", uses=frozenset({"open file"}))],
            push_dirty_pages=self.push,
            detach_in_background=lambda mountpoint: self.diary.append("detach"),
        )

    # What a volume does.

    @contextlib.asynccontextmanager
    async def open_volume(self, plan, password, world):
        assert password.matches(PASSWORD)
        self.diary.append("open")
        self.opening.set()
        if self.open_error is not None:
            raise self.open_error
        if self.opening_blocks:
            await trio.sleep_forever()
        try:
            yield self
        finally:
            self.diary.append("close")
        if self.close_error is not None:
            raise self.close_error

    def status(self):
        return {"volume_id": "00ff", "state": self.state, "dirty_bytes": 0}

    async def flush(self):
        self.diary.append("flush")
        if self.flush_error is not None:
            raise self.flush_error

    async def checkpoint(self, action, name, of=None):
        self.diary.append(f"{action} {name}")
        return {"checkpoints": [{"name": name}]}

    async def collect(self, *, dry_run):
        return {"dry_run": dry_run}

    def clear_data_lost(self):
        was_lost, self.was_lost = self.was_lost, False
        return was_lost

    # What a frontend does.

    async def serve(self, volume, plan, world, *, task_status):
        assert volume is self
        if self.serve_error is not None:
            raise self.serve_error
        self.diary.append("mount")
        task_status.started(plan.mountpoint)
        try:
            await self.unmounted.wait()
            self.diary.append("unmounted")
        except trio.Cancelled:
            self.diary.append("cut off")
            raise

    # What a kernel does, in a thread.

    def unmount(self, mountpoint):
        if self.unmount_error is not None:
            raise self.unmount_error
        trio.from_thread.run_sync(self.unmounted.set)

    def push(self, mountpoint):
        trio.from_thread.run_sync(self.diary.append, "push")
        if self.push_error is not None:
            raise self.push_error

    def on_ready(self):
        self.diary.append("ready")
        self.ready.set()


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def plan(tmp_path):
    folder = tempfile.mkdtemp(prefix="zerofs-")
    config = tmp_path / "zerofs.toml"
    config.write_text('[storage]\nurl = "file:///srv/v"\n[cache]\ndir = "cache"\n')
    yield MountPlan(
        settings=load(config, {"XDG_STATE_HOME": str(tmp_path)}),
        mountpoint="/mnt/z",
        read_only=False,
        allow_other=False,
        writeback=True,
        noatime=False,
        no_exec=False,
        take_over=False,
        accept_rollback=False,
        runtime_dir=Path(folder) / "r",
    )
    shutil.rmtree(folder)


def make(plan, machine):
    return Session(plan, World(), machine, kernel=machine.kernel, ready=machine.on_ready, die=machine.deaths.append)


@contextlib.asynccontextmanager
async def running(plan, machine):
    """A session that is mounted; leaving the block waits for its end."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make(plan, machine).run, PASSWORD)
            await machine.ready.wait()
            yield


async def ask(plan, name, arguments=None):
    def run():
        with client.Connection(registry.socket_path(plan.runtime_dir, plan.mountpoint)) as connection:
            return connection.ask(name, arguments, timeout_s=10)

    return await trio.to_thread.run_sync(run)


async def run_to_the_end(plan, machine):
    with trio.fail_after(20):
        await make(plan, machine).run(PASSWORD)


def leaf(group):
    while isinstance(group, BaseExceptionGroup):
        (group,) = group.exceptions
    return group


async def test_an_outside_unmount_ends_it(plan, machine):
    async with running(plan, machine):
        assert [record.mountpoint for record in registry.living(plan.runtime_dir)] == ["/mnt/z"]
        machine.unmounted.set()
    assert machine.diary == ["open", "mount", "ready", "unmounted", "close"]
    assert registry.living(plan.runtime_dir) == []
    assert [path.name for path in plan.runtime_dir.iterdir()] == ["registry.lock"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_first_signal_unmounts(plan, machine, number):
    async with running(plan, machine):
        os.kill(os.getpid(), number)
    assert machine.diary == ["open", "mount", "ready", "unmounted", "close"]
    assert machine.deaths == []


async def test_a_signal_while_busy_names_the_holders_pushes_and_cuts_off(plan, machine, caplog):
    caplog.set_level(logging.INFO)
    machine.unmount_error = mounttable.BusyError("busy")
    async with running(plan, machine):
        os.kill(os.getpid(), signal.SIGTERM)
    assert machine.diary == ["open", "mount", "ready", "push", "cut off", "close"]
    assert "held by bash (pid 7: open file)" in caplog.text


async def test_what_the_kernel_cannot_hand_over_is_unsaved(plan, machine):
    machine.unmount_error = mounttable.BusyError("busy")
    machine.push_error = MountpointError("the kernel could not hand over everything")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(plan, machine):
            os.kill(os.getpid(), signal.SIGTERM)
    assert isinstance(leaf(caught.value), UnsavedDataError)
    assert machine.diary[-1] == "close"


async def test_a_mount_that_cannot_be_unmounted_is_cut_off(plan, machine):
    machine.unmount_error = MountpointError("not permitted")
    async with running(plan, machine):
        os.kill(os.getpid(), signal.SIGTERM)
    assert machine.diary == ["open", "mount", "ready", "cut off", "close"]


async def test_the_second_signal_ends_at_once(plan, machine):

    def hangs(mountpoint):
        # Until the second signal's death, which would really end the process.
        trio.from_thread.run_sync(began.set)
        trio.from_thread.run(dead.wait)
        trio.from_thread.run_sync(machine.unmounted.set)

    def die(code):
        machine.deaths.append(code)
        dead.set()

    began, dead = trio.Event(), trio.Event()
    session = Session(
        plan, World(), machine, kernel=replace(machine.kernel, unmount=hangs), ready=machine.on_ready, die=die
    )
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run, PASSWORD)
            await machine.ready.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await began.wait()
            os.kill(os.getpid(), signal.SIGINT)
    assert machine.deaths == [130]
    assert "detach" in machine.diary


async def test_a_signal_while_opening_gives_up_without_a_mount(plan, machine):
    machine.opening_blocks = True
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make(plan, machine).run, PASSWORD)
            await machine.opening.wait()
            assert (await ask(plan, protocol.STATUS))["state"] == "starting"
            with pytest.raises(protocol.RemoteError, match="is starting"):
                await ask(plan, protocol.FLUSH)
            os.kill(os.getpid(), signal.SIGTERM)
    assert machine.diary == ["open"]
    assert not machine.ready.is_set()


async def test_a_volume_that_does_not_open(plan, machine):
    machine.open_error = FencedError("somebody was faster")
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_to_the_end(plan, machine)
    assert leaf(caught.value) is machine.open_error
    assert registry.living(plan.runtime_dir) == []


async def test_a_mount_that_fails_closes_the_volume(plan, machine):
    machine.serve_error = MountpointError("no /dev/fuse")
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_to_the_end(plan, machine)
    assert leaf(caught.value) is machine.serve_error
    assert machine.diary == ["open", "close"]


async def test_a_volume_that_cannot_store_the_rest(plan, machine):
    machine.close_error = UnsavedDataError("the store is gone")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(plan, machine):
            machine.unmounted.set()
    assert leaf(caught.value) is machine.close_error


async def test_a_second_writer_is_refused_before_anything_is_opened(plan, machine):
    second = Machine()
    async with running(plan, machine):
        with pytest.raises(VolumeInUseError, match="/mnt/z"):
            await run_to_the_end(replace(plan, mountpoint="/mnt/other"), second)
        machine.unmounted.set()
    assert second.diary == []


async def test_status(plan, machine):
    async with running(plan, machine):
        status = await ask(plan, protocol.STATUS)
        assert status["pid"] == os.getpid()
        assert status["mountpoint"] == "/mnt/z"
        assert status["read_only"] is False
        assert (status["volume_id"], status["state"], status["dirty_bytes"]) == ("00ff", "ok", 0)
        machine.state = "fenced"
        assert (await ask(plan, protocol.STATUS))["state"] == "fenced"
        machine.unmounted.set()


async def test_flush_takes_what_the_kernel_holds_first(plan, machine):
    async with running(plan, machine):
        assert await ask(plan, protocol.FLUSH) == {"mountpoint": "/mnt/z"}
        assert machine.diary[-2:] == ["push", "flush"]
        await ask(plan, protocol.FLUSH, {"kernel": False})
        assert machine.diary[-2:] == ["flush", "flush"]
        machine.unmounted.set()


async def test_a_read_only_mount_has_nothing_to_push(plan, machine):
    async with running(replace(plan, read_only=True), machine):
        await ask(plan, protocol.FLUSH)
        assert "push" not in machine.diary
        machine.unmounted.set()


@pytest.mark.parametrize(
    ("error", "code"), [(FencedError("x"), 18), (UnsavedDataError("x"), 19), (FsError(5, "x"), 19)]
)
async def test_a_flush_that_fails(plan, machine, error, code):
    async with running(plan, machine):
        machine.flush_error = error
        with pytest.raises(protocol.RemoteError, match="x") as caught:
            await ask(plan, protocol.FLUSH)
        assert caught.value.exit_code == code
        machine.unmounted.set()


async def test_a_flush_says_what_lies_behind_an_errno(plan, machine):
    async with running(plan, machine):
        machine.flush_error = FsError(5)
        machine.flush_error.__cause__ = FencedError("another writer")
        with pytest.raises(protocol.RemoteError, match="another writer") as caught:
            await ask(plan, protocol.FLUSH)
        assert caught.value.exit_code == 18
        machine.unmounted.set()


async def test_a_flush_that_cannot_reach_the_kernel_is_no_success(plan, machine):
    async with running(plan, machine):
        machine.push_error = MountpointError("cannot be entered")
        with pytest.raises(protocol.RemoteError, match="cannot be entered") as caught:
            await ask(plan, protocol.FLUSH)
        assert caught.value.exit_code == 19
        assert machine.diary[-1] == "flush"
        machine.unmounted.set()


async def test_stop_answers_when_everything_is_stored(plan, machine):
    async with running(plan, machine):
        assert await ask(plan, protocol.STOP) == {"mountpoint": "/mnt/z"}
        assert machine.diary == ["open", "mount", "ready", "unmounted", "close"]


async def test_wait_tells_how_it_ended(plan, machine):
    machine.close_error = UnsavedDataError("the store is gone")

    def wait():
        with client.Connection(registry.socket_path(plan.runtime_dir, plan.mountpoint)) as connection:
            connection.send(protocol.STATUS, protocol.WAIT)
            connection.receive(10)
            trio.from_thread.run_sync(machine.unmounted.set)
            connection.receive(10)

    async def session():
        with pytest.raises(BaseExceptionGroup) as caught:
            await run_to_the_end(plan, machine)
        assert leaf(caught.value) is machine.close_error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session)
        await machine.ready.wait()
        with pytest.raises(protocol.RemoteError, match="the store is gone") as caught:
            await trio.to_thread.run_sync(wait)
    assert caught.value.exit_code == 19


async def test_a_checkpoint_takes_what_the_kernel_holds_first(plan, machine):
    async with running(plan, machine):
        answer = await ask(plan, protocol.CHECKPOINT, {"action": "create", "name": "x"})
        assert answer == {"checkpoints": [{"name": "x"}]}
        await ask(plan, protocol.CHECKPOINT, {"action": "delete", "name": "x"})
        await ask(plan, protocol.CHECKPOINT, {"action": "list"})
        assert machine.diary[-4:] == ["push", "create x", "delete x", "list None"]
        machine.push_error = MountpointError("the kernel keeps it")
        with pytest.raises(protocol.RemoteError, match="the kernel keeps it") as caught:
            await ask(plan, protocol.CHECKPOINT, {"action": "create", "name": "y"})
        assert caught.value.exit_code == UnsavedDataError.exit_code
        assert "create y" not in machine.diary
        assert await ask(plan, protocol.COLLECT, {"dry_run": True}) == {"dry_run": True}
        assert await ask(plan, protocol.COLLECT) == {"dry_run": False}
        machine.unmounted.set()


async def test_no_checkpoint_of_a_volume_that_is_not_there_yet(plan, machine):
    machine.opening_blocks = True
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make(plan, machine).run, PASSWORD)
            await machine.opening.wait()
            for request in (protocol.CHECKPOINT, protocol.COLLECT, protocol.CLEAR_DATA_LOST):
                with pytest.raises(protocol.RemoteError, match="is starting: it cannot do that now"):
                    await ask(plan, request, {"action": "list"})
            nursery.cancel_scope.cancel()


async def test_a_lost_write_is_cleared_by_whoever_asks_for_it(plan, machine):
    async with running(plan, machine):
        machine.was_lost = True
        assert await ask(plan, protocol.CLEAR_DATA_LOST) == {"was_lost": True}
        assert await ask(plan, protocol.CLEAR_DATA_LOST) == {"was_lost": False}
        machine.unmounted.set()


async def test_status_of_a_checkpoint_mount(plan, machine):
    async with running(replace(plan, read_only=True, checkpoint="monday"), machine):
        status = await ask(plan, protocol.STATUS)
        assert (status["read_only"], status["checkpoint"]) == (True, "monday")
        machine.unmounted.set()
