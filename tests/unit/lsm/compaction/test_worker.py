"""Workers: in line, and real child processes that die, hang, stay idle or talk nonsense."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tests.unit.lsm.compaction.kit import OLD_TOKEN, PREFIX, TOKEN, TOKENS
from tests.unit.lsm.kit import VOLUME_ID
from zerofs.errors import CorruptionError
from zerofs.ids import KeyId
from zerofs.lsm.compaction import worker as worker_module
from zerofs.lsm.compaction.child import PROTOCOL_EXIT_CODE, Tally, open_storage
from zerofs.lsm.compaction.framing import frame
from zerofs.lsm.compaction.job import CompactionJob, names_needed
from zerofs.lsm.compaction.messages import Setup, encode_hello, encode_job, encode_setup
from zerofs.lsm.compaction.worker import COMMAND, ChildWorker, InlineWorker, WorkerDiedError
from zerofs.lsm.format.manifest import Run
from zerofs.lsm.format.rows import PUT
from zerofs.lsm.ranges import KeyRanges
from zerofs.lsm.sst import SstReader, put_meta_sst
from zerofs.objectstore.options import S3Options
from zerofs.telemetry.metrics import Metrics
from zerofs.transform.compression import DEFAULT_COMPRESSION
from zerofs.world import World

SECRETS = {
    "access key": b"AKIAnobodyshouldseethis",
    "secret key": b"secretthatnobodyshouldsee",
    "password": b"correct horse battery",
}
SUBKEY = bytes(range(100, 132))
DEADLINE_S = 30


def make_setup(url, **options):
    return Setup(
        url=url,
        s3=S3Options(
            access_key_id=SECRETS["access key"].decode(), secret_access_key=SECRETS["secret key"].decode(), **options
        ),
        volume_id=VOLUME_ID,
        subkeys={KeyId(3): SUBKEY},
        current=KeyId(3),
        compression=DEFAULT_COMPRESSION,
    )


class Volume:
    """A directory with four runs in it, all of them in the way of each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.setup = make_setup(f"file://{folder}")
        self.storage = open_storage(self.setup, World(), Tally())
        self.runs: list[Run] = []
        self.names = 0

    async def fill(self, rows_each: int) -> None:
        for run in range(4):
            rows = [(PREFIX + b"%06d" % number, PUT, b"%d" % run * 50) for number in range(run, 4 * rows_each, 4 - run)]
            info = await put_meta_sst(self.storage, (1, run + 1), OLD_TOKEN, rows, KeyRanges(), 4000)
            self.runs.append(Run(ssts=(info,)))

    def job(self, target=20_000):
        count = names_needed(self.runs, target)
        self.names += count
        return CompactionJob(
            prefix=PREFIX,
            runs=tuple(self.runs),
            drop_deletes=True,
            tokens=TOKENS,
            epoch=2,
            token=TOKEN,
            names=tuple((2, number) for number in range(self.names - count + 1, self.names + 1)),
            target_size_bytes=target,
            block_size_bytes=4000,
        )

    async def rows(self, run):
        reader = SstReader(self.storage, TOKENS)
        rows = []
        for info in run.ssts:
            index = await reader.index(info)
            for number in range(len(index.last_keys)):
                rows += await reader.block(info, index, number)
        return rows


@pytest.fixture
async def volume(tmp_path):
    volume = Volume(tmp_path / "volume")
    await volume.fill(300)
    return volume


@contextlib.asynccontextmanager
async def child_worker(setup, **options):
    worker = ChildWorker(setup, Metrics(), **options)
    try:
        with trio.fail_after(DEADLINE_S):
            yield worker
    finally:
        await worker.aclose()
        assert children() == []


def children() -> list[int]:
    """Worker processes of this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            if int(text.rpartition(")")[2].split()[1]) == os.getpid():
                command = stat.with_name("cmdline").read_bytes()
                if b"compaction" in command or not command:
                    found.append(int(stat.parent.name))
    return found


def arguments_and_environment(pid: int) -> bytes:
    shown = b""
    for name in ("cmdline", "environ"):
        with contextlib.suppress(PermissionError):  # as it should be, for everybody but root
            shown += Path(f"/proc/{pid}/{name}").read_bytes()
    return shown


def core_limits(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[4:6] for line in lines if line.startswith("Max core"))


def wait_until_dead(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def spawn(*command: str) -> subprocess.Popen:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def test_a_child_does_exactly_what_is_done_in_line(volume, tmp_path):
    twin_folder = tmp_path / "twin"
    shutil.copytree(volume.folder, twin_folder)
    twin = open_storage(make_setup(f"file://{twin_folder}"), World(), Tally())
    job = volume.job()
    async with child_worker(volume.setup) as worker:
        result = await worker.compact(job)
        inline = InlineWorker(twin)
        assert result == await inline.compact(job)
        await inline.aclose()

        assert len(result.written) > 3
        expected = {}
        for run in reversed(volume.runs):
            expected |= {row[0]: row for row in await volume.rows(run)}
        assert await volume.rows(result.run) == [expected[key] for key in sorted(expected)]

        metrics = worker._metrics
        written_bytes = sum(info.size_bytes for info in result.written)
        assert metrics.get("store_requests_total", kind="put_if_absent") == len(result.written)
        assert metrics.get("store_sent_bytes", kind="put_if_absent") == written_bytes
        assert metrics.get("store_requests_total", kind="get") == 8
        assert (metrics.get("meta_ssts"), metrics.get("meta_sst_bytes")) == (len(result.written), written_bytes)


async def test_one_child_does_many_jobs_one_at_a_time(volume):
    async with child_worker(volume.setup) as worker:
        results = []

        async def do(job):
            results.append(await worker.compact(job))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(do, volume.job())
        (pid,) = children()
        first, *others = [await volume.rows(result.run) for result in results]
        assert all(rows == first for rows in others)
        await worker.compact(volume.job())
        assert children() == [pid]


async def test_a_child_keeps_to_itself_and_gives_way(volume, monkeypatch):
    monkeypatch.setenv("ZEROFS_PASSWORD", SECRETS["password"].decode())
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    async with child_worker(volume.setup) as worker:
        await worker.compact(volume.job())
        (pid,) = children()
        shown = arguments_and_environment(pid)
        assert b"zerofs.lsm.compaction.child" in shown
        for secret in [*SECRETS.values(), SUBKEY, SUBKEY.hex().encode()]:
            assert secret not in shown
        if os.getuid() == 0:
            assert b"AWS_PROFILE=somebody" in shown
        assert core_limits(pid) == ["0", "0"]
        assert os.getsid(pid) == pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 5
        os.kill(pid, signal.SIGINT)
        await worker.compact(volume.job())
        assert children() == [pid]


async def test_an_error_of_the_job_comes_back_as_what_it_is_and_the_child_lives_on(volume):
    job = volume.job()
    victim = volume.folder / volume.runs[2].ssts[0].name
    body = victim.read_bytes()
    victim.write_bytes(body[:200] + bytes(16) + body[216:])
    async with child_worker(volume.setup) as worker:
        with pytest.raises(CorruptionError, match=volume.runs[2].ssts[0].name):
            await worker.compact(job)
        (pid,) = children()
        assert worker._metrics.get("store_requests_total", kind="get") > 0
        victim.write_bytes(body)
        await worker.compact(job)
        assert children() == [pid]


async def test_a_child_that_is_killed_in_the_middle_is_replaced_for_the_next_job(tmp_path, caplog):
    volume = Volume(tmp_path / "volume")
    await volume.fill(4000)
    outputs = volume.folder / "compacted"
    before = len(list(outputs.iterdir()))

    async with child_worker(volume.setup) as worker, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def kill():
            while len(list(outputs.iterdir())) <= before + 1:
                await trio.sleep(0.001)
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)

        with pytest.raises(WorkerDiedError, match="status -9"):
            await worker.compact(volume.job(2000))
        assert children() == []
        left = len(list(outputs.iterdir())) - before
        result = await worker.compact(volume.job())
        assert len(await volume.rows(result.run)) == 16_000
        assert left > 1
    assert not caplog.records


async def test_a_child_that_ended_between_two_jobs_is_replaced_unnoticed(volume, caplog):
    async with child_worker(volume.setup) as worker:
        await worker.compact(volume.job())
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        wait_until_dead(pid)
        await worker.compact(volume.job())
        assert children() != [pid]
    assert "ended between two jobs" in caplog.text


async def test_an_idle_child_is_ended_and_the_next_job_starts_another(volume):
    async with child_worker(volume.setup, idle_s=0.1) as worker, trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await worker.compact(volume.job())
        (pid,) = children()
        while children():
            await trio.sleep(0.01)
        await worker.compact(volume.job())
        assert children() != [pid]
        nursery.cancel_scope.cancel()


async def test_work_keeps_a_child_from_being_idle(volume):
    async with child_worker(volume.setup, idle_s=0.5) as worker, trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await worker.compact(volume.job())
        pids = children()
        with trio.move_on_after(1.2):
            while True:
                await worker.compact(volume.job())
                pids += children()
                await trio.sleep(0.05)
        assert len(set(pids)) == 1
        nursery.cancel_scope.cancel()


# --- a store that never answers: whatever is done to it, the child is in the middle of a job ----------------------


class Silence:
    """An S3 server that takes requests and says nothing."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.setup = make_setup(
            "s3://bucket", endpoint=f"http://127.0.0.1:{self.listener.getsockname()[1]}", allow_http=True
        )
        self.connections: list[socket.socket] = []

    async def wait_for_request(self) -> None:
        connection, _ = await trio.to_thread.run_sync(self.listener.accept)
        self.connections.append(connection)
        assert connection.recv(3) == b"GET"

    def close(self) -> None:
        for one in [self.listener, *self.connections]:
            one.close()


@pytest.fixture
def silence():
    server = Silence()
    server.listener.settimeout(DEADLINE_S)
    yield server
    server.close()


async def test_cancelling_a_job_ends_the_child_at_once(volume, silence):
    async with child_worker(silence.setup) as worker, trio.open_nursery() as nursery:
        nursery.start_soon(worker.compact, volume.job())
        await silence.wait_for_request()
        assert len(children()) == 1
        nursery.cancel_scope.cancel()
    assert children() == []


async def test_a_child_ends_with_its_input_even_in_the_middle_of_a_job(volume, silence):
    with spawn(*COMMAND) as child:
        child.stdin.write(frame(encode_setup(silence.setup)) + frame(encode_job(volume.job())))
        child.stdin.flush()
        await silence.wait_for_request()
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(5) == 0
        assert child.stdout.read() == frame(encode_hello())


PARENT = """
import sys, trio
from zerofs.lsm.compaction.messages import decode_job, decode_setup
from zerofs.lsm.compaction.worker import ChildWorker
from zerofs.telemetry.metrics import Metrics

setup, job = (bytes.fromhex(line) for line in sys.stdin.read().split())
trio.run(ChildWorker(decode_setup(setup), Metrics()).compact, decode_job(job))
"""


async def test_a_child_ends_when_the_writer_is_killed(volume, silence):
    with spawn(sys.executable, "-c", PARENT) as parent:
        parent.stdin.write(f"{encode_setup(silence.setup).hex()} {encode_job(volume.job()).hex()}".encode())
        parent.stdin.close()
        await silence.wait_for_request()
        os.kill(parent.pid, signal.SIGKILL)
    # The other end of the connection closes when the process that held it is gone.
    silence.connections[0].settimeout(5)
    with contextlib.suppress(ConnectionResetError):
        while silence.connections[0].recv(4096):
            pass


# --- nonsense ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import sys; sys.exit(7)", "status 7"),
        ("print('this is not an answer')", "announces"),
        ("import sys; sys.stdout.buffer.write(b'\\2\\0\\0\\0{}'); sys.stdout.flush(); sys.stdin.read()", "malformed"),
        ("import sys; sys.stdout.buffer.write(b'\\9\\0\\0\\0{}')", "within a message"),
        (f"import sys; sys.stdout.buffer.write({frame(encode_hello())} + b'\\2\\0\\0\\0[]')", "malformed|object"),
    ],
)
async def test_a_child_that_does_not_keep_to_the_rules_is_killed(volume, monkeypatch, program, expected):
    monkeypatch.setattr(worker_module, "COMMAND", (sys.executable, "-c", program, "compaction"))
    async with child_worker(volume.setup) as worker:
        with pytest.raises(WorkerDiedError, match=expected):
            await worker.compact(volume.job())
        assert children() == []
        monkeypatch.undo()
        await worker.compact(volume.job())


async def test_a_child_that_does_not_say_hello_is_told_no_secret(volume, monkeypatch):
    """Before, others of its user may open its standard input."""
    program = "import sys, select; sys.exit(9 if select.select([sys.stdin], [], [], 1)[0] else 8)"
    monkeypatch.setattr(worker_module, "COMMAND", (sys.executable, "-c", program, "compaction"))
    async with child_worker(volume.setup) as worker:
        with pytest.raises(WorkerDiedError, match="status 8"):
            await worker.compact(volume.job())


async def test_a_bug_in_the_child_ends_it(volume):
    async with child_worker(volume.setup) as worker:
        with pytest.raises(WorkerDiedError, match="status 1"):
            await worker.compact(replace(volume.job(), names=()))
        await worker.compact(volume.job())


async def test_a_child_that_cannot_be_started_is_an_error_of_ours(volume, monkeypatch):
    monkeypatch.setattr(worker_module, "COMMAND", ("/nonexistent",))
    async with child_worker(volume.setup) as worker:
        with pytest.raises(WorkerDiedError, match="cannot be started"):
            await worker.compact(volume.job())


@pytest.mark.parametrize(
    "said", [b"\xff\xff\xff\xff", frame(b"no setup"), frame(encode_setup(make_setup("file:///x"))) + b"\1"]
)
def test_a_child_takes_nothing_but_the_conversation(said):
    done = subprocess.run(COMMAND, input=said, capture_output=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stdout) == (PROTOCOL_EXIT_CODE, frame(encode_hello()))
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert SECRETS["secret key"] not in done.stderr


def test_a_child_opens_meta_blocks_and_nothing_else():
    storage = open_storage(make_setup("memory://"), World(), Tally())
    sealers = storage.sealers
    nonce = bytes(24)
    again = open_storage(make_setup("memory://"), World(), Tally()).sealers
    for name in ("block", "index"):
        assert getattr(again, name).open(getattr(sealers, name).seal(b"text", b"p", nonce), b"p", 4) == b"text"
    for name in ("chunk", "directory", "wal", "manifest"):
        with pytest.raises(CorruptionError):
            getattr(again, name).open(getattr(sealers, name).seal(b"text", b"p", nonce), b"p", 4)


def test_a_tally_tells_each_addition_once():
    tally = Tally()
    tally.add("a", 1, kind="x")
    tally.add("a", 2, kind="x")
    tally.add("a", 4)
    assert {(counted.name, *counted.labels.items()): counted.amount for counted in tally.take()} == {
        ("a", ("kind", "x")): 3,
        ("a",): 4,
    }
    assert tally.take() == ()
