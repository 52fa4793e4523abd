"""The sealing process: a real one, which works, idles, dies, hangs and talks nonsense."""

import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.unit.lsm.sealing.kit import KEY, make_nonces, make_sealer, make_setup
from zerofs.lsm.sealing import process
from zerofs.lsm.sealing.arena import BLOCK_SIZE, SLOT_SIZE
from zerofs.lsm.sealing.messages import HELLO
from zerofs.lsm.sealing.process import WORTH_BYTES, ProcessSealer
from zerofs.lsm.sealing.sealer import ThreadSealer
from zerofs.lsm.sealing.work import seal_chunks
from zerofs.telemetry.metrics import Metrics
from zerofs.units import CHUNK_SIZE, MIB
from zerofs.world import World

DEADLINE_S = 30
FOREVER_S = 3600.0


class Bed:
    """A sealer that runs, and what it counts."""

    def __init__(self, idle_s):
        self.metrics = Metrics()
        self.sealer = ProcessSealer(make_setup(), ThreadSealer(World(), make_sealer()), self.metrics, idle_s=idle_s)

    async def seal(self, texts):
        nonces = make_nonces(texts)
        assert await self.sealer.seal(texts, nonces) == seal_chunks(make_sealer(), texts, nonces)

    def count(self, by):
        return self.metrics.get("seal_batches", by=by)

    @property
    def child(self):
        return self.sealer._child

    @property
    def pid(self):
        return self.child._process.pid

    async def ready(self):
        await until_not(lambda: self.child is None or not self.child._free)

    async def gone(self):
        pid = self.pid
        await until_not(lambda: self.child is not None or is_running(pid))


@contextlib.asynccontextmanager
async def running(idle_s=FOREVER_S):
    bed = Bed(idle_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bed.sealer.run)
        yield bed
        nursery.cancel_scope.cancel()


def batch(size=WORTH_BYTES):
    return [os.urandom(CHUNK_SIZE) for _ in range(size // CHUNK_SIZE)]


async def until_not(holds):
    with trio.fail_after(DEADLINE_S):
        while holds():
            await trio.sleep(0.01)


def proc(pid, name):
    return Path(f"/proc/{pid}/{name}").read_bytes()


def is_running(pid):
    try:
        return b"\nState:\tZ" not in proc(pid, "status")
    except FileNotFoundError:
        return False


async def test_large_batches_are_sealed_in_the_process_and_small_ones_in_threads():
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        await bed.seal(batch())
        assert (bed.count("process"), bed.count("thread")) == (1, 0)
        await bed.seal(batch(WORTH_BYTES - CHUNK_SIZE))
        await bed.seal([])
        assert (bed.count("process"), bed.count("thread")) == (1, 2)


async def test_threads_seal_until_the_process_is_ready():
    async with running() as bed:
        await bed.seal(batch())
        assert bed.count("thread") == 1
        await bed.ready()
        await bed.seal(batch())
        assert bed.count("process") == 1


async def test_more_batches_at_a_time_than_slots():
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        async with trio.open_nursery() as nursery:
            for _ in range(process.TEXT_SLOTS + 3):
                nursery.start_soon(bed.seal, batch())
        assert (bed.count("process"), bed.count("thread")) == (process.TEXT_SLOTS, 3)
        assert len(bed.child._free) == process.TEXT_SLOTS


async def test_frames_that_somebody_keeps_take_no_slot_that_is_needed():
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        kept = []
        for _ in range(process.FRAME_SLOTS + 3):
            texts = batch()
            nonces = make_nonces(texts)
            kept.append((texts, nonces, await bed.sealer.seal(texts, nonces)))
        assert bed.count("thread") == 0
        lent = [frames for _, _, frames in kept if isinstance(frames[0], memoryview)]
        assert len(lent) == process.FRAME_SLOTS - process.TEXT_SLOTS
        assert all(frames == seal_chunks(make_sealer(), texts, nonces) for texts, nonces, frames in kept)
        del kept, lent
        assert len(bed.child._targets) == process.FRAME_SLOTS


async def test_what_is_lent_is_sealed_where_it_is_and_comes_back():
    async with running() as bed:
        assert bed.sealer.lend(BLOCK_SIZE) is None, "there is no process"
        bed.sealer.prepare()
        await bed.ready()
        assert bed.sealer.lend(BLOCK_SIZE + 1) is None
        texts = []
        for _ in range(2):
            block = bed.sealer.lend(BLOCK_SIZE)
            block[:] = os.urandom(BLOCK_SIZE)
            texts += [block[80 + at : 80 + at + CHUNK_SIZE] for at in range(0, MIB, CHUNK_SIZE)]
        del block
        assert len(bed.child._blocks) == process.BLOCKS - 2
        await bed.seal(texts)
        assert bed.count("process") == 1
        assert len(bed.child._blocks) == process.BLOCKS - 2
        texts.clear()
        assert len(bed.child._blocks) == process.BLOCKS
        kept = [bed.sealer.lend(BLOCK_SIZE) for _ in range(process.BLOCKS)]
        assert bed.sealer.lend(BLOCK_SIZE) is None
        del kept
        assert len(bed.child._blocks) == process.BLOCKS


async def test_what_is_lent_outlives_the_process():
    async with running(idle_s=0.2) as bed:
        bed.sealer.prepare()
        await bed.ready()
        block = bed.sealer.lend(BLOCK_SIZE)
        block[:] = os.urandom(BLOCK_SIZE)
        texts = [block[at : at + CHUNK_SIZE] for at in range(0, MIB, CHUNK_SIZE)]
        await bed.gone()
        assert bed.sealer.lend(BLOCK_SIZE) is None
        await bed.seal(texts)
        assert bed.count("thread") == 1
        bed.sealer.prepare()
        await bed.ready()
        await bed.seal(texts)  # another process, with memory of its own
        assert bed.count("process") == 1


async def test_without_run_threads_do_everything():
    bed = Bed(FOREVER_S)
    await bed.seal(batch())
    await bed.seal(batch())
    assert bed.count("thread") == 2


async def test_it_ends_when_idle_and_comes_back_for_the_next_batch():
    async with running(idle_s=0.5) as bed:
        bed.sealer.prepare()
        await bed.ready()
        first = bed.pid
        await bed.gone()
        await bed.seal(batch())
        await bed.ready()
        assert bed.pid != first


async def test_it_ends_with_whoever_runs_it():
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        pid = bed.pid
    assert not is_running(pid)


async def test_a_batch_that_dies_with_the_process_is_sealed_by_a_thread(caplog):
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        pid = bed.pid
        os.kill(pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bed.seal, batch())
            nursery.start_soon(bed.seal, batch())
            await trio.testing.wait_all_tasks_blocked(0.05)
            os.kill(pid, signal.SIGKILL)
        assert (bed.count("process"), bed.count("thread")) == (0, 2)
        await until_not(lambda: "sealing process is gone" not in caplog.text)
        assert not is_running(pid)
        await bed.seal(batch())
        assert bed.child is None, "it is not started again at once"


async def test_a_process_that_died_comes_back_later(monkeypatch):
    monkeypatch.setattr(process, "RETRY_S", 0.05)
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        os.kill(bed.pid, signal.SIGKILL)
        await until_not(lambda: bed.child is not None)
        await trio.sleep(0.1)
        await bed.seal(batch())
        await bed.ready()
        await bed.seal(batch())
        assert bed.count("process") == 1


async def test_a_process_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(process, "ANSWER_TIMEOUT_S", 0.2)
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        pid = bed.pid
        os.kill(pid, signal.SIGSTOP)
        with trio.fail_after(DEADLINE_S):
            await bed.seal(batch())
            while is_running(pid):
                await trio.sleep(0.01)
        assert bed.count("thread") == 1


@pytest.mark.parametrize(
    ("packets", "told"),
    [
        ([HELLO, b"nonsense"], "did not begin"),
        ([HELLO, b"\0", b"x"], "error"),
        ([HELLO, b"\0", bytes(4)], "KeyError"),
        ([HELLO], "did not begin"),
        ([HELLO + b"1"], "another version"),
        ([], "did not begin"),
    ],
    ids=["no ready", "no slot", "a slot that nobody filled", "hello alone", "another version", "nothing"],
)
async def test_a_process_that_talks_nonsense_is_ended(monkeypatch, caplog, packets, told):
    program = (
        "import socket, sys\n"
        "it = socket.socket(fileno=int(sys.argv[1]))\n"
        f"for packet in {packets[:1]!r}: it.send(packet); it.recv(4096)\n"
        f"for packet in {packets[1:]!r}: it.send(packet)\n"
    )
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", program))
    async with running() as bed:
        bed.sealer.prepare()
        await until_not(lambda: "is gone" not in caplog.text)
        assert told in caplog.text
        assert bed.child is None
        await bed.seal(batch())


async def test_frames_that_cannot_be_are_made_again(monkeypatch):
    program = (
        "import mmap, socket, sys\n"
        "it = socket.socket(fileno=int(sys.argv[1]))\n"
        f"it.send({HELLO!r})\n"
        "memory = mmap.mmap(socket.recv_fds(it, 4096, 1)[1][0], 0)\n"
        "it.send(bytes(1))\n"
        "while packet := it.recv(4096):\n"
        f"    at = int.from_bytes(packet[:4], 'little') * {SLOT_SIZE}\n"
        "    memory[at : at + 4] = bytes(4)\n"
        "    it.send(packet[:4])\n"
    )
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", program))
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        await bed.seal(batch())
        assert (bed.count("process"), bed.count("thread")) == (0, 1)


async def test_a_program_that_cannot_be_started(monkeypatch, caplog):
    monkeypatch.setattr(process, "COMMAND", ("/nonexistent/python",))
    async with running() as bed:
        bed.sealer.prepare()
        await until_not(lambda: "cannot be started" not in caplog.text)
        await bed.seal(batch())
        assert bed.count("thread") == 1


async def test_cancelled_callers_lose_no_slot():
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        with trio.move_on_after(0) as scope:
            await bed.seal(batch())
        assert scope.cancelled_caught or bed.count("process") == 1
        assert len(bed.child._free) == process.TEXT_SLOTS


async def test_secrets_stand_nowhere_for_others_to_read(monkeypatch):
    monkeypatch.setenv("ZEROFS_PASSWORD", "correct horse battery")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAnobodyshouldseethis")
    async with running() as bed:
        bed.sealer.prepare()
        await bed.ready()
        arguments, limits = proc(bed.pid, "cmdline"), proc(bed.pid, "limits")
        assert KEY not in arguments
        assert KEY.hex().encode() not in arguments
        assert b"Max core file size        0" in limits
        with contextlib.suppress(PermissionError):  # of a process that is not dumpable only root may read it
            environment = proc(bed.pid, "environ")
            assert b"correct horse" not in environment
            assert b"AKIA" not in environment


async def test_key_and_memory_come_only_to_a_process_that_nobody_can_look_into(monkeypatch):
    """Until it says hello the others of its user may open what it has: it has nothing."""
    program = (
        "import os, select, socket, sys, time\n"
        "it = socket.socket(fileno=int(sys.argv[1]))\n"
        "if select.select([it], [], [], 0.5)[0]: sys.exit(7)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", program))
    async with running() as bed:
        bed.sealer.prepare()
        await until_not(lambda: bed.child is None)
        pid = bed.pid
        await trio.sleep(1)
        assert bed.pid == pid, "nothing was sent to it"
        open_files = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{bed.pid}/fd")]
        assert not any("memfd" in name for name in open_files)
        assert bed.child._arena is None


@pytest.fixture(autouse=True)
def warnings_are_seen(caplog):
    caplog.set_level(logging.WARNING)
