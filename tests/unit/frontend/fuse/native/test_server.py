"""The server, with a socket for a device: who waits keeps nobody else, and nothing that comes ends it."""

import contextlib
import errno
import os
import random
import stat
import struct
import types

import pytest
import trio
import trio.testing

from tests.model.on_room import RoomCalls
from tests.unit.frontend.fuse.native.kernel import Kernel, init, request
from zerofs.errors import FsError
from zerofs.frontend.fuse.native import server as module
from zerofs.frontend.fuse.native.interrupts import Interrupts
from zerofs.frontend.fuse.native.protocol import Opcode
from zerofs.frontend.fuse.native.requests import MalformedRequestError
from zerofs.frontend.fuse.native.server import Server
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.fs.attributes import Attributes, DirectoryEntry
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
        self.written = {}
        self.gone = []

    async def read_pieces(self, handle, offset, size):
        self.asked += 1
        try:
            with trio.move_on_after(1000):  # scopes of our own, entered before the first wait
                await self.may_answer.wait()
        except trio.Cancelled:
            self.gone.append(handle)
            raise
        return b"data", b" of %d" % handle

    async def write(self, handle, offset, data, keep_times, privileges_go):
        self.asked += 1
        await self.may_answer.wait()
        self.written.setdefault(handle, []).append(bytes(data))
        return len(data)

    async def flush(self, handle):
        raise ZeroDivisionError(self.secret)

    async def release(self, handle):
        raise FsError(errno.EBADF)

    def forget(self, node, count):
        self.gone.append((node, count))

    def lend(self, size_bytes):
        return None


class Keeping(Waiting):
    """A filesystem that lends buffers and keeps what is written into them, without a copy."""

    def __init__(self):
        super().__init__()
        self.kept = []
        self.lent = []

    async def write(self, handle, offset, data, keep_times, privileges_go):
        self.kept.append(data)
        return len(data)

    def lend(self, size_bytes):
        self.lent.append(bytearray(size_bytes))
        return memoryview(self.lent[-1])


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
            kernel.end()
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


async def test_the_gap_before_the_next_request_begins_when_the_last_answer_is_given():
    fs = Waiting()
    async with serving(fs, stay_awake=False) as (kernel, server, ask):
        gaps = []
        server._patience = types.SimpleNamespace(slept=gaps.append)
        kernel.send(Opcode.READ, 5, reading(1))
        while not fs.asked:
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.3)
        began_ns = server._now_ns()
        fs.may_answer.set()
        await ask(kernel.receive)
        await ask(kernel.ask, Opcode.GETLK)
        assert gaps[-1] <= server._now_ns() - began_ns


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


async def test_a_waiting_read_ends_when_its_caller_is_killed_and_a_write_does_not(autojump_clock):
    fs, dying = Waiting(), set()
    async with serving(fs) as (kernel, server, ask):
        server._interrupts = Interrupts(lambda pid: pid in dying)
        read = kernel.send(Opcode.READ, 5, reading(1), pid=11)
        write = kernel.send(Opcode.WRITE, 5, writing(2, b"xx"), pid=11)
        other = kernel.send(Opcode.READ, 5, reading(3), pid=12)
        while fs.asked < 3:
            await trio.lowlevel.checkpoint()
        for number in (write, read, other, 4711):
            kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", number))
        await trio.sleep(10)
        assert kernel.nothing_came(), "signals come and go"
        dying.add(11)
        assert await ask(kernel.receive) == (read, errno.EINTR, b"")
        assert fs.gone == [1]
        fs.may_answer.set()
        assert {(await ask(kernel.receive))[:2] for _ in range(2)} == {(write, 0), (other, 0)}


async def test_what_waits_needs_no_buffer_but_a_long_write():
    fs = Waiting()
    async with serving(fs) as (kernel, server, ask):
        for handle in range(20):
            kernel.send(Opcode.READ, 5, reading(handle))
            kernel.send(Opcode.WRITE, 5, writing(handle, b"short"))
        while fs.asked < 40:
            await trio.lowlevel.checkpoint()
        assert len(server._buffers) <= 1, "there is one, and the leader has it or takes it"
        long = b"x" * 500_000
        kernel.send(Opcode.WRITE, 5, writing(99, long))
        kernel.send(Opcode.WRITE, 5, writing(99, b"y" * len(long)))
        while fs.asked < 42:
            await trio.lowlevel.checkpoint()
        fs.may_answer.set()
        for _ in range(42):
            assert (await ask(kernel.receive))[1] == 0
        assert sorted(fs.written[99]) == [long, b"y" * len(long)], "nobody wrote into what was waiting"
        assert 0 < len(server._buffers) <= 3


async def test_lent_buffers_are_for_long_writes_and_for_one_write_each():
    fs = Keeping()
    async with serving(fs) as (kernel, server, ask):
        for _ in range(3):
            await ask(kernel.ask, Opcode.WRITE, 5, writing(9, b"short"))
        assert not fs.lent
        texts = [bytes([number]) * 200_000 for number in range(6)]
        for text in texts:
            await ask(kernel.ask, Opcode.WRITE, 5, writing(9, text))
            await ask(kernel.ask, Opcode.RELEASE, 5, bytes(24))
        kept = fs.kept[4:]  # the first long one was read into a buffer of our own
        assert [bytes(data) for data in kept] == texts[1:], "nothing is read into what is kept"
        assert {id(data.obj) for data in kept} <= {id(buffer) for buffer in fs.lent}
        with trio.fail_after(10):
            while server._lent is not None:  # given back before the server sleeps
                await trio.sleep(0.01)
        for _ in range(2 * module.LENT_TURNS):
            await ask(kernel.ask, Opcode.RELEASE, 5, bytes(24))
        count = len(fs.lent)
        await ask(kernel.ask, Opcode.RELEASE, 5, bytes(24))
        await ask(kernel.ask, Opcode.WRITE, 5, writing(9, texts[0]))
        assert len(fs.lent) == count, "not when no long write came for a while"


async def test_who_waits_when_it_is_stopped_is_refused():
    fs = Waiting()
    kernel = Kernel()
    server = Server(fs, kernel.descriptor, FuseOptions(), World())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await trio.to_thread.run_sync(kernel.begin)
        number = kernel.send(Opcode.READ, 5, reading(1))
        while not fs.asked:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert kernel.receive() == (number, errno.ECONNABORTED, b"")
    kernel.close()


async def test_a_connection_that_ends_lets_go_of_what_reads():
    fs = Waiting()
    async with serving(fs) as (kernel, _, _ask):
        kernel.send(Opcode.READ, 5, reading(1))
        while not fs.asked:
            await trio.lowlevel.checkpoint()
    assert fs.gone == [1]


async def test_a_kernel_that_is_too_old_is_an_error():
    kernel = Kernel()
    number = kernel.send(Opcode.INIT, 0, init(minor=20))
    with pytest.RaisesGroup(pytest.RaisesExc(MalformedRequestError, match=r"speaks FUSE 7\.20")):
        await Server(None, kernel.descriptor, FuseOptions(), World()).run()
    assert kernel.receive() == (number, errno.EINVAL, b"")
    kernel.close()


class Listed:
    """A directory of 100 names, the second page of which never comes."""

    def __init__(self, error=None):
        self.error = error
        self.lookups = 0

    async def lookup(self, caller, parent, name):
        self.lookups += 1
        return attributes_of(1)

    def forget(self, node, count):
        self.lookups -= count

    async def readdir(self, handle, cookie, limit):
        if cookie > 2:
            if self.error:
                raise self.error
            await trio.sleep_forever()
        self.lookups += limit
        return [DirectoryEntry(b"name %d" % n, 3 + n, attributes_of(10 + n)) for n in range(limit)]


def attributes_of(inode):
    return Attributes(inode, stat.S_IFREG | 0o644, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)


async def test_a_listing_that_is_given_up_leaves_no_lookups():
    fs = Listed()
    async with serving(fs) as (kernel, server, ask):
        server._interrupts = Interrupts(lambda pid: True)
        number = kernel.send(Opcode.READDIRPLUS, 1, reading(5, size=100_000))
        while fs.lookups < 30:
            await trio.lowlevel.checkpoint()
        kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", number))
        assert await ask(kernel.receive) == (number, errno.EINTR, b"")
        assert fs.lookups == 0


@pytest.mark.parametrize("opcode", [Opcode.READDIR, Opcode.READDIRPLUS])
@pytest.mark.parametrize("size", [200, 1000, 100_000])
async def test_the_kernel_counts_what_it_gets(opcode, size):
    fs = Listed(FsError(errno.EIO))
    async with serving(fs) as (kernel, _, ask):
        error, payload = await ask(kernel.ask, opcode, 1, reading(5, size=size))
        assert error == 0
        assert len(payload) <= size
        head = 128 if opcode == Opcode.READDIRPLUS else 0
        names = []
        while payload:
            (length,) = struct.unpack_from("<I", payload, head + 16)
            names.append(payload[head + 24 : head + 24 + length])
            payload = payload[head + (24 + length + 7) // 8 * 8 :]
        assert names[:2] == [b".", b".."][: len(names)]
        assert fs.lookups == (max(0, len(names) - 2) if head else 0)


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
