"""The server, with a socket for a device: who waits keeps nobody else, and nothing that comes ends it."""

import contextlib
import errno
import os
import random
import stat
import struct

import pytest
import trio
import trio.testing

from tests.model.on_room import RoomCalls
from tests.unit.frontend.fuse.native.kernel import Kernel, init, request
from zerofs.errors import FsError
from zerofs.frontend.fuse.native import server as module
from zerofs.frontend.fuse.native.protocol import Opcode
from zerofs.frontend.fuse.native.server import Server
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.world import World

GETATTR = bytes(16)


def reading(handle, size=100, offset=0):
    return struct.pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0)


def writing(handle, data, offset=0, flags=0):
    return struct.pack("<QQIIQII", handle, offset, len(data), flags, 0, 0, 0) + data


class Waiting:
    """A filesystem that answers when it is told to."""

    def __init__(self):
        self.may_answer = trio.Event()
        self.secret = "the name of a file"
        self.asked = 0
        self.gone = []

    async def read(self, handle, offset, size):
        self.asked += 1
        try:
            with trio.move_on_after(1000):  # scopes of our own, entered before the first wait
                await self.may_answer.wait()
        except trio.Cancelled:
            self.gone.append(handle)
            raise
        return b"data of %d" % handle

    async def write(self, handle, offset, data, keep_times):
        await self.may_answer.wait()
        return len(data)

    async def flush(self, handle):
        raise ZeroDivisionError(self.secret)

    async def release(self, handle):
        raise FsError(errno.EBADF)

    def forget(self, node, count):
        self.gone.append((node, count))


@contextlib.asynccontextmanager
async def serving(fs, **options):
    """A server and its kernel, which have agreed."""
    kernel = Kernel()
    server = Server(fs, kernel.descriptor, FuseOptions(**options), World())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)

        async def in_a_thread(call, *arguments, **more):
            return await trio.to_thread.run_sync(lambda: call(*arguments, **more))

        try:
            await in_a_thread(kernel.begin)
            await server.ready.wait()
            yield kernel, server, in_a_thread
            kernel.end()
            with trio.fail_after(10):
                await server.ended.wait()
        finally:
            nursery.cancel_scope.cancel()
    os.close(kernel.descriptor)


@pytest.fixture
def room():
    made = RoomCalls()
    made.mknod(b"f", stat.S_IFREG | 0o644)
    return made


async def test_a_room_is_served(room):
    async with serving(room.fs) as (kernel, _, ask):
        error, entry = await ask(kernel.ask, Opcode.LOOKUP, 1, b"f\0")
        assert error == 0
        (node,) = struct.unpack_from("<Q", entry)
        error, opened = await ask(kernel.ask, Opcode.OPEN, node, struct.pack("<II", os.O_RDWR, 0), uid=0)
        (handle,) = struct.unpack_from("<Q", opened)
        assert await ask(kernel.ask, Opcode.WRITE, node, writing(handle, b"hello")) == (0, struct.pack("<II", 5, 0))
        assert await ask(kernel.ask, Opcode.READ, node, reading(handle)) == (0, b"hello")
        assert await ask(kernel.ask, Opcode.GETXATTR, node, struct.pack("<II", 0, 0) + b"user.x\0") == (
            errno.ENODATA,
            b"",
        )
        error, absent = await ask(kernel.ask, Opcode.LOOKUP, 1, b"absent\0")
        assert (error, struct.unpack_from("<Q", absent)) == (0, (0,))
        assert (await ask(kernel.ask, Opcode.MKDIR, 1, struct.pack("<II", 0o755, 0o022) + b"f\0", uid=0))[0] == 17


async def test_many_wait_and_others_are_answered_meanwhile():
    fs = Waiting()
    async with serving(fs) as (kernel, server, ask):
        numbers = {kernel.send(Opcode.READ, 5, reading(handle)): handle for handle in range(40)}
        while fs.asked < 40:
            await trio.lowlevel.checkpoint()
        assert await ask(kernel.ask, Opcode.GETLK) == (errno.ENOSYS, b"")
        assert kernel.nothing_came()
        fs.may_answer.set()
        found = dict([(await ask(kernel.receive))[::2] for _ in numbers])
        assert found == {number: b"data of %d" % handle for number, handle in numbers.items()}
        while server._workers > module.IDLE_MAX + 1:
            await trio.lowlevel.checkpoint()
        assert len(server._buffers) <= module.IDLE_MAX


async def test_no_more_than_so_many_wait(monkeypatch):
    monkeypatch.setattr(module, "WORKERS_MAX", 3)
    fs = Waiting()
    async with serving(fs) as (kernel, _, ask):
        for handle in range(5):
            kernel.send(Opcode.READ, 5, reading(handle))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert fs.asked == 3
        fs.may_answer.set()
        assert len({(await ask(kernel.receive))[0] for _ in range(5)}) == 5


async def test_a_waiting_read_can_be_interrupted_and_a_write_cannot():
    fs = Waiting()
    async with serving(fs) as (kernel, _, ask):
        read = kernel.send(Opcode.READ, 5, reading(1))
        write = kernel.send(Opcode.WRITE, 5, writing(2, b"xx"))
        other = kernel.send(Opcode.READ, 5, reading(3))
        while fs.asked < 2:
            await trio.lowlevel.checkpoint()
        for number in (write, read, 4711):
            kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", number))
        assert await ask(kernel.receive) == (read, errno.EINTR, b"")
        assert fs.gone == [1]
        fs.may_answer.set()
        assert {(await ask(kernel.receive))[:2] for _ in range(2)} == {(write, 0), (other, 0)}


async def test_a_bug_is_eio_and_told_once(caplog):
    async with serving(Waiting()) as (kernel, _, ask):
        for _ in range(3):
            assert await ask(kernel.ask, Opcode.FLUSH, 5, bytes(24)) == (errno.EIO, b"")
        assert await ask(kernel.ask, Opcode.RELEASE, 5, bytes(24)) == (errno.EBADF, b"")
    assert caplog.text.count("failed with ZeroDivisionError") == 1
    assert "the name of a file" not in caplog.text


async def test_forgetting_is_not_answered():
    fs = Waiting()
    async with serving(fs) as (kernel, _, ask):
        kernel.send(Opcode.FORGET, 7, struct.pack("<Q", 3))
        kernel.send(Opcode.BATCH_FORGET, 0, struct.pack("<IIQQQQ", 2, 0, 8, 1, 9, 2))
        assert (await ask(kernel.ask, Opcode.GETLK))[0] == errno.ENOSYS
        assert fs.gone == [(7, 3), (8, 1), (9, 2)]


@pytest.mark.parametrize(
    ("opcode", "expected"),
    [(Opcode.IOCTL, errno.ENOTTY), (Opcode.POLL, errno.ENOSYS), (Opcode.SETLKW, errno.ENOSYS), (4711, errno.ENOSYS)],
)
async def test_what_is_not_served(room, opcode, expected):
    async with serving(room.fs) as (kernel, _, ask):
        assert await ask(kernel.ask, opcode, 1, bytes(64)) == (expected, b"")


async def test_holes_are_shown_where_the_kernel_caches_no_writes(room):
    question = struct.pack("<QQII", 1, 0, os.SEEK_HOLE, 0)
    async with serving(room.fs, writeback=False) as (kernel, _, ask):
        assert (await ask(kernel.ask, Opcode.LSEEK, 2, question))[0] != errno.ENOSYS
    async with serving(room.fs) as (kernel, _, ask):
        assert (await ask(kernel.ask, Opcode.LSEEK, 2, question))[0] == errno.ENOSYS


async def test_malformed_messages_are_refused_and_the_next_is_answered(room, caplog):
    async with serving(room.fs) as (kernel, _, ask):
        assert await ask(kernel.ask, Opcode.LOOKUP, 1, b"no end") == (errno.EINVAL, b"")
        assert await ask(kernel.ask, Opcode.SETATTR, 1, bytes(20)) == (errno.EINVAL, b"")
        assert await ask(kernel.ask, Opcode.WRITE, 1, writing(1, b"x" * 50)[:-1]) == (errno.EINVAL, b"")
        kernel.send_raw(b"too short")
        kernel.send_raw(request(Opcode.GETATTR, 1, GETATTR)[:-1])
        assert (await ask(kernel.ask, Opcode.GETATTR, 1, GETATTR))[0] == 0
        assert (await ask(kernel.ask, Opcode.INIT, 0, init()))[0] == errno.ENOSYS, "only once"
    assert "MalformedRequestError" in caplog.text


@pytest.mark.parametrize("seed", range(8))
async def test_anything_may_come(room, seed, caplog):
    """Random opcodes, lengths and contents, many of them nearly right: an answer each, and nothing else."""
    rng = random.Random(seed)
    interesting = [0, 1, 2, 3, 4096, 2**31, 2**32 - 1]
    quiet = {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.INIT}
    async with serving(room.fs) as (kernel, _, ask):
        for _ in range(400):
            words = [rng.choice(interesting) for _ in range(rng.randrange(16))]
            body = struct.pack(f"<{len(words)}I", *words) + rng.choice([b"", b"f\0", b"f\0g\0", b"new\0", b"x" * 300])
            opcode = rng.choice([*(set(Opcode) - quiet), rng.randrange(60, 2**32)])
            error, _ = await ask(kernel.ask, opcode, rng.choice([0, 1, 2, 3, 2**63]), body, uid=rng.choice([0, 5]))
            assert 0 <= error < 134
        assert (await ask(kernel.ask, Opcode.GETATTR, 1, GETATTR))[0] == 0
    room.engine.check_live_values()
    unexpected = [record for record in caplog.records if "MalformedRequestError" not in record.getMessage()]
    assert unexpected == []
