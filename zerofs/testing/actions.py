"""What a simulated user does to a filesystem: each function is one change, by path. And the whole tree, read back."""

import contextlib
import os
from collections.abc import AsyncIterator

from zerofs.fs.access import Caller
from zerofs.fs.attributes import AttributeChanges
from zerofs.fs.filesystem import ROOT_INODE, Filesystem
from zerofs.testing.history import State

ROOT = Caller(uid=0, gid=0, pid=1, umask=0o022, groups=frozenset)

UNFINISHED = b"new"
"""The name of a file until it has its first contents."""


async def read_tree(fs: Filesystem) -> State:
    """The whole volume as the model sees it: a write that a crash cut in the middle has not begun."""
    found: State = {}

    async def walk(inode: int, prefix: bytes) -> None:
        handle = await fs.opendir(ROOT, inode)
        entries = await fs.readdir(handle, 2, 1000)
        await fs.releasedir(handle)
        for entry in entries:
            if entry.name == UNFINISHED:
                fs.forget(entry.attributes.inode, 1)
                continue
            path = prefix + entry.name
            if entry.attributes.mode & 0o170000 == 0o040000:
                found[path + b"/"] = b""
                await walk(entry.attributes.inode, path + b"/")
            else:
                opened = await fs.open(ROOT, entry.attributes.inode, os.O_RDONLY)
                found[path] = await fs.read(opened, 0, 1 << 30)
                await fs.release(opened)
            fs.forget(entry.attributes.inode, 1)

    await walk(ROOT_INODE, b"")
    return found


def join(directory: bytes, name: bytes) -> bytes:
    """The path of a name in a directory."""
    return directory + b"/" + name if directory else name


def parent_exists(state: State, path: bytes) -> bool:
    """Whether the directory of a path is there."""
    directory, slash, _ = path.rpartition(b"/")
    return not slash or directory + b"/" in state


@contextlib.asynccontextmanager
async def _parent(fs: Filesystem, path: bytes) -> AsyncIterator[tuple[int, bytes]]:
    directory, slash, name = path.rpartition(b"/")
    if not slash:
        yield ROOT_INODE, name
        return
    inode = (await fs.lookup(ROOT, ROOT_INODE, directory)).inode
    try:
        yield inode, name
    finally:
        fs.forget(inode, 1)


async def write(fs: Filesystem, path: bytes, offset: int, data: bytes, *, create: bool) -> None:
    """Create and write are two requests; to be one step of the model, a new file is written elsewhere and renamed."""
    async with _parent(fs, path) as (parent, name):
        place, target = (ROOT_INODE, UNFINISHED) if create else (parent, name)
        handle, attributes = await fs.create(ROOT, place, target, 0o644, os.O_RDWR | (os.O_TRUNC if create else 0))
        try:
            await fs.write(handle, offset, data)
            if create:
                await fs.rename(ROOT, place, target, parent, name, 0)
        finally:
            await fs.release(handle)
            fs.forget(attributes.inode, 1)


async def copy(fs: Filesystem, path: bytes, other: bytes, place: int, size: int) -> None:
    """Copy the beginning of a file into another one with one call, which can take that much."""
    handles = []
    try:
        for each, flags in ((path, os.O_RDONLY), (other, os.O_RDWR)):
            async with _parent(fs, each) as (parent, name):
                inode = (await fs.lookup(ROOT, parent, name)).inode
                fs.forget(inode, 1)
                handles.append(await fs.open(ROOT, inode, flags))
        copied = await fs.copy_range(handles[0], 0, handles[1], place, size)
        assert copied == size, f"{copied} of {size} bytes copied"
    finally:
        for handle in handles:
            await fs.release(handle)


async def truncate(fs: Filesystem, path: bytes, size: int) -> None:
    """Give a file another size."""
    async with _parent(fs, path) as (parent, name):
        inode = (await fs.lookup(ROOT, parent, name)).inode
        try:
            await fs.setattr(ROOT, inode, AttributeChanges(size_bytes=size), None)
        finally:
            fs.forget(inode, 1)


async def remove(fs: Filesystem, path: bytes) -> None:
    """Unlink a file."""
    async with _parent(fs, path) as (parent, name):
        await fs.unlink(ROOT, parent, name)


async def rename(fs: Filesystem, path: bytes, other: bytes) -> None:
    """Rename a file, over whatever is there."""
    async with _parent(fs, path) as (parent, name), _parent(fs, other) as (new_parent, new_name):
        await fs.rename(ROOT, parent, name, new_parent, new_name, 0)


async def mkdir(fs: Filesystem, name: bytes) -> None:
    """Make a directory in the root."""
    fs.forget((await fs.mkdir(ROOT, ROOT_INODE, name, 0o755)).inode, 1)


async def rmdir(fs: Filesystem, name: bytes) -> None:
    """Remove an empty directory of the root."""
    await fs.rmdir(ROOT, ROOT_INODE, name)
