"""Who does compactions: a child process, or for simulations and volumes in memory this very task (0008, point 5).

A child is spawned for the first job, and kept while more of them come. Jobs go to it one after the other. What happens
to it is decided in three places only: `compact` starts it, and kills it whenever a job does not end with an answer;
`run` ends it after a while without a job; `aclose` ends it for good. Whenever one of these returns or raises, no
process is left that could still write an object, so the writer may let its names go.
"""

import logging
import subprocess
import sys
from typing import Protocol

import trio

from zerofs.errors import ZerofsError
from zerofs.lsm.compaction.framing import MessageError
from zerofs.lsm.compaction.job import CompactionJob, CompactionResult
from zerofs.lsm.compaction.merge import compact
from zerofs.lsm.compaction.messages import Answer, Setup, check_hello, decode_answer, encode_job, encode_setup
from zerofs.lsm.compaction.pipe import Pipe
from zerofs.lsm.storage import Storage
from zerofs.process import child_environment
from zerofs.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

IDLE_S = 60.0
"""How long a child is kept without a job: starting one costs half a second of CPU."""

EXIT_GRACE_S = 1.0
"""How long a child that closed its end may take to end by itself, so that its exit code can be told."""

COMMAND = (sys.executable, "-P", "-m", "zerofs.lsm.compaction.child")
"""-P: the directory that a mount happens to be started from must not lend the child its modules."""


class WorkerDiedError(ZerofsError):
    """The worker's process ended, or spoke nonsense, before it had answered. The job may be tried under new names."""


class Worker(Protocol):
    """Does compactions, one at a time; a further caller waits."""

    async def compact(self, job: CompactionJob) -> CompactionResult:
        """See `merge.compact`. Raises what that raises, and WorkerDiedError. Nobody works on the job afterwards."""
        ...

    async def run(self) -> None:
        """Whatever has to be done between jobs. To be run beside them; never returns."""
        ...

    async def aclose(self) -> None:
        """End. No job may be under way, and none may follow. Idempotent."""
        ...


class InlineWorker:
    """Works in the task of its caller, on its caller's storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._turn = trio.Lock()

    async def compact(self, job: CompactionJob) -> CompactionResult:
        """See Worker."""
        async with self._turn:
            return await compact(self._storage, job)

    async def run(self) -> None:
        """See Worker."""
        await trio.sleep_forever()

    async def aclose(self) -> None:
        """See Worker."""


class _Child:
    """A process and the pipe to it."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin, "a pipe"
        assert process.stdout, "a pipe"
        self._process = process
        self._pipe = Pipe(process.stdin, process.stdout)

    @classmethod
    async def spawn(cls, setup: Setup) -> "_Child":
        """Start a process and, once it is hardened, send it the setup. Raises WorkerDiedError."""
        try:
            with trio.CancelScope(shield=True):  # a process must not come into being behind our back
                process = await trio.lowlevel.open_process(
                    COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                    env=child_environment(for_store=True),
                )
        except OSError as error:
            raise WorkerDiedError(f"the compaction worker cannot be started: {error.strerror or error}") from error
        child = cls(process)
        try:
            check_hello(await child._receive())
            await child._pipe.send(encode_setup(setup))
        except BaseException as error:
            raise await child.ended_by(error) from None
        return child

    async def _receive(self) -> bytes:
        payload = await self._pipe.receive()
        if payload is None:
            raise trio.BrokenResourceError("it closed its end")
        return payload

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    async def ask(self, job: CompactionJob) -> Answer:
        """The answer to a job. Whatever this raises, the process is gone then."""
        try:
            await self._pipe.send(encode_job(job))
            return decode_answer(await self._receive())
        except BaseException as error:
            raise await self.ended_by(error) from None

    async def ended_by(self, error: BaseException) -> BaseException:
        """End the process because of `error`; returns what to raise instead."""
        if isinstance(error, trio.BrokenResourceError):
            with trio.move_on_after(EXIT_GRACE_S, shield=True):
                await self._process.wait()
        await self.end()
        if isinstance(error, trio.BrokenResourceError | MessageError):
            return WorkerDiedError(f"the compaction worker ended (status {self._process.returncode}): {error}")
        return error

    async def end(self) -> None:
        """Kill the process; on return it is gone. It owns nothing that would be lost."""
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()
            await self._pipe.aclose()


class ChildWorker:
    """Works in a child process that knows the store and the keys of meta blocks, and nothing else.

    What the child counts at the store is added to `metrics` with each answer.
    """

    def __init__(self, setup: Setup, metrics: Metrics, *, idle_s: float = IDLE_S) -> None:
        self._setup = setup
        self._metrics = metrics
        self._idle_s = idle_s
        self._turn = trio.Lock()
        self._child: _Child | None = None
        self._used = trio.Event()
        """Set by the next job that ends."""

    async def compact(self, job: CompactionJob) -> CompactionResult:
        """See Worker. Cancelling it kills the child."""
        async with self._turn:
            child = await self._living_child()
            self._child = None  # until it has answered, nobody else shall find it
            answer = await child.ask(job)
            self._child = child
            self._used.set()
        for counted in answer.counted:
            self._metrics.add(counted.name, counted.amount, **counted.labels)
        if isinstance(answer.outcome, ZerofsError):
            raise answer.outcome
        self._metrics.add("meta_ssts", len(answer.outcome.written))
        self._metrics.add("meta_sst_bytes", sum(sst.size_bytes for sst in answer.outcome.written))
        return answer.outcome

    async def run(self) -> None:
        """See Worker: ends the child when no job came for a while."""
        while True:
            await self._used.wait()
            self._used = trio.Event()
            with trio.move_on_after(self._idle_s) as idle:
                await self._used.wait()
            if idle.cancelled_caught and self._child is not None:
                async with self._turn:
                    await self._end_child()

    async def aclose(self) -> None:
        """See Worker."""
        async with self._turn:
            await self._end_child()

    async def _living_child(self) -> _Child:
        if self._child is not None and not self._child.is_alive:
            log.warning("the compaction worker ended between two jobs; another one is started")
            await self._end_child()
        if self._child is None:
            self._child = await _Child.spawn(self._setup)
        return self._child

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()
