"""Requests as calls of `zerofs.fs`: one thin coroutine for each opcode, and no decision about files in any.

Every one is the same three steps: decode, call, encode. What it raises is answered by the server.
"""

import errno
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from zerofs.errors import FsError
from zerofs.frontend.fuse.callers import Callers
from zerofs.frontend.fuse.native import protocol as p
from zerofs.frontend.fuse.native import replies, requests
from zerofs.frontend.fuse.native.protocol import Opcode
from zerofs.frontend.fuse.native.requests import Header, fields
from zerofs.frontend.fuse.options import FuseOptions
from zerofs.fs.access import SYSTEM, Caller
from zerofs.fs.attributes import Attributes, DirectoryEntry
from zerofs.fs.chunks import Data
from zerofs.fs.filesystem import Filesystem

Answer = bytes | Sequence[Data] | None
"""What follows the header of the reply, whole or in pieces; None for a request that is not answered."""

Call = Callable[[Header, memoryview], Coroutine[Any, Any, Answer]]

_DOT_COOKIE = 1
_DOT_DOT_COOKIE = 2
_ENTRIES_AT_ONCE = 32
_FURTHER_ENTRIES = 16
_ENTRIES_MAX = 256
"""One reader with a large buffer must not make the next one fetch thousands for nothing."""


class Calls:
    """What each opcode does. One object serves one mount."""

    def __init__(self, fs: Filesystem, options: FuseOptions, *, writeback: bool) -> None:
        self._fs = fs
        self._writeback = writeback
        self._lifetime = options.lifetime or (lambda: options.lifetime_s)
        self._opening = p.OPEN_KEEP_CACHE if options.lifetime is None else 0
        self._callers = Callers()
        self._entries_at_once = _ENTRIES_AT_ONCE
        served = _SERVED if writeback else (*_SERVED, Opcode.LSEEK)
        self.table: dict[int, Call] = {opcode: getattr(self, opcode.name.lower()) for opcode in served}

    def _caller(self, header: Header, umask: int = 0, privileges_go: int = 0) -> Caller:
        caller = self._callers(header.uid, header.gid, header.pid, umask)
        # Flagged for everybody without CAP_FSETID; it makes a difference for such a root alone.
        return caller if header.uid or not privileges_go else replace(caller, without_fsetid=True)

    def _entry(self, found: Attributes) -> bytes:
        return replies.entry(found, self._lifetime())

    # names

    async def lookup(self, header: Header, body: memoryview) -> Answer:
        """An absent name is an answer, too, and the kernel remembers it."""
        try:
            return self._entry(await self._fs.lookup(self._caller(header), header.node, requests.name(body)))
        except FsError as error:
            if error.errno != errno.ENOENT:
                raise
            return replies.absent(self._lifetime())

    async def forget(self, header: Header, body: memoryview) -> Answer:
        """Take back lookups."""
        (count,) = fields(p.NODE, body)
        self._fs.forget(header.node, count)
        return None

    async def batch_forget(self, header: Header, body: memoryview) -> Answer:
        """Take back lookups of many."""
        for node, count in requests.forgotten(body):
            self._fs.forget(node, count)
        return None

    async def mknod(self, header: Header, body: memoryview) -> Answer:
        """Make a file, fifo, socket or device."""
        mode, rdev, umask, _ = fields(p.MKNOD, body)
        name = requests.name(body, p.MKNOD.size)
        return self._entry(await self._fs.mknod(self._caller(header, umask), header.node, name, mode, rdev))

    async def mkdir(self, header: Header, body: memoryview) -> Answer:
        """Make a directory."""
        mode, umask = fields(p.MKDIR, body)
        name = requests.name(body, p.MKDIR.size)
        made = await self._fs.mkdir(self._caller(header, umask), header.node, name, stat.S_IMODE(mode))
        return self._entry(made)

    async def symlink(self, header: Header, body: memoryview) -> Answer:
        """Make a symbolic link."""
        name, target = requests.two_names(body)
        return self._entry(await self._fs.symlink(self._caller(header), header.node, name, target))

    async def link(self, header: Header, body: memoryview) -> Answer:
        """Give an inode another name."""
        (inode,) = fields(p.NODE, body)
        name = requests.name(body, p.NODE.size)
        return self._entry(await self._fs.link(self._caller(header), inode, header.node, name))

    async def readlink(self, header: Header, body: memoryview) -> Answer:
        """Where a symbolic link leads."""
        del body
        return await self._fs.readlink(header.node)

    async def unlink(self, header: Header, body: memoryview) -> Answer:
        """Take away a name of anything but a directory."""
        await self._fs.unlink(self._caller(header), header.node, requests.name(body))
        return b""

    async def rmdir(self, header: Header, body: memoryview) -> Answer:
        """Take away an empty directory."""
        await self._fs.rmdir(self._caller(header), header.node, requests.name(body))
        return b""

    async def rename(self, header: Header, body: memoryview) -> Answer:
        """Move a name."""
        (target,) = fields(p.NODE, body)
        old, new = requests.two_names(body, p.NODE.size)
        await self._fs.rename(self._caller(header), header.node, old, target, new, 0)
        return b""

    async def rename2(self, header: Header, body: memoryview) -> Answer:
        """Move a name, with the flags of renameat2(2)."""
        target, flags, _ = fields(p.RENAME2, body)
        old, new = requests.two_names(body, p.RENAME2.size)
        await self._fs.rename(self._caller(header), header.node, old, target, new, flags)
        return b""

    # attributes

    async def getattr(self, header: Header, body: memoryview) -> Answer:
        """What stat(2) shows."""
        del body
        return replies.attributes(await self._fs.getattr(header.node), self._lifetime())

    async def statx(self, header: Header, body: memoryview) -> Answer:
        """The same, with the time of birth."""
        del body
        return replies.extended_attributes(await self._fs.getattr(header.node), self._lifetime())

    async def setattr(self, header: Header, body: memoryview) -> Answer:
        """Change attributes, all of one request together."""
        changes, handle, privileges_go = requests.attribute_changes(body)
        caller = self._caller(header, privileges_go=privileges_go)
        changed = await self._fs.setattr(caller, header.node, changes, handle)
        return replies.attributes(changed, self._lifetime())

    async def access(self, header: Header, body: memoryview) -> Answer:
        """Whether the caller may."""
        mask, _ = fields(p.ACCESS, body)
        await self._fs.access(self._caller(header), header.node, mask)
        return b""

    async def setxattr(self, header: Header, body: memoryview) -> Answer:
        """Set an extended attribute."""
        name, value, flags = requests.value(body)
        await self._fs.setxattr(self._caller(header), header.node, name, value, flags)
        return b""

    async def getxattr(self, header: Header, body: memoryview) -> Answer:
        """The value of an extended attribute, or its size."""
        room, _ = fields(p.GETXATTR, body)
        name = requests.name(body, p.GETXATTR.size)
        return _within(room, await self._fs.getxattr(self._caller(header), header.node, name))

    async def listxattr(self, header: Header, body: memoryview) -> Answer:
        """The names of the extended attributes, or their size."""
        room, _ = fields(p.GETXATTR, body)
        names = await self._fs.listxattr(self._caller(header), header.node)
        return _within(room, b"".join(name + b"\0" for name in names))

    async def removexattr(self, header: Header, body: memoryview) -> Answer:
        """Remove an extended attribute."""
        await self._fs.removexattr(self._caller(header), header.node, requests.name(body))
        return b""

    async def statfs(self, header: Header, body: memoryview) -> Answer:
        """Size and room."""
        del header, body
        return replies.statistics(await self._fs.statfs())

    # files

    async def create(self, header: Header, body: memoryview) -> Answer:
        """Make a regular file and open it."""
        flags, mode, umask, extra = fields(p.CREATE, body)
        handle, made = await self._fs.create(
            self._caller(header, umask, extra & p.OPEN_KILL_SUIDGID),
            header.node,
            requests.name(body, p.CREATE.size),
            stat.S_IMODE(mode),
            flags & ~os.O_APPEND,
            self._writeback,
        )
        return self._entry(made) + replies.opened(handle, self._opening)

    async def tmpfile(self, header: Header, body: memoryview) -> Answer:
        """Open a new file without a name."""
        flags, mode, umask, _ = fields(p.CREATE, body)
        caller = self._caller(header, umask)
        handle, made = await self._fs.tmpfile(caller, header.node, stat.S_IMODE(mode), flags & ~os.O_APPEND)
        return self._entry(made) + replies.opened(handle, self._opening)

    async def open(self, header: Header, body: memoryview) -> Answer:
        """Open a file. The kernel resolves O_APPEND itself."""
        flags, extra = fields(p.OPEN, body)
        caller = self._caller(header, privileges_go=extra & p.OPEN_KILL_SUIDGID)
        handle = await self._fs.open(caller, header.node, flags & ~os.O_APPEND, self._writeback)
        return replies.opened(handle, self._opening)

    async def read(self, header: Header, body: memoryview) -> Answer:
        """Read; with the writeback cache also from a handle that was opened for writing only."""
        del header
        handle, offset, size, *_ = fields(p.READ, body)
        return await self._fs.read_pieces(handle, offset, size)

    async def write(self, header: Header, body: memoryview) -> Answer:
        """Write. What comes out of the writeback cache leaves the times alone: the kernel sets those itself."""
        del header
        handle, offset, size, flags, *_ = fields(p.WRITE, body)
        data = requests.data(body, p.WRITE.size, size)
        keep_times = self._writeback and bool(flags & p.WRITE_CACHE)
        privileges_go = bool(flags & p.WRITE_KILL_SUIDGID)
        return replies.written(await self._fs.write(handle, offset, data, keep_times, privileges_go))

    async def fallocate(self, header: Header, body: memoryview) -> Answer:
        """See that there is room, punch a hole, make zeros."""
        del header
        handle, offset, size, mode, _ = fields(p.FALLOCATE, body)
        await self._fs.allocate(handle, mode, offset, size)
        return b""

    async def copy_file_range(self, header: Header, body: memoryview) -> Answer:
        """Copy between two open files; often less than was asked for."""
        del header
        source, start, _, target, place, size, _ = fields(p.COPY_FILE_RANGE, body)
        return replies.written(await self._fs.copy_range(source, start, target, place, size))

    async def lseek(self, header: Header, body: memoryview) -> Answer:
        """Where the next data are, or the next hole."""
        del header
        handle, offset, whence, _ = fields(p.LSEEK, body)
        if whence == os.SEEK_DATA:
            return replies.offset(await self._fs.seek_data(handle, offset))
        if whence == os.SEEK_HOLE:
            return replies.offset(await self._fs.seek_hole(handle, offset))
        raise FsError(errno.EINVAL)

    async def flush(self, header: Header, body: memoryview) -> Answer:
        """A descriptor is closed: its close(2) returns what this says."""
        del header
        handle, *_ = fields(p.FLUSH, body)
        await self._fs.flush(handle)
        return b""

    async def fsync(self, header: Header, body: memoryview) -> Answer:
        """Return when the file is durable."""
        del header
        handle, flags, _ = fields(p.FSYNC, body)
        await self._fs.fsync(handle, bool(flags & p.FSYNC_DATA))
        return b""

    async def release(self, header: Header, body: memoryview) -> Answer:
        """The last descriptor of an open file is gone."""
        del header
        handle, *_ = fields(p.RELEASE, body)
        await self._fs.release(handle)
        return b""

    # directories

    async def opendir(self, header: Header, body: memoryview) -> Answer:
        """Open a directory."""
        del body
        return replies.opened(await self._fs.opendir(self._caller(header), header.node))

    async def readdir(self, header: Header, body: memoryview) -> Answer:
        """Names only."""
        handle, cookie, room, *_ = fields(p.READ, body)
        return await self._list(header.node, handle, cookie, room, plus=False)

    async def readdirplus(self, header: Header, body: memoryview) -> Answer:
        """Names and attributes: each is a lookup that the kernel counts."""
        handle, cookie, room, *_ = fields(p.READ, body)
        return await self._list(header.node, handle, cookie, room, plus=True)

    async def releasedir(self, header: Header, body: memoryview) -> Answer:
        """Close a directory."""
        del header
        handle, *_ = fields(p.RELEASE, body)
        await self._fs.releasedir(handle)
        return b""

    async def fsyncdir(self, header: Header, body: memoryview) -> Answer:
        """Return when the directory is durable."""
        del header
        handle, flags, _ = fields(p.FSYNC, body)
        await self._fs.fsyncdir(handle, bool(flags & p.FSYNC_DATA))
        return b""

    async def _list(self, directory: int, handle: int, cookie: int, room: int, plus: bool) -> Answer:
        """Records from a cookie on, as many as there is room for. An error behind the first is left to the next."""
        records: list[bytes] = []
        counted: list[int] = []
        start = cookie
        try:
            if cookie < _DOT_DOT_COOKIE:
                room = await self._add_dots(records, directory, cookie, room, plus)
                cookie = _DOT_DOT_COOKIE
            limit = self._entries_at_once
            while room > 0:
                entries = await self._fs.readdir(handle, cookie, limit)
                sent, room = self._add(records, entries, room, plus)
                if plus:
                    counted.extend(entry.attributes.inode for entry in entries[:sent])
                if sent < len(entries):
                    # One more than fits tells that the reply is full.
                    self._entries_at_once = min(len(records) + 1, _ENTRIES_MAX)
                    break
                if len(entries) < limit:
                    break
                cookie = entries[-1].cookie
                limit = _FURTHER_ENTRIES
        except BaseException as error:
            if records and cookie != start and isinstance(error, Exception):
                return b"".join(records)
            for inode in counted:  # the kernel will not learn of them
                self._fs.forget(inode, 1)
            raise
        return b"".join(records)

    def _add(self, records: list[bytes], entries: Sequence[DirectoryEntry], room: int, plus: bool) -> tuple[int, int]:
        """Add what fits: how many went in, and the room that is left. The lookups of the others are taken back."""
        sent = 0
        lifetime = replies.seconds_and_ns(self._lifetime())
        for found in entries:
            if plus:
                record = replies.entry_plus(found, lifetime)
            else:
                attributes = found.attributes
                record = replies.directory_entry(found.name, attributes.inode, found.cookie, attributes.mode)
            if len(record) > room:
                break
            records.append(record)
            room -= len(record)
            sent += 1
        for unsent in entries[sent if plus else 0 :]:
            self._fs.forget(unsent.attributes.inode, 1)
        return sent, room

    async def _add_dots(self, records: list[bytes], directory: int, cookie: int, room: int, plus: bool) -> int:
        """Add "." and ".." as far as the cookie has not passed them: the room that is left.

        The kernel counts no lookup of these.
        """
        encode = replies.plain_entry_plus if plus else replies.directory_entry
        parent = await self._fs.lookup(SYSTEM, directory, b"..")
        self._fs.forget(parent.inode, 1)
        for name, found, at in ((b".", directory, _DOT_COOKIE), (b"..", parent.inode, _DOT_DOT_COOKIE)):
            if cookie >= at:
                continue
            record = encode(name, found, at, stat.S_IFDIR)
            if len(record) > room:
                return 0
            records.append(record)
            room -= len(record)
        return room


def _within(room: int, found: bytes) -> bytes:
    """A value for a caller with a buffer of `room` bytes; its size for one who asks only that. Raises ERANGE."""
    if not room:
        return replies.size(len(found))
    if len(found) > room:
        raise FsError(errno.ERANGE)
    return found


_SERVED = (
    *(Opcode.LOOKUP, Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK),
    *(Opcode.READLINK, Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME, Opcode.RENAME2, Opcode.GETATTR, Opcode.STATX),
    *(Opcode.SETATTR, Opcode.ACCESS, Opcode.SETXATTR, Opcode.GETXATTR, Opcode.LISTXATTR, Opcode.REMOVEXATTR),
    *(Opcode.STATFS, Opcode.CREATE, Opcode.TMPFILE, Opcode.OPEN, Opcode.READ, Opcode.WRITE, Opcode.FALLOCATE),
    *(Opcode.COPY_FILE_RANGE, Opcode.FLUSH, Opcode.FSYNC, Opcode.RELEASE, Opcode.OPENDIR),
    *(Opcode.READDIR, Opcode.READDIRPLUS, Opcode.RELEASEDIR, Opcode.FSYNCDIR),
)
"""The others are answered with ENOSYS, which makes the kernel go on without them: locks, polling, block maps. Where the
kernel caches writes also LSEEK: it asks without writing back first, so what it holds would look like a hole."""
