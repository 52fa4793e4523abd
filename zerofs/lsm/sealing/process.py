"""A process that seals batches of chunks, so that sealing and serving requests do not share one interpreter (0017).

It is started when a volume is mounted, or by a large batch, and ended when none came for a while. Until it is ready,
while all its slots are taken, after it has died, and for small batches, threads seal.
"""

import array
import contextlib
import logging
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

import trio

from zerofs.lsm.chunk import Frame, Text
from zerofs.lsm.sealing.arena import BLOCK_SIZE, Arena
from zerofs.lsm.sealing.messages import (
    HELLO,
    PACKET_MAX,
    READY,
    Setup,
    decode_sealed,
    encode_batch,
    encode_setup,
)
from zerofs.lsm.sealing.sealer import ChunkSealer
from zerofs.process import child_environment
from zerofs.telemetry.metrics import Metrics
from zerofs.units import KIB

log = logging.getLogger(__name__)

TEXT_SLOTS = 5
"""The batches that a chunk writer has sealed at one time, and one for who cannot wait for them."""

FRAME_SLOTS = 24
"""For those, and for batches whose frames are on their way to the store: they are not copied."""

BLOCKS = 24
"""To be lent: what comes while batches are sealed. All three together are 90 MiB, of which takes memory what was ever
used while the process lives."""

WORTH_BYTES = 256 * KIB
"""Less is sealed in a thread sooner than it is handed over and back."""

IDLE_S = 60.0
"""How long the process is kept without work: starting one costs a tenth of a second of processor."""

RETRY_S = 60.0
"""How long threads do all the work after the process has ended by itself."""

ANSWER_TIMEOUT_S = 30.0
"""Longer than any batch takes on any machine: a process that has not answered by then is stopped, or stuck."""

COMMAND = (sys.executable, "-P", "-m", "zerofs.lsm.sealing.child")
"""-P: the directory that a mount happens to be started from must not lend the child its modules."""


class _Died(Exception):
    """The process ended, or said what it should not say. What it was given has to be done again."""


class _Child:
    """The process, the memory shared with it, and the socket to it."""

    def __init__(self, process: trio.Process, conversation: socket.socket, setup: Setup) -> None:
        self._process = process
        self._socket = trio.socket.from_stdlib_socket(conversation)
        self._setup = setup
        self._arena: Arena | None = None
        self._free: list[int] = []
        """Slots for texts: none before it is ready and after it has died."""
        self._targets: list[int] = []
        """Slots for frames."""
        self._blocks: list[int] = []
        """Blocks that nobody has."""
        self._answers: dict[int, trio.Event] = {}
        self.is_ready = trio.Event()
        self.answered = 0
        self._is_dead = False

    @classmethod
    async def spawn(cls, setup: Setup) -> "_Child":
        """Start a process. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                with trio.CancelScope(shield=True):  # a process must not come into being behind our back
                    process = await trio.lowlevel.open_process(
                        (*COMMAND, str(theirs.fileno())),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        pass_fds=(theirs.fileno(),),
                        start_new_session=True,
                        env=child_environment(for_store=False),
                    )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours, setup)

    def lend(self) -> memoryview | None:
        """A block, if there is one."""
        if not self._blocks or self._arena is None:
            return None
        return self._arena.block(self._blocks.pop(), self._blocks.append)

    def take_slots(self, texts: Sequence[Text]) -> tuple[int, int] | None:
        """Slots for the texts and their frames, if there are any."""
        if not self._free or not self._targets or not Arena.holds(texts):
            return None
        return self._free.pop(), self._targets.pop()

    async def seal(self, slots: tuple[int, int], texts: Sequence[Text], nonces: bytes) -> Sequence[Frame]:
        """The frames of a batch. The slots are given back. Raises _Died."""
        slot, target = slots
        arena = self._arena
        assert arena is not None, "there are slots only where there is memory"
        arena.put(slot, texts, nonces)
        answer = self._answers[slot] = trio.Event()
        # Shielded as all work in threads is: the slot is the process's until it answers.
        with trio.CancelScope(shield=True), trio.move_on_after(ANSWER_TIMEOUT_S) as patience:
            try:
                await self._socket.send(encode_batch(slot, target, len(texts)))
            except OSError as error:
                raise _Died(str(error)) from error
            await answer.wait()
        if patience.cancelled_caught:
            self._process.kill()
        if self._is_dead or patience.cancelled_caught:
            raise _Died("it did not answer")
        # Frames may be kept for long: as many slots as there are batches at one time must remain.
        lends = len(self._targets) >= TEXT_SLOTS
        returned = self._targets.append if lends else None
        try:
            frames = arena.take(slot, target, texts, nonces, self._setup.key_id, returned)
        except ValueError as error:
            self._process.kill()
            raise _Died(str(error)) from error
        self._free.append(slot)
        if not lends:
            self._targets.append(target)
        return frames

    async def listen(self) -> str:
        """Hand the answers on until the process ends or speaks nonsense; returns how it ended."""
        try:
            if await self._socket.recv(PACKET_MAX) != HELLO:
                return "it did not begin, or is of another version"
            await self._send_setup()
            if await self._socket.recv(PACKET_MAX) != READY:
                return "it did not begin"
            self._free = list(range(TEXT_SLOTS))
            self._targets = list(range(TEXT_SLOTS, TEXT_SLOTS + FRAME_SLOTS))
            self._blocks = list(range(BLOCKS))
            self.is_ready.set()
            while packet := await self._socket.recv(PACKET_MAX):
                self._answers.pop(decode_sealed(packet)).set()
                self.answered += 1
            return "it closed its end"
        except (OSError, KeyError, struct.error) as error:
            return repr(error)
        finally:
            self._is_dead = True
            self._free, self._blocks = [], []
            for answer in self._answers.values():
                answer.set()

    async def _send_setup(self) -> None:
        """Key and memory, now that only the process itself can have them."""
        with contextlib.closing(Arena.create(TEXT_SLOTS + FRAME_SLOTS, BLOCKS)) as arena:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [arena.descriptor]).tobytes())
            await self._socket.sendmsg([encode_setup(self._setup)], [rights])
        self._arena = arena

    async def end(self) -> int:
        """Kill the process; on return it is gone, and its exit code known. It owns nothing that would be lost."""
        with trio.CancelScope(shield=True):
            self._process.kill()
            self._socket.close()
            await self._process.wait()
        return self._process.returncode or 0


class ProcessSealer:
    """See ChunkSealer. `run` must be running, or threads do everything."""

    def __init__(self, setup: Setup, threads: ChunkSealer, metrics: Metrics, *, idle_s: float = IDLE_S) -> None:
        self._setup = setup
        self._threads = threads
        self._idle_s = idle_s
        self._child: _Child | None = None
        self._wanted = trio.Event()
        self._in_process = metrics.counter("seal_batches", by="process")
        self._in_threads = metrics.counter("seal_batches", by="thread")

    def prepare(self) -> None:
        """There may soon be much to seal: start the process now."""
        self._wanted.set()

    def lend(self, size_bytes: int) -> memoryview | None:
        """See ChunkSealer."""
        return self._child.lend() if self._child is not None and size_bytes <= BLOCK_SIZE else None

    async def seal(self, texts: Sequence[Text], nonces: bytes) -> Sequence[Frame]:
        """See ChunkSealer."""
        if sum(map(len, texts)) >= WORTH_BYTES:
            child = self._child
            if child is None:
                self.prepare()
            slots = None if child is None else child.take_slots(texts)
            if child is not None and slots is not None:
                try:
                    frames = await child.seal(slots, texts, nonces)
                except _Died:
                    # The same texts under the same nonces give the same frames, so nonces may be used again here.
                    pass
                else:
                    self._in_process.add()
                    return frames
        self._in_threads.add()
        return await self._threads.seal(texts, nonces)

    async def run(self) -> None:
        """Start the process when there is work for it, end it when there is not; never returns."""
        while True:
            await self._wanted.wait()
            trouble = await self._live()
            if trouble:
                log.warning("the sealing process is gone (%s); threads do its work meanwhile", trouble)
                await trio.sleep(RETRY_S)

    async def _live(self) -> str:
        """One life of the process: until nothing came for a while, or until it died of what this returns."""
        try:
            child = self._child = await _Child.spawn(self._setup)
        except OSError as error:
            return f"it cannot be started: {error.strerror or error}"
        finally:
            self._wanted = trio.Event()  # set again by who misses the process from now on
        trouble = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_idle, nursery.cancel_scope, child, self._idle_s)
                trouble = await child.listen()
                nursery.cancel_scope.cancel()
        finally:
            self._child = None
            code = await child.end()
        return trouble and f"{trouble}, exit code {code}"


async def _cancel_when_idle(life: trio.CancelScope, child: _Child, idle_s: float) -> None:
    await child.is_ready.wait()
    seen = -1
    while seen != child.answered:
        seen = child.answered
        await trio.sleep(idle_s)
    life.cancel()
