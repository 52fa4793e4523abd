"""What each request asks of the filesystem, and what becomes of its errors. The kernel's side is in `tests/mount`."""

import errno
import inspect
import os
import stat

import pyfuse3
import pytest
from pyfuse3 import EntryAttributes, FUSEError, RequestContext, SetattrFields

from zerofs.errors import FsError
from zerofs.frontend.fuse.libfuse import operations as module
from zerofs.frontend.fuse.libfuse.operations import Operations
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.fs.attributes import AttributeChanges, Attributes, DirectoryEntry, FilesystemStatistics

CONTEXT = RequestContext()


def attributes(inode):
    return Attributes(
        inode=inode,
        mode=stat.S_IFREG | 0o644,
        nlink=1,
        uid=0,
        gid=0,
        rdev=0,
        size_bytes=0,
        blocks=0,
        atime_ns=0,
        mtime_ns=0,
        ctime_ns=0,
        btime_ns=0,
    )


ANSWERS = {
    "create": (5, attributes(7)),
    "open": 5,
    "opendir": 5,
    "read": b"data",
    "write": 4,
    "readlink": b"target",
    "getxattr": b"value",
    "listxattr": [b"user.a"],
    "readdir": [],
    "statfs": FilesystemStatistics(
        block_size=1, blocks_total=1, blocks_free=1, files_total=1, files_free=1, name_max=255
    ),
}
NOTHING = ("forget", "unlink", "rmdir", "rename", "access", "setxattr", "removexattr")
NOTHING += ("flush", "fsync", "release", "releasedir", "fsyncdir")


class RecordingFilesystem:
    """Writes calls down, and answers or raises `error`."""

    def __init__(self, error=None):
        self.calls = []
        self.error = error

    def __getattr__(self, name):
        def answer(*args):
            self.calls.append((name, *(a for a in args if type(a).__name__ != "Caller")))
            if self.error is not None:
                raise self.error
            return None if name in NOTHING else ANSWERS.get(name, attributes(7))

        async def answer_later(*args):
            return answer(*args)

        return answer if name == "forget" else answer_later


class EmptyToken:
    """Stands for the reply buffer of a readdir."""


REQUESTS = {
    "lookup": ((1, b"n", CONTEXT), ("lookup", 1, b"n")),
    "getattr": ((7, CONTEXT), ("getattr", 7)),
    "setattr": ((7, EntryAttributes(), SetattrFields(), 5, CONTEXT), ("setattr", 7, AttributeChanges(), 5)),
    "readlink": ((7, CONTEXT), ("readlink", 7)),
    "mknod": ((1, b"n", stat.S_IFIFO | 0o644, 9, CONTEXT), ("mknod", 1, b"n", stat.S_IFIFO | 0o644, 9)),
    "mkdir": ((1, b"n", stat.S_IFDIR | 0o1755, CONTEXT), ("mkdir", 1, b"n", 0o1755)),
    "unlink": ((1, b"n", CONTEXT), ("unlink", 1, b"n")),
    "rmdir": ((1, b"n", CONTEXT), ("rmdir", 1, b"n")),
    "symlink": ((1, b"n", b"t", CONTEXT), ("symlink", 1, b"n", b"t")),
    "rename": ((1, b"a", 2, b"b", 3, CONTEXT), ("rename", 1, b"a", 2, b"b", 3)),
    "link": ((7, 1, b"n", CONTEXT), ("link", 7, 1, b"n")),
    "open": ((7, os.O_WRONLY | os.O_APPEND | os.O_TRUNC, CONTEXT), ("open", 7, os.O_WRONLY | os.O_TRUNC, True)),
    "create": (
        (1, b"n", stat.S_IFREG | 0o640, os.O_RDWR | os.O_APPEND, CONTEXT),
        ("create", 1, b"n", 0o640, os.O_RDWR, True),
    ),
    "read": ((5, 10, 20), ("read", 5, 10, 20)),
    "write": ((5, 10, b"data"), ("write", 5, 10, b"data", True)),
    "flush": ((5,), ("flush", 5)),
    "release": ((5,), ("release", 5)),
    "fsync": ((5, True), ("fsync", 5, True)),
    "opendir": ((7, CONTEXT), ("opendir", 7)),
    "readdir": ((5, 2, EmptyToken()), ("readdir", 5, 2, 32)),
    "releasedir": ((5,), ("releasedir", 5)),
    "fsyncdir": ((5, False), ("fsyncdir", 5, False)),
    "statfs": ((CONTEXT,), ("statfs",)),
    "setxattr": ((7, b"user.a", b"v", CONTEXT), ("setxattr", 7, b"user.a", b"v", 0)),
    "getxattr": ((7, b"user.a", CONTEXT), ("getxattr", 7, b"user.a")),
    "listxattr": ((7, CONTEXT), ("listxattr", 7)),
    "removexattr": ((7, b"user.a", CONTEXT), ("removexattr", 7, b"user.a")),
    "access": ((7, os.R_OK, CONTEXT), ("access", 7, os.R_OK)),
    "forget": (([(7, 2)],), ("forget", 7, 2)),
}


def operations(fs, **options):
    served = Operations(fs, FuseOptions(**options), lambda: None)
    served._directories[5] = 7
    return served


async def test_only_writes_out_of_the_kernels_cache_leave_the_times_alone():
    for flags, writeback, expected in ((0, True, True), (os.O_DIRECT, True, False), (0, False, False)):
        fs = RecordingFilesystem()
        served = operations(fs, writeback=writeback)
        opened = await served.open(7, os.O_WRONLY | flags, CONTEXT)
        await served.write(opened.fh, 0, b"x")
        assert fs.calls[-1] == ("write", opened.fh, 0, b"x", expected)
        await served.release(opened.fh)
        await served.write(opened.fh, 0, b"x")
        assert fs.calls[-1][-1] is writeback


def test_every_request_of_the_binding_is_served():
    offered = {name for name, value in vars(pyfuse3.Operations).items() if inspect.iscoroutinefunction(value)}
    # The kernel answers poll(2) by itself when nobody serves it: files are always ready.
    assert offered - {"poll"} == set(REQUESTS)
    assert offered - {"poll"} <= set(vars(Operations))


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_is_one_call(name):
    arguments, call = REQUESTS[name]
    fs = RecordingFilesystem()
    await getattr(operations(fs), name)(*arguments)
    assert fs.calls == [call]


@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "forget"])
async def test_an_error_is_the_callers_errno(name, caplog):
    with pytest.raises(FUSEError) as caught:
        await getattr(operations(RecordingFilesystem(FsError(errno.EDQUOT))), name)(*REQUESTS[name][0])
    assert caught.value.errno == errno.EDQUOT
    assert caplog.text == ""


@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "forget"])
async def test_a_bug_is_eio_and_logged_once_without_its_message(name, caplog):
    served = operations(RecordingFilesystem(KeyError(b"name of a file")))
    for _ in range(3):
        with pytest.raises(FUSEError) as caught:
            await getattr(served, name)(*REQUESTS[name][0])
        assert caught.value.errno == errno.EIO
    assert len(caplog.records) == 1
    assert f"{name} failed with KeyError" in caplog.text
    assert "name of a file" not in caplog.text


async def test_a_bug_in_forget_is_logged_and_the_rest_goes_on(caplog):
    fs = RecordingFilesystem(KeyError("x"))
    await operations(fs).forget([(7, 1), (8, 2)])
    assert fs.calls == [("forget", 7, 1), ("forget", 8, 2)]
    assert len(caplog.records) == 1


async def test_an_error_without_a_number_is_not_success():
    with pytest.raises(FUSEError) as caught:
        await operations(RecordingFilesystem(FsError(0))).unlink(1, b"n", CONTEXT)
    assert caught.value.errno == errno.EIO


async def test_an_absent_name_is_an_answer_with_a_lifetime():
    absent = await operations(RecordingFilesystem(FsError(errno.ENOENT)), lifetime_s=3.0).lookup(1, b"n", CONTEXT)
    assert (absent.st_ino, absent.entry_timeout) == (0, 3.0)


async def test_what_is_made_comes_back_with_its_lifetime():
    handle, made = await operations(RecordingFilesystem(), lifetime_s=3.0).create(1, b"n", 0o644, 0, CONTEXT)
    assert (handle.fh, made.st_ino, made.attr_timeout, made.entry_timeout) == (5, 7, 3.0, 3.0)
    assert handle.keep_cache


def test_options_of_the_connection():
    assert operations(None, writeback=True).enable_writeback_cache
    assert not operations(None, writeback=False).enable_writeback_cache
    assert not Operations.supports_dot_lookup


def test_readiness_is_passed_on():
    told = []
    Operations(None, FuseOptions(), lambda: told.append(1)).init()
    assert told == [1]


class Directory(RecordingFilesystem):
    """A directory of `count` entries with every second cookie missing, and the lookups it has given out."""

    def __init__(self, count, fails_after=None):
        super().__init__()
        self.entries = [
            DirectoryEntry(name=b"n%d" % i, cookie=3 + 2 * i, attributes=attributes(100 + i)) for i in range(count)
        ]
        self.given = {}
        self.fails_after = fails_after

    async def lookup(self, caller, parent, name):
        assert (caller.uid, parent, name) == (0, 7, b"..")
        self.given[42] = self.given.get(42, 0) + 1
        return attributes(42)

    async def readdir(self, handle, after_cookie, limit):
        assert handle == 5
        if self.fails_after is not None and after_cookie >= self.fails_after:
            raise FsError(errno.EIO)
        found = [e for e in self.entries if e.cookie > after_cookie][:limit]
        for e in found:
            self.given[e.attributes.inode] = self.given.get(e.attributes.inode, 0) + 1
        return found

    def forget(self, inode, count):
        self.given[inode] -= count


class Kernel:
    """Reads a directory through replies of `room` entries, counting what it was told of."""

    def __init__(self, monkeypatch, served, room):
        self.served, self.room, self.left = served, room, 0
        self.names, self.cookies, self.told = [], [], {}
        monkeypatch.setattr(module, "readdir_reply", self.reply)

    def reply(self, token, name, attributes, cookie):
        if not self.left:
            return False
        self.left -= 1
        self.names.append(name)
        self.cookies.append(cookie)
        if name not in (b".", b".."):
            self.told[attributes.st_ino] = self.told.get(attributes.st_ino, 0) + 1
        else:
            assert stat.S_ISDIR(attributes.st_mode)
            assert attributes.st_ino
        return True

    async def request(self, cookie):
        self.left = self.room
        before = len(self.names)
        await self.served.readdir(5, cookie, EmptyToken())
        return len(self.names) > before

    async def read_all(self):
        while await self.request(self.cookies[-1] if self.cookies else 0):
            pass


def without_zeros(counts):
    return {inode: count for inode, count in counts.items() if count}


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 200])
@pytest.mark.parametrize("room", [1, 2, 3, 7, 40, 1000])
async def test_a_directory_is_read_whole_whatever_the_reply_holds(monkeypatch, count, room):
    fs = Directory(count)
    kernel = Kernel(monkeypatch, operations(fs), room)
    await kernel.read_all()
    assert kernel.names == [b".", b"..", *(e.name for e in fs.entries)]
    assert kernel.cookies == [1, 2, *(e.cookie for e in fs.entries)]
    # References that the kernel knows of are exactly those that the filesystem counts.
    assert without_zeros(fs.given) == kernel.told


async def test_reading_resumes_behind_any_cookie(monkeypatch):
    fs = Directory(5)
    kernel = Kernel(monkeypatch, operations(fs), 100)
    await kernel.request(1)
    assert kernel.names[:2] == [b"..", b"n0"]
    kernel.names.clear()
    await kernel.request(fs.entries[2].cookie)
    assert kernel.names == [b"n3", b"n4"]


async def test_the_dots_are_the_directory_itself_and_its_parent(monkeypatch):
    fs = Directory(0)
    served = Operations(fs, FuseOptions(), lambda: None)
    seen = {}
    monkeypatch.setattr(module, "readdir_reply", lambda token, name, a, cookie: seen.setdefault(name, a.st_ino) or True)
    fs.opendir = RecordingFilesystem().opendir
    assert await served.opendir(7, CONTEXT) == 5
    await served.readdir(5, 0, EmptyToken())
    assert seen == {b".": 7, b"..": 42}
    assert fs.given == {42: 0}
    await served.releasedir(5)
    assert served._directories == {}


async def test_later_replies_ask_for_about_as_much_as_fits(monkeypatch):
    fs = Directory(300)
    asked = []
    inner = fs.readdir

    async def counting(handle, after_cookie, limit):
        asked.append(limit)
        return await inner(handle, after_cookie, limit)

    fs.readdir = counting
    kernel = Kernel(monkeypatch, operations(fs), 10)
    await kernel.read_all()
    assert sum(asked) < 400


async def test_an_error_after_some_entries_waits_for_the_next_request(monkeypatch):
    fs = Directory(40, fails_after=3 + 2 * 31)
    kernel = Kernel(monkeypatch, operations(fs), 100)
    await kernel.request(0)
    assert kernel.names[-1] == b"n31"
    assert without_zeros(fs.given) == kernel.told
    with pytest.raises(FUSEError) as caught:
        await kernel.request(kernel.cookies[-1])
    assert caught.value.errno == errno.EIO
    assert without_zeros(fs.given) == kernel.told


async def test_an_entry_that_cannot_be_shown_takes_no_reference(monkeypatch, caplog):
    fs = Directory(3)
    broken = DirectoryEntry(name=b"n1", cookie=5, attributes=attributes(-1))
    fs.entries[1] = broken
    kernel = Kernel(monkeypatch, operations(fs), 100)
    await kernel.request(2)
    assert kernel.names == [b"n0"]
    assert without_zeros(fs.given) == kernel.told
    with pytest.raises(FUSEError) as caught:
        await kernel.request(3)
    assert caught.value.errno == errno.EIO
    assert "readdir failed with OverflowError" in caplog.text
