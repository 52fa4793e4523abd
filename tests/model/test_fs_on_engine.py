"""The filesystem over the real engine with tiny limits, against the plain tree: seeded, with remounts and lost caches.

The machine of `test_room_beside_tree` searches for wrong answers over the fake engine; this looks for what that hides:
values that come back from WAL objects, memtables, blocks and chunk SSTs instead of from a dictionary.
"""

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.model.fs_checker import assert_consistent, rows_of
from tests.model.fs_model import DIRECTORY, KEEP_SIZE, PUNCH_HOLE, REGULAR, SYMLINK, ZERO_RANGE, Node, Refused, Tree
from tests.unit.fs.harness import ROOT_CALLER, evict_all, fails
from tests.unit.lsm.kit import Bed, Crash
from zerofs.fs.attributes import AttributeChanges, Attributes
from zerofs.fs.filesystem import Filesystem
from zerofs.fs.options import FilesystemOptions
from zerofs.units import CHUNK_SIZE

C = CHUNK_SIZE
NAMES = [b"a", b"b", b"c", b"d", b"\xff" * 200]


class Driver:
    """One mount, driven at random beside the tree."""

    def __init__(self, fs: Filesystem, tree: Tree, rng: random.Random) -> None:
        self.fs = fs
        self.tree = tree
        self.rng = rng

    async def find(self, path: tuple[bytes, ...]) -> Attributes:
        found = await self.fs.getattr(1)
        for name in path:
            found = await self.fs.lookup(ROOT_CALLER, found.inode, name)
            self.fs.forget(found.inode, 1)
        return found

    def pick(self, kind: int | None = None) -> tuple[bytes, ...]:
        paths = [path for path in self.tree.paths() if kind is None or self.tree.at(path).kind == kind]
        return self.rng.choice(paths) if paths else ()

    async def both(self, model: Callable[[], object], work: Awaitable[object]) -> object:
        try:
            model()
        except Refused as refused:
            with fails(str(refused)):
                await work
            return None
        return await work

    async def step(self) -> None:
        rng = self.rng
        what = rng.choices(
            [
                "make",
                "write",
                "truncate",
                "zero",
                "copy",
                "rename",
                "remove",
                "link",
                "xattr",
                "read",
                "list",
                "durable",
            ],
            [10, 20, 6, 6, 6, 8, 4, 3, 4, 10, 4, 3],
        )[0]
        await getattr(self, what)()

    async def make(self) -> None:
        path, name, kind = self.pick(DIRECTORY), self.rng.choice(NAMES), self.rng.choice([DIRECTORY, REGULAR, SYMLINK])
        inode = (await self.find(path)).inode
        node = Node(kind, 0o777, target=b"target" if kind == SYMLINK else b"")
        if kind == DIRECTORY:
            work = self.fs.mkdir(ROOT_CALLER, inode, name, 0o777)
        elif kind == SYMLINK:
            work = self.fs.symlink(ROOT_CALLER, inode, name, b"target")
        else:
            work = self.fs.mknod(ROOT_CALLER, inode, name, 0o777, 0)
        made = await self.both(lambda: self.tree.make(self.tree.at(path), name, node), work)
        if isinstance(made, Attributes):
            self.fs.forget(made.inode, 1)

    def size(self) -> int:
        return self.rng.choice([1, 10, 1024, 1025, 4096, C - 1, C, C + 1, 3 * C, self.rng.randrange(1, 6 * C)])

    async def write(self) -> None:
        if path := self.pick(REGULAR):
            node = self.tree.at(path)
            handle = await self.fs.open(ROOT_CALLER, (await self.find(path)).inode, os.O_RDWR)
            for _ in range(self.rng.randrange(1, 4)):
                offset = self.rng.choice([0, len(node.content), self.size()])
                data = self.rng.choice([bytes, self.rng.randbytes])(min(self.size(), 2 * C))
                self.tree.write(node, offset, data)
                await self.fs.write(handle, offset, data)
            await self.fs.release(handle)

    async def truncate(self) -> None:
        if path := self.pick(REGULAR):
            size = self.rng.choice([0, self.size()])
            self.tree.resize(self.tree.at(path), size)
            await self.fs.setattr(ROOT_CALLER, (await self.find(path)).inode, AttributeChanges(size_bytes=size))

    async def zero(self) -> None:
        if path := self.pick(REGULAR):
            node, mode = self.tree.at(path), self.rng.choice([PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE])
            offset, size = self.rng.choice([0, self.size()]), self.size()
            handle = await self.fs.open(ROOT_CALLER, (await self.find(path)).inode, os.O_RDWR)
            self.tree.allocate(node, mode, offset, size)
            await self.fs.allocate(handle, mode, offset, size)
            await self.fs.release(handle)

    async def copy(self) -> None:
        path, other = self.pick(REGULAR), self.pick(REGULAR)
        if path and self.tree.at(path) is not self.tree.at(other):
            start, place = self.rng.choice([0, C, 2 * C, self.size()]), self.rng.choice([0, C, self.size()])
            source = await self.fs.open(ROOT_CALLER, (await self.find(path)).inode, os.O_RDONLY)
            target = await self.fs.open(ROOT_CALLER, (await self.find(other)).inode, os.O_WRONLY)
            whole, done = self.tree.copy(self.tree.at(path), start, self.tree.at(other), place, self.size()), 0
            while got := await self.fs.copy_range(source, start + done, target, place + done, whole - done):
                done += got
            assert done == whole
            await self.fs.release(source)
            await self.fs.release(target)

    async def rename(self) -> None:
        if path := self.pick():
            target, name, flags = self.pick(DIRECTORY), self.rng.choice(NAMES), self.rng.choice([0, 0, 1, 2])
            old, new = (await self.find(path[:-1])).inode, (await self.find(target)).inode
            await self.both(
                lambda: self.tree.rename(self.tree.at(path[:-1]), path[-1], self.tree.at(target), name, flags),
                self.fs.rename(ROOT_CALLER, old, path[-1], new, name, flags),
            )

    async def remove(self) -> None:
        if path := self.pick():
            parent = (await self.find(path[:-1])).inode
            is_directory = self.tree.at(path).kind == DIRECTORY
            work = (self.fs.rmdir if is_directory else self.fs.unlink)(ROOT_CALLER, parent, path[-1])
            node = self.tree.at(path[:-1])
            await self.both(lambda: self.tree.remove(node, path[-1], wants_directory=is_directory), work)

    async def link(self) -> None:
        path, parent, name = self.pick(), self.pick(DIRECTORY), self.rng.choice(NAMES)
        inode, directory = (await self.find(path)).inode, (await self.find(parent)).inode
        made = await self.both(
            lambda: self.tree.link(self.tree.at(path), self.tree.at(parent), name),
            self.fs.link(ROOT_CALLER, inode, directory, name),
        )
        if isinstance(made, Attributes):
            self.fs.forget(made.inode, 1)

    async def xattr(self) -> None:
        path = self.pick()
        name, value = self.rng.choice([b"trusted.a", b"trusted.b"]), self.rng.randbytes(self.rng.choice([0, 9, 5000]))
        self.tree.at(path).xattrs[name] = value
        await self.fs.setxattr(ROOT_CALLER, (await self.find(path)).inode, name, value)

    async def read(self) -> None:
        if path := self.pick(REGULAR):
            content = self.tree.at(path).content
            handle = await self.fs.open(ROOT_CALLER, (await self.find(path)).inode, os.O_RDONLY)
            offset, size = self.rng.randrange(len(content) + 10), self.size()
            assert await self.fs.read(handle, offset, size) == content[offset : offset + size]
            await self.fs.release(handle)

    async def list(self) -> None:
        path = self.pick(DIRECTORY)
        handle = await self.fs.opendir(ROOT_CALLER, (await self.find(path)).inode)
        names = []
        cookie = 0
        while entries := await self.fs.readdir(handle, cookie, 3):
            cookie = entries[-1].cookie
            for entry in entries:
                names.append(entry.name)
                self.fs.forget(entry.attributes.inode, 1)
        await self.fs.releasedir(handle)
        assert sorted(names) == sorted(self.tree.at(path).entries)

    async def durable(self) -> None:
        how = self.rng.choice(["sync", "flush", "evict"])
        if how == "evict":
            evict_all(self.fs)
        else:
            await (self.fs.sync() if how == "sync" else self.fs.flush_all())

    async def compare(self) -> None:
        for path in self.tree.paths():
            node, found = self.tree.at(path), await self.find(path)
            assert (found.mode, found.nlink) == (node.kind | node.mode, node.nlink)
            assert await self.fs.listxattr(ROOT_CALLER, found.inode) == sorted(node.xattrs)
            for name, value in node.xattrs.items():
                assert await self.fs.getxattr(ROOT_CALLER, found.inode, name) == value
            if node.kind == REGULAR:
                handle = await self.fs.open(ROOT_CALLER, found.inode, os.O_RDONLY)
                assert await self.fs.read(handle, 0, len(node.content) + 1) == node.content
                await self.fs.release(handle)
            elif node.kind == SYMLINK:
                assert await self.fs.readlink(found.inode) == node.target


@pytest.mark.parametrize("seed", range(5))
async def test_the_real_engine_gives_back_what_the_tree_holds(tmp_path: Path, seed: int) -> None:
    bed = Bed(tmp_path)
    await bed.create()
    rng = random.Random(seed)
    tree = Tree()
    tree.root.mode = 0o755
    for life in range(5):
        crash = life % 2 == 1
        try:
            async with bed.open() as engine:
                fs = await Filesystem.mount(
                    engine, FilesystemOptions(inode_cache_count=4, dentry_cache_count=4), bed.world
                )
                driver = Driver(fs, tree, rng)
                await driver.compare()
                assert_consistent(await rows_of(engine))
                for _ in range(200):
                    await driver.step()
                await (fs.sync() if crash else fs.close())
                assert_consistent(await rows_of(engine), orphans_allowed=True)
                if crash:
                    raise Crash
        except Crash:
            pass
    counters = bed.metrics.snapshot()
    for counter in ("wal_objects", "flushes", "meta_ssts", "chunk_ssts", "block_fetches", "chunk_fetches"):
        assert counters.get(counter, 0) > 3, f"{counter}: the seed did not reach it"
