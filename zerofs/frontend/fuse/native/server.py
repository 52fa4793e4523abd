"""The server: reads requests from the connection, has them answered, writes the replies.

One task leads: it waits for the next request, awake for a short while and then asleep, and answers it at once if that
needs no waiting. A request that has to wait keeps its task; another one takes the lead. So a request costs no task of
its own unless it waits, and whoever waits keeps nobody else.

Whatever goes wrong becomes an errno. A message that makes no sense is refused and told once; it ends nothing.
"""

import errno
import logging
import os
import select
import traceback
from collections.abc import Coroutine
from typing import Any

import trio

from zerofs.errors import FsError
from zerofs.frontend.fuse.native import negotiation, replies, requests
from zerofs.frontend.fuse.native import protocol as p
from zerofs.frontend.fuse.native.byhand import rest
from zerofs.frontend.fuse.native.calls import Answer, Calls
from zerofs.frontend.fuse.native.interrupts import Interrupts
from zerofs.frontend.fuse.native.negotiation import Agreed
from zerofs.frontend.fuse.native.protocol import Opcode
from zerofs.frontend.fuse.native.requests import Header, MalformedRequestError
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.frontend.fuse.patience import DISTURBED_NS, Patience
from zerofs.fs.chunks import Data
from zerofs.fs.filesystem import Filesystem
from zerofs.world import World

_log = logging.getLogger(__name__)

BUFFER_SIZE = negotiation.MAX_WRITE + 4096
"""A request and what stands before its data. Source: linux/fuse.h, FUSE_MIN_READ_BUFFER; fs/fuse/dev.c."""

WORKERS_MAX = 4096
"""Requests under way at the same time. With all of them waiting, nothing is read any more, not even interruptions."""

IDLE_MAX = 8
"""Tasks and buffers that are kept for the next ones."""

YIELD_NS = 500_000
"""Other tasks get their turn at least that often, however fast requests come. A turn costs as much as a request."""

Buffer = bytearray | memoryview
"""What a request is read into: our own, or lent by the filesystem."""

_TRIES_AT_ONCE = 4

_GONE = (errno.ENODEV, errno.ECONNABORTED, errno.EBADF)
"""How a read ends when the filesystem was unmounted, or its connection aborted."""

_MAY_BE_GIVEN_UP = frozenset(
    [
        *(Opcode.READ, Opcode.LOOKUP, Opcode.GETATTR, Opcode.STATX, Opcode.READLINK, Opcode.GETXATTR),
        *(Opcode.LISTXATTR, Opcode.LSEEK, Opcode.OPENDIR, Opcode.READDIR, Opcode.READDIRPLUS),
        *(Opcode.FSYNC, Opcode.FSYNCDIR, Opcode.STATFS),
    ]
)
"""What changes nothing, so that nothing is left half done when its caller is killed while it waits."""

_SHORT = 64 * 1024
"""Writes of up to so many bytes are copied out of their buffer."""

LENT_TURNS = 64
"""Requests after a long write for which a lent buffer is kept in readiness."""


class Server:
    """Answers the kernel over one connection until it ends. `run` once.

    Args:
        fs: what is served.
        descriptor: the connection, not blocking; stays the caller's.
        options: of the mount.
        world: clock.
    """

    def __init__(self, fs: Filesystem, descriptor: int, options: FuseOptions, world: World) -> None:
        self.ready = trio.Event()
        """The kernel has begun to talk, or never will."""
        self.ended = trio.Event()
        self._fs = fs
        self._descriptor = descriptor
        self._options = options
        self._now_ns, self._switches = world.monotonic_ns, world.switches
        self._calls: Calls | None = None
        self._patience = Patience()
        self._stay_awake = options.stay_awake
        self._led = False
        self._idle = trio.lowlevel.ParkingLot()
        self._workers = 0
        self._nursery: trio.Nursery | None = None
        self._buffers: list[bytearray] = []
        self._lent: memoryview | None = None
        """A buffer for a long write, of which the filesystem keeps parts; it is used for other requests meanwhile."""
        self._lent_turns = 0
        self._interrupts = Interrupts()
        self._yield_at_ns = 0
        self._switched = 0
        """How often the thread had given its core away at the last turn of others, or sleep."""
        self._began_ns = 0
        """When the wait for the next request began, or when somebody got an answer since."""
        self._waiting = 0
        """Requests that wait for something: what they wait for needs its turn, too."""
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._reported: set[object] = set()

    async def run(self) -> None:
        """Answer until the kernel closes the connection."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._add_worker()
        finally:
            self.ended.set()
            self.ready.set()

    # --- who leads

    def _add_worker(self) -> None:
        assert self._nursery is not None
        self._workers += 1
        self._nursery.start_soon(self._work)

    async def _work(self) -> None:
        try:
            while not self.ended.is_set():
                if self._led:
                    if len(self._idle) >= IDLE_MAX:
                        return
                    await self._idle.park()
                    continue
                self._led = True
                await self._lead()
        finally:
            self._workers -= 1

    def _pass_the_lead(self) -> None:
        self._led = False
        if self._idle:
            self._idle.unpark()
        elif self._workers < WORKERS_MAX:
            self._add_worker()

    async def _lead(self) -> None:
        """Answer requests until one has to wait, and that one to its end.

        One scope serves for all, since only the last one can be interrupted: entering one costs as much as a lookup.
        """
        unique = 0
        with trio.CancelScope() as scope:
            while True:
                buffer, size = await self._next()
                if not size:
                    self._end()
                    return
                header, body = self._message(buffer, size)
                if header is None:
                    self._keep(buffer)
                    continue
                is_long = _is_long(header, size)
                work = self._answered(header, body)
                try:
                    trap = work.send(None)
                except StopIteration:
                    self._keep(buffer, is_long)
                    continue
                self._pass_the_lead()
                self._waiting += 1
                unique = header.unique
                if not is_long:
                    self._keep(buffer)
                if header.opcode in _MAY_BE_GIVEN_UP:
                    self._interrupts.begin(unique, header.pid, scope)
                try:
                    await rest(work, trap)
                    self._began_ns = self._now_ns()
                except trio.Cancelled:
                    if not scope.cancel_called:  # the server is stopped: nobody else will answer
                        self._send(replies.refusal(unique, errno.ECONNABORTED))
                    raise
                finally:
                    self._waiting -= 1
                    self._interrupts.end(unique)
                if is_long:
                    self._keep(buffer, is_long)
                return
        if scope.cancelled_caught:
            self._send(replies.refusal(unique, errno.EINTR))

    def _end(self) -> None:
        self.ended.set()
        self._interrupts.give_up_all()
        self._idle.unpark_all()

    def _message(self, buffer: Buffer, size: int) -> tuple[Header | None, memoryview]:
        """Header and body of what was read. A short write is copied, so that it may wait without the buffer."""
        message = memoryview(buffer)[:size]
        try:
            header = requests.header(message)
        except MalformedRequestError as error:
            self._report("the header of a request", error)
            return None, message
        body = message[p.IN_HEADER.size :]
        if header.opcode == Opcode.WRITE and not _is_long(header, size):
            body = memoryview(bytes(body))
        return header, body

    def _buffer(self) -> Buffer:
        """For the next request: one whose parts the filesystem can keep, as long as long writes come."""
        lent = None
        if self._lent_turns:
            self._lent_turns -= 1
            lent = self._lent or self._fs.lend(BUFFER_SIZE)
        self._lent = None
        return lent or (self._buffers.pop() if self._buffers else bytearray(BUFFER_SIZE))

    def _keep(self, buffer: Buffer, is_long: bool = False) -> None:
        """A request is answered, or copied. After a long write parts of a lent buffer may be in use."""
        if is_long:
            self._lent_turns = LENT_TURNS
        if type(buffer) is memoryview:
            self._lent = None if is_long else buffer
        elif len(self._buffers) < IDLE_MAX:
            self._buffers.append(buffer)

    # --- one request

    async def _answered(self, header: Header, body: memoryview) -> None:
        """Have a request answered, and send the reply."""
        try:
            answer = await self._answer(header, body)
        except Exception as error:
            self._send(replies.refusal(header.unique, self._errno(header.opcode, error)))
            if self._calls is None and isinstance(error, MalformedRequestError):
                raise  # nothing was agreed, and nothing will be
            return
        if answer is None:
            return
        if isinstance(answer, bytes):
            self._send(replies.header(header.unique, len(answer)), answer)
        else:
            self._send(replies.header(header.unique, sum(map(len, answer))), *answer)

    def _answer(self, header: Header, body: memoryview) -> Coroutine[Any, Any, Answer]:
        calls = self._calls
        call = calls.table.get(header.opcode) if calls is not None else None
        if call is not None:
            return call(header, body)
        return self._of_the_connection(header, body)

    async def _of_the_connection(self, header: Header, body: memoryview) -> Answer:
        """What is not about files: beginning, end, interruption; and what is not served."""
        if header.opcode == Opcode.INIT and self._calls is None:
            agreed = negotiation.agree(body, self._options)
            if agreed is None:
                return negotiation.only_our_major()
            self._begin(agreed)
            return agreed.reply
        if header.opcode == Opcode.INTERRUPT:
            (unique,) = requests.fields(p.INTERRUPT, body)
            assert self._nursery is not None
            self._nursery.start_soon(self._interrupts.watch, unique)
            return None
        if header.opcode == Opcode.DESTROY:
            return b""
        if header.opcode == Opcode.IOCTL:
            raise FsError(errno.ENOTTY)
        raise FsError(errno.ENOSYS)

    def _begin(self, agreed: Agreed) -> None:
        writeback = bool(agreed.flags & p.Init.WRITEBACK_CACHE)
        self._calls = Calls(self._fs, self._options, writeback=writeback)
        self.ready.set()

    def _send(self, *parts: Data) -> None:
        try:
            os.writev(self._descriptor, parts)
        except OSError as error:
            # The connection was aborted, or is gone: the next read tells.
            if error.errno not in (errno.ENOENT, *_GONE):
                self._report("a reply", error)

    # --- waiting for the next one

    async def _next(self) -> tuple[Buffer, int]:
        """The next request, and its size, 0 when there will be none."""
        if self._now_ns() >= self._yield_at_ns:
            await self._yield()
        while True:
            # Asking whether there is one is cheaper than an error that tells there is none.
            if not self._poll.poll(0):
                await self._until_one_comes()
            buffer = self._buffer()
            size = self._read(buffer)
            if size is not None:
                return buffer, size
            self._keep(buffer)

    async def _until_one_comes(self) -> None:
        self._began_ns = self._now_ns()
        if self._stay_awake and await self._awake():
            return
        self._lent = None  # nobody knows for how long
        await trio.lowlevel.wait_readable(self._descriptor)
        self._switched = self._switches()
        self._patience.slept(self._now_ns() - self._began_ns)

    def _read(self, buffer: Buffer) -> int | None:
        """Without waiting: the size of a request, 0 at the end, None when there is none now."""
        while True:
            try:
                return os.readv(self._descriptor, [buffer])
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in _GONE:
                    return 0
                if error.errno not in (errno.ENOENT, errno.EINTR):  # withdrawn before it was read
                    raise

    async def _awake(self) -> bool:
        """Ask again for a short while whether there is a request. False when that was in vain."""
        began_ns = now_ns = self._began_ns
        deadline_ns = self._patience.deadline_ns(now_ns)
        if deadline_ns == now_ns:
            return False
        poll = self._poll.poll
        while now_ns < deadline_ns:
            for _ in range(_TRIES_AT_ONCE):
                if poll(0):
                    self._patience.hit(now_ns - began_ns)
                    return True
            after_ns = self._now_ns()
            if after_ns - now_ns > DISTURBED_NS:
                if self._switches() != self._switched:
                    self._patience.disturbed(after_ns)
                    return False
                deadline_ns += after_ns - now_ns  # the machine was gone, not the core
            if self._waiting or after_ns >= self._yield_at_ns:
                await self._yield()
                after_ns = self._now_ns()
                if self._began_ns != began_ns:  # who was answered meanwhile may come back at once
                    began_ns = self._began_ns
                    deadline_ns = self._patience.deadline_ns(began_ns)
            now_ns = after_ns
        if poll(0):  # turns of others may have used the while up
            self._patience.hit(now_ns - began_ns)
            return True
        self._patience.missed()
        return False

    async def _yield(self) -> None:
        await trio.lowlevel.checkpoint()
        self._yield_at_ns = self._now_ns() + YIELD_NS
        self._switched = self._switches()

    # --- failures

    def _errno(self, opcode: int, error: Exception) -> int:
        """The error as the kernel understands it. What is not an `FsError` is a bug, or a malformed request: logged."""
        if isinstance(error, FsError):
            return error.errno or errno.EIO
        code = errno.EINVAL if isinstance(error, MalformedRequestError) else errno.EIO
        self._report(_name(opcode), error, f", answered with {errno.errorcode[code]}")
        return code

    def _report(self, what: str, error: Exception, consequence: str = "") -> None:
        """Each kind once: a stream of requests would repeat it thousands of times a second."""
        kind = (what, type(error))
        if kind in self._reported:
            return
        self._reported.add(kind)
        # Neither the error's message nor the request is shown: they may hold names of files.
        frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        _log.error("%s failed with %s%s:\n%s", what, type(error).__name__, consequence, frames)


def _is_long(header: Header, size: int) -> bool:
    """Whether the data of a request are left in its buffer. All others are copied when they are decoded."""
    return size > _SHORT and header.opcode == Opcode.WRITE


def _name(opcode: int) -> str:
    return Opcode(opcode).name.lower() if opcode in Opcode.__members__.values() else f"request {opcode}"
