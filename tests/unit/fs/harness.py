"""A mounted filesystem over the fake engine, with paths instead of inode numbers: what tests of the room start from."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.model.fs_checker import assert_consistent
from zerofs.errors import FsError
from zerofs.fs.access import Caller
from zerofs.fs.attributes import AttributeChanges, Attributes
from zerofs.fs.filesystem import ROOT_INODE, Filesystem
from zerofs.fs.options import FilesystemOptions
from zerofs.fs.recent import Recent
from zerofs.testing.engine import FakeEngine
from zerofs.units import CHUNK_SIZE, NS_PER_S
from zerofs.world import World

ROOT_CALLER = Caller(uid=0, gid=0)
ALICE = Caller(uid=1001, gid=2001, groups=lambda: frozenset({3000}))
BOB = Caller(uid=1002, gid=2002, groups=lambda: frozenset({3000}))
CAROL = Caller(uid=1003, gid=2003)

C = CHUNK_SIZE


class SteppingWorld(World):
    """A clock that moves one microsecond whenever somebody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.time_ns = 1_700_000_000 * NS_PER_S

    def now_ns(self) -> int:
        self.time_ns += 1000
        return self.time_ns


class Mounted:
    """One mount, and the engine and world that survive it."""

    def __init__(self, engine: FakeEngine, world: SteppingWorld, fs: Filesystem, options: FilesystemOptions) -> None:
        self.engine = engine
        self.world = world
        self.fs = fs
        self.options = options
        self.checked = True
        """Whether the fixture may check and close at the end; False for a test that damages something."""

    async def remount(self, *, crash: bool = False, **changes: object) -> None:
        """Close (or crash) and mount again."""
        if crash:
            self.engine = self.engine.crash()
        else:
            await self.fs.close()
        await self.mount(**changes)

    async def mount(self, **changes: object) -> None:
        """Mount again without closing."""
        values = {name: getattr(self.options, name) for name in FilesystemOptions.__slots__}
        self.options = FilesystemOptions(**{**values, **changes})
        self.fs = await Filesystem.mount(self.engine, self.options, self.world)

    def check(self) -> None:
        """Consistent in memory, and nothing changed without a commit."""
        self.engine.check_live_values()
        assert_consistent(self.engine.rows(), orphans_allowed=True)

    async def look(self, path: str, caller: Caller = ROOT_CALLER) -> Attributes:
        """The attributes at a path; leaves no lookup counted."""
        found = await self.fs.getattr(ROOT_INODE)
        for name in path.encode().split(b"/"):
            if name:
                found = await self.fs.lookup(caller, found.inode, name)
                self.fs.forget(found.inode, 1)
        return found

    async def at(self, path: str) -> tuple[int, bytes]:
        """(parent inode, last name) of a path."""
        head, _, tail = path.rpartition("/")
        return (await self.look(head)).inode, tail.encode()

    async def mkdir(self, path: str, mode: int = 0o755, caller: Caller = ROOT_CALLER) -> int:
        """A directory; its inode."""
        made = await self.fs.mkdir(caller, *await self.at(path), mode)
        self.fs.forget(made.inode, 1)
        return made.inode

    async def symlink(self, path: str, target: bytes, caller: Caller = ROOT_CALLER) -> int:
        made = await self.fs.symlink(caller, *await self.at(path), target)
        self.fs.forget(made.inode, 1)
        return made.inode

    async def mknod(self, path: str, mode: int, rdev: int = 0, caller: Caller = ROOT_CALLER) -> int:
        made = await self.fs.mknod(caller, *await self.at(path), mode, rdev)
        self.fs.forget(made.inode, 1)
        return made.inode

    async def write_file(self, path: str, data: bytes = b"", mode: int = 0o644, caller: Caller = ROOT_CALLER) -> int:
        """A file with contents, closed; its inode."""
        handle, made = await self.fs.create(caller, *await self.at(path), mode, os.O_RDWR)
        if data:
            await self.fs.write(handle, 0, data)
        await self.fs.release(handle)
        self.fs.forget(made.inode, 1)
        return made.inode

    async def open(self, path: str, flags: int = os.O_RDWR, caller: Caller = ROOT_CALLER) -> int:
        return await self.fs.open(caller, (await self.look(path)).inode, flags)

    async def read_file(self, path: str) -> bytes:
        handle = await self.open(path, os.O_RDONLY)
        data = await self.fs.read(handle, 0, (await self.look(path)).size_bytes + 100)
        await self.fs.release(handle)
        return data

    async def list(self, path: str, limit: int = 1000) -> dict[bytes, int]:
        """Names and inodes of a directory, in readdir's order; leaves no lookup counted."""
        handle = await self.fs.opendir(ROOT_CALLER, (await self.look(path)).inode)
        found: dict[bytes, int] = {}
        cookie = 0
        while entries := await self.fs.readdir(handle, cookie, limit):
            for entry in entries:
                assert entry.name not in found
                found[entry.name] = entry.attributes.inode
                self.fs.forget(entry.attributes.inode, 1)
            cookie = entries[-1].cookie
        await self.fs.releasedir(handle)
        return found

    async def change(self, path: str, caller: Caller = ROOT_CALLER, **changes: object) -> Attributes:
        """A setattr."""
        inode = (await self.look(path)).inode
        return await self.fs.setattr(caller, inode, AttributeChanges(**changes))

    async def unlink(self, path: str, caller: Caller = ROOT_CALLER) -> None:
        await self.fs.unlink(caller, *await self.at(path))

    async def rmdir(self, path: str, caller: Caller = ROOT_CALLER) -> None:
        await self.fs.rmdir(caller, *await self.at(path))

    async def rename(self, old: str, new: str, flags: int = 0, caller: Caller = ROOT_CALLER) -> None:
        await self.fs.rename(caller, *await self.at(old), *await self.at(new), flags)

    async def link(self, old: str, new: str, caller: Caller = ROOT_CALLER) -> Attributes:
        made = await self.fs.link(caller, (await self.look(old)).inode, *await self.at(new))
        self.fs.forget(made.inode, 1)
        return made


async def new_mount(**options: object) -> Mounted:
    """An empty filesystem, mounted."""
    engine = FakeEngine()
    world = SteppingWorld()
    chosen = FilesystemOptions(**options)
    return Mounted(engine, world, await Filesystem.mount(engine, chosen, world), chosen)


def evict_all(fs: Filesystem) -> None:
    """Drop what is cached and unused: names, and inodes without handles."""
    forget_all(fs._ctx.inodes._recent)
    forget_all(fs._ctx.inodes._rows)
    fs._ctx.dentries._listings.clear()
    forget_all(fs._ctx.dentries._cache)


def forget_all(recent: Recent) -> None:
    recent._young, recent._old = {}, {}


@contextmanager
def fails(*names: str) -> Iterator[None]:
    """The block raises FsError with one of these errnos, given by name."""
    with pytest.raises(FsError) as caught:
        yield
    expected = {getattr(errno, name) for name in names}
    assert caught.value.errno in expected, f"{caught.value!r} instead of {names}"
