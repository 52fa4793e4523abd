"""The worker's process: `python -m zerofs.lsm.compaction.child`, started by `worker.ChildWorker` and by nobody else.

Setup and jobs come on standard input, answers go to standard output, log lines to standard error. One job at a time. It
ends when standard input does, in whatever it is doing then: the writer is gone, and what was not answered is garbage.
That pipe is what ties the two lives together. PR_SET_PDEATHSIG would not do: the kernel sends it when the *thread* that
made the child ends, and that is one of trio's, which end after ten idle seconds.
"""

import gc
import logging
import os
import signal
import sys
from typing import NoReturn

import trio

from zerofs.errors import ZerofsError
from zerofs.lsm.compaction.framing import MessageError
from zerofs.lsm.compaction.merge import compact
from zerofs.lsm.compaction.messages import Answer, Counted, Setup, decode_job, decode_setup, encode_answer, encode_hello
from zerofs.lsm.compaction.pipe import Pipe
from zerofs.lsm.storage import Sealers, Storage
from zerofs.objectstore.open import open_store
from zerofs.process import harden
from zerofs.telemetry import log as log_setup
from zerofs.telemetry.metrics import Metrics
from zerofs.transform.frame import Kind, Sealer
from zerofs.world import World

log = logging.getLogger(__name__)

NICENESS = 5
"""Requests come first."""

GC_THRESHOLDS = (100_000, 20, 100)
"""Rows have no cycles: the cycle collector would only look at them again and again."""

PROTOCOL_EXIT_CODE = 3
"""What came on standard input was no conversation."""


class Tally:
    """A sink of metrics that says what was added since it was last asked."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}

    def add(self, name: str, amount: int, **labels: str) -> None:
        """See MetricsSink."""
        key = name, tuple(sorted(labels.items()))
        self._counts[key] = self._counts.get(key, 0) + amount

    def take(self) -> tuple[Counted, ...]:
        """Everything that was added since the last time."""
        counts, self._counts = self._counts, {}
        return tuple(
            Counted(name=name, labels=dict(labels), amount=amount) for (name, labels), amount in counts.items()
        )


def open_storage(setup: Setup, world: World, tally: Tally) -> Storage:
    """The storage that jobs work on. Makes no request. Raises ConfigError."""
    return Storage(
        store=open_store(setup.url, setup.s3, world, tally),
        world=world,
        sealers=_sealers(setup, world),
        volume_id=setup.volume_id,
        metrics=Metrics(),
        cache_memory_bytes=0,
        open_source=lambda url: open_store(url, setup.s3, world, tally),
    )


def _sealers(setup: Setup, world: World) -> Sealers:
    def sealer(kind: Kind) -> Sealer:
        return Sealer(
            volume_id=setup.volume_id,
            kind=kind,
            subkeys=setup.subkeys,
            current=setup.current,
            compression=setup.compression,
        )

    def unusable(kind: Kind) -> Sealer:
        """Keys of other purposes never come here; under this one nothing opens, anywhere."""
        return Sealer(
            volume_id=setup.volume_id,
            kind=kind,
            subkeys={setup.current: world.entropy(32)},
            current=setup.current,
            compression=setup.compression,
        )

    return Sealers(
        block=sealer(Kind.META_BLOCK),
        index=sealer(Kind.META_INDEX),
        chunk=unusable(Kind.CHUNK),
        directory=unusable(Kind.CHUNK_DIRECTORY),
        wal=unusable(Kind.WAL),
        manifest=unusable(Kind.MANIFEST),
    )


async def serve(pipe: Pipe, world: World) -> None:
    """Say hello, take the setup, then jobs, and answer each.

    Never returns: the end of the conversation ends the process. To be called once the process is hardened: before, its
    standard input can be opened by others of the same user, so nobody sends it secrets without the hello.
    """
    await pipe.send(encode_hello())
    to_work, work = trio.open_memory_channel[bytes](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, pipe, to_work)
        tally = Tally()
        storage = open_storage(decode_setup(await work.receive()), world, tally)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        async for payload in work:
            job = decode_job(payload)
            try:
                answer = Answer(outcome=await compact(storage, job), counted=tally.take())
            except ZerofsError as error:
                answer = Answer(outcome=error, counted=tally.take())
            await pipe.send(encode_answer(answer))


async def _listen(pipe: Pipe, to_work: trio.MemorySendChannel[bytes]) -> NoReturn:
    """Read ahead, so that the end of the input is seen in the middle of a job."""
    while (payload := await pipe.receive()) is not None:
        await to_work.send(payload)
    # Not by cancelling: a request that hangs in a thread would keep the process for as long as it likes.
    os._exit(0)


def main() -> None:
    """Be the worker of the process at the other end of standard input."""
    harden()
    for number in (signal.SIGINT, signal.SIGTERM):  # also when a service manager sends it to all of a service
        signal.signal(number, signal.SIG_IGN)  # meant for the mount, which still needs its worker to close
    os.nice(NICENESS)
    log_setup.configure("warning")
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not be taken for an answer

    async def run() -> None:
        await serve(Pipe(trio.lowlevel.FdStream(answers), trio.lowlevel.FdStream(sys.stdin.fileno())), World())

    broken: list[BaseException] = []
    try:
        trio.run(run)
    except* (MessageError, trio.BrokenResourceError) as group:
        broken += group.exceptions
    log.error("the compaction worker ends: %s", broken[0])
    sys.exit(PROTOCOL_EXIT_CODE)


if __name__ == "__main__":
    main()
