"""The filesystem and the plain tree, driven side by side by random operations, with remounts, evictions and crashes."""

import os
import stat
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.model.fs_checker import assert_consistent
from tests.model.fs_model import DIRECTORY, FIFO, REGULAR, SYMLINK, Node, Refused, Tree
from tests.unit.fs.harness import ROOT_CALLER, SteppingWorld, evict_all, fails
from zerofs.errors import FsError
from zerofs.fs.attributes import AttributeChanges, Attributes
from zerofs.fs.filesystem import Filesystem
from zerofs.fs.format.keys import MAX_COOKIE
from zerofs.fs.ops.space import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from zerofs.fs.options import FilesystemOptions
from zerofs.testing.engine import FakeEngine
from zerofs.units import CHUNK_SIZE

T = TypeVar("T")
C = CHUNK_SIZE

names = st.sampled_from([b"a", b"b", b"c", b"\xff\xfe", b"x" * 255])
picks = st.integers(0, 10**6)
modes = st.sampled_from([0o644, 0o755, 0o600, 0o6755, 0o2745, 0o1777, 0])
edges = [0, 1, 100, 1023, 1024, 1025, 4096, C - 1, C, C + 1, 2 * C, 3 * C - 5, 5 * C]
offsets = st.one_of(st.sampled_from(edges), st.integers(0, 5 * C))
data = st.builds(
    lambda size, fill: bytes([fill]) * size,
    st.one_of(st.sampled_from([1, 10, 1024, 1025, 4096, C, 2 * C]), st.integers(1, 3 * C)),
    st.sampled_from([0, 1, 97, 98, 255]),
)
xattr_names = st.sampled_from([b"user.a", b"user.bb", b"security.capability", b"trusted.t"])


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that finds everything in memory: it must not suspend."""
    try:
        work.send(None)
    except StopIteration as result:
        return result.value
    work.close()
    raise AssertionError("it suspended although everything was in memory")


class FilesystemMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = FakeEngine()
        self.world = SteppingWorld()
        self.options = FilesystemOptions(inode_cache_count=3, dentry_cache_count=3)
        self.fs = finish(Filesystem.mount(self.engine, self.options, self.world))
        self.tree = Tree()
        self.saved = self.tree.snapshot()
        finish(self.fs.sync())
        self.handles: list[tuple[int, Node]] = []
        self.unnamed: dict[int, tuple[int, bool]] = {}
        """Inodes of handles on files that never had a name, and whether they may get one."""

    # helpers

    def both(self, model: Any, work: Coroutine[Any, Any, T]) -> T | None:
        """Do both; they must agree on the errno, if there is one."""
        try:
            model()
        except Refused as refused:
            with fails(str(refused)):
                finish(work)
            return None
        return finish(work)

    def find(self, path: tuple[bytes, ...]) -> Attributes:
        found = finish(self.fs.getattr(1))
        for name in path:
            found = finish(self.fs.lookup(ROOT_CALLER, found.inode, name))
            self.fs.forget(found.inode, 1)
        return found

    def directory(self, pick: int) -> tuple[Node, int]:
        choices = self.tree.directories()
        path = choices[pick % len(choices)]
        return self.tree.at(path), self.find(path).inode

    def path(self, pick: int) -> tuple[bytes, ...]:
        choices = self.tree.paths()
        return choices[pick % len(choices)]

    def anything(self, pick: int) -> tuple[Node, int]:
        path = self.path(pick)
        return self.tree.at(path), self.find(path).inode

    def forget(self, made: Attributes | None) -> None:
        if made is not None:
            self.fs.forget(made.inode, 1)

    # making

    @initialize(sizes=st.lists(offsets, min_size=2, max_size=4))
    def begin(self, sizes: list[int]) -> None:
        """A tree to start with."""
        self.make(0, b"a", 0o755, "directory")
        self.make(1, b"b", 0o2755, "directory")
        for index, size in enumerate(sizes):
            self.write_file(index, b"c", 0o644, bytes([65 + index]) * size)
        self.sync()

    @rule(pick=picks, name=names, mode=modes, what=st.sampled_from(["directory", "directory", "fifo", "symlink"]))
    def make(self, pick: int, name: bytes, mode: int, what: str) -> None:
        node, inode = self.directory(pick)
        leads_to = name * 10
        if what == "directory":
            made, work = Node(DIRECTORY, mode), self.fs.mkdir(ROOT_CALLER, inode, name, mode)
        elif what == "fifo":
            made, work = Node(FIFO, mode), self.fs.mknod(ROOT_CALLER, inode, name, stat.S_IFIFO | mode, 0)
        else:
            made = Node(SYMLINK, 0o777, target=leads_to)
            work = self.fs.symlink(ROOT_CALLER, inode, name, leads_to)
        self.forget(self.both(lambda: self.tree.make(node, name, made), work))

    @rule(pick=picks, name=names, mode=modes, content=data)
    def write_file(self, pick: int, name: bytes, mode: int, content: bytes) -> None:
        node, inode = self.directory(pick)
        made = Node(REGULAR, mode, content=bytearray(content))
        work = self.fs.create(ROOT_CALLER, inode, name, mode, os.O_RDWR | os.O_EXCL)
        opened = self.both(lambda: self.tree.make(node, name, made), work)
        if opened is not None:
            handle, attributes = opened
            finish(self.fs.write(handle, 0, content))
            finish(self.fs.release(handle))
            self.forget(attributes)

    @rule(pick=picks, other=picks, name=names)
    def link(self, pick: int, other: int, name: bytes) -> None:
        node, inode = self.anything(pick)
        directory, parent = self.directory(other)
        work = self.fs.link(ROOT_CALLER, inode, parent, name)
        self.forget(self.both(lambda: self.tree.link(node, directory, name), work))

    # taking away, moving

    @rule(pick=picks, wants_directory=st.booleans())
    def remove(self, pick: int, wants_directory: bool) -> None:
        path = self.path(pick)
        if path:
            node, parent = self.tree.at(path[:-1]), self.find(path[:-1]).inode
            remove = self.fs.rmdir if wants_directory else self.fs.unlink
            work = remove(ROOT_CALLER, parent, path[-1])
            self.both(lambda: self.tree.remove(node, path[-1], wants_directory=wants_directory), work)

    @rule(pick=picks, other=picks, new_name=names, flags=st.sampled_from([0, 0, 0, 1, 2]))
    def rename(self, pick: int, other: int, new_name: bytes, flags: int) -> None:
        path = self.path(pick)
        if path:
            old, old_inode = self.tree.at(path[:-1]), self.find(path[:-1]).inode
            new, new_inode = self.directory(other)
            work = self.fs.rename(ROOT_CALLER, old_inode, path[-1], new_inode, new_name, flags)
            self.both(lambda: self.tree.rename(old, path[-1], new, new_name, flags), work)

    # attributes

    @rule(pick=picks, size=offsets)
    def truncate(self, pick: int, size: int) -> None:
        node, inode = self.anything(pick)
        work = self.fs.setattr(ROOT_CALLER, inode, AttributeChanges(size_bytes=size))
        self.both(lambda: self.tree.resize(node, size), work)

    @rule(pick=picks, mode=modes, uid=st.integers(0, 3), gid=st.integers(0, 3), what=st.sampled_from(["mode", "owner"]))
    def chmod_or_chown(self, pick: int, mode: int, uid: int, gid: int, what: str) -> None:
        node, inode = self.anything(pick)
        if what == "mode":
            node.mode = mode
            changes = AttributeChanges(mode=mode)
        else:
            self.tree.chown(node, uid, gid)
            changes = AttributeChanges(uid=uid, gid=gid)
        finish(self.fs.setattr(ROOT_CALLER, inode, changes))

    @rule(pick=picks, atime_ns=st.integers(-(2**63), 2**63 - 1), mtime_ns=st.integers(-(2**63), 2**63 - 1))
    def utimes(self, pick: int, atime_ns: int, mtime_ns: int) -> None:
        node, inode = self.anything(pick)
        node.mtime_ns = mtime_ns
        found = finish(self.fs.setattr(ROOT_CALLER, inode, AttributeChanges(atime_ns=atime_ns, mtime_ns=mtime_ns)))
        assert (found.atime_ns, found.mtime_ns) == (atime_ns, mtime_ns)

    @rule(pick=picks, name=xattr_names, value=st.binary(max_size=20))
    def setxattr(self, pick: int, name: bytes, value: bytes) -> None:
        node, inode = self.anything(pick)

        def model() -> None:
            if name.startswith(b"user.") and node.kind not in (REGULAR, DIRECTORY):
                raise Refused("EPERM")
            node.xattrs[name] = value

        self.both(model, self.fs.setxattr(ROOT_CALLER, inode, name, value))

    @rule(pick=picks, name=xattr_names)
    def removexattr(self, pick: int, name: bytes) -> None:
        node, inode = self.anything(pick)

        def model() -> None:
            if name.startswith(b"user.") and node.kind not in (REGULAR, DIRECTORY):
                raise Refused("EPERM")
            if name not in node.xattrs:
                raise Refused("ENODATA")
            del node.xattrs[name]

        self.both(model, self.fs.removexattr(ROOT_CALLER, inode, name))

    # contents

    def regular(self, pick: int) -> tuple[Node, int] | None:
        choices = [path for path in self.tree.paths() if self.tree.at(path).kind == REGULAR]
        if not choices:
            return None
        path = choices[pick % len(choices)]
        return self.tree.at(path), self.find(path).inode

    @rule(pick=picks, writes=st.lists(st.tuples(offsets, data), min_size=1, max_size=3))
    def open_and_write(self, pick: int, writes: list[tuple[int, bytes]]) -> None:
        if found := self.regular(pick):
            node, inode = found
            handle = finish(self.fs.open(ROOT_CALLER, inode, os.O_WRONLY))
            for offset, content in writes:
                self.tree.write(node, offset, content)
                finish(self.fs.write(handle, offset, content))
            assert finish(self.fs.read(handle, 0, len(node.content) + 1)) == node.content
            finish(self.fs.release(handle))

    @rule(pick=picks, size=offsets)
    def truncate_a_file(self, pick: int, size: int) -> None:
        if found := self.regular(pick):
            node, inode = found
            self.tree.resize(node, size)
            finish(self.fs.setattr(ROOT_CALLER, inode, AttributeChanges(size_bytes=size)))

    # open files

    @precondition(lambda self: len(self.handles) < 4)
    @rule(pick=picks)
    def open(self, pick: int) -> None:
        if found := self.regular(pick):
            node, inode = found
            self.handles.append((finish(self.fs.open(ROOT_CALLER, inode, os.O_RDWR)), node))

    @precondition(lambda self: self.handles)
    @rule(pick=picks, offset=offsets, content=data)
    def write(self, pick: int, offset: int, content: bytes) -> None:
        handle, node = self.handles[pick % len(self.handles)]
        self.tree.write(node, offset, content)
        assert finish(self.fs.write(handle, offset, content)) == len(content)

    @precondition(lambda self: self.handles)
    @rule(
        pick=picks,
        mode=st.sampled_from([PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE]),
        offset=offsets,
        size=offsets,
    )
    def zero(self, pick: int, mode: int, offset: int, size: int) -> None:
        handle, node = self.handles[pick % len(self.handles)]
        if size:
            self.tree.zero(node, offset, size, keep_size=bool(mode & KEEP_SIZE))
            finish(self.fs.allocate(handle, mode, offset, size))

    @precondition(lambda self: self.handles)
    @rule(pick=picks, mode=st.sampled_from([0, KEEP_SIZE]), offset=offsets, size=offsets)
    def allocate(self, pick: int, mode: int, offset: int, size: int) -> None:
        handle, node = self.handles[pick % len(self.handles)]
        if size:
            if not mode:
                self.tree.write(node, offset + size, b"")
            node.mtime_ns = None
            finish(self.fs.allocate(handle, mode, offset, size))

    @precondition(lambda self: self.handles)
    @rule(pick=picks, other=picks, start=offsets, place=offsets, size=offsets)
    def copy(self, pick: int, other: int, start: int, place: int, size: int) -> None:
        (source, origin), (target, node) = (self.handles[it % len(self.handles)] for it in (pick, other))
        before = bytes(node.content)
        try:
            whole = self.tree.copy(origin, start, node, place, size) if size else 0
        except Refused as refused:
            with fails(str(refused)):
                finish(self.fs.copy_range(source, start, target, place, size))
            return
        done = 0
        while got := finish(self.fs.copy_range(source, start + done, target, place + done, whole - done)):
            done += got
        assert done == whole, before

    @precondition(lambda self: len(self.handles) < 4)
    @rule(pick=picks, mode=modes, flags=st.sampled_from([os.O_RDWR, os.O_RDWR | os.O_EXCL]))
    def tmpfile(self, pick: int, mode: int, flags: int) -> None:
        directory, parent = self.directory(pick)
        node = Node(REGULAR, mode, nlink=0)
        handle, made = finish(self.fs.tmpfile(ROOT_CALLER, parent, mode, flags))
        self.forget(made)
        node.gid = directory.gid if directory.mode & stat.S_ISGID else 0
        self.handles.append((handle, node))
        self.unnamed[handle] = (made.inode, not flags & os.O_EXCL)

    @precondition(lambda self: self.unnamed)
    @rule(pick=picks, other=picks, name=names)
    def name_a_tmpfile(self, pick: int, other: int, name: bytes) -> None:
        handle = sorted(self.unnamed)[pick % len(self.unnamed)]
        inode, linkable = self.unnamed[handle]
        node = next(node for opened, node in self.handles if opened == handle)
        directory, parent = self.directory(other)

        def model() -> None:
            if name not in directory.entries and not linkable:
                raise Refused("ENOENT")
            self.tree.link(node, directory, name)

        made = self.both(model, self.fs.link(ROOT_CALLER, inode, parent, name))
        if made is not None:
            self.forget(made)
            del self.unnamed[handle]

    @precondition(lambda self: self.handles)
    @rule(pick=picks, offset=offsets, size=offsets)
    def read(self, pick: int, offset: int, size: int) -> None:
        handle, node = self.handles[pick % len(self.handles)]
        assert finish(self.fs.read(handle, offset, size)) == node.content[offset : offset + size]

    @precondition(lambda self: self.handles)
    @rule(pick=picks, offset=offsets)
    def seek(self, pick: int, offset: int) -> None:
        handle, node = self.handles[pick % len(self.handles)]
        if offset < len(node.content):
            hole = finish(self.fs.seek_hole(handle, offset))
            assert hole == len(node.content) or not any(node.content[hole : (hole // C + 1) * C])
            try:
                begin = finish(self.fs.seek_data(handle, offset))
            except FsError:
                begin = len(node.content)
            assert not any(node.content[offset:begin])

    @precondition(lambda self: self.handles)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        handle, _ = self.handles.pop(pick % len(self.handles))
        self.unnamed.pop(handle, None)
        finish(self.fs.flush(handle))
        finish(self.fs.release(handle))

    # looking

    @rule(pick=picks, limit=st.integers(1, 7))
    def readdir(self, pick: int, limit: int) -> None:
        node, inode = self.directory(pick)
        handle = finish(self.fs.opendir(ROOT_CALLER, inode))
        found: dict[bytes, Attributes] = {}
        cookie = 0
        while entries := finish(self.fs.readdir(handle, cookie, limit)):
            for entry in entries:
                assert cookie < entry.cookie <= MAX_COOKIE
                assert entry.name not in found
                cookie = entry.cookie
                found[entry.name] = entry.attributes
                self.fs.forget(entry.attributes.inode, 1)
        finish(self.fs.releasedir(handle))
        assert found.keys() == node.entries.keys()
        for name, attributes in found.items():
            assert stat.S_IFMT(attributes.mode) == node.entries[name].kind

    @rule(pick=picks, name=names)
    def lookup(self, pick: int, name: bytes) -> None:
        node, inode = self.directory(pick)
        work = self.fs.lookup(ROOT_CALLER, inode, name)
        self.forget(self.both(lambda: self.tree.at((*self.path_of(node), name)), work))

    def path_of(self, node: Node) -> tuple[bytes, ...]:
        return next(path for path in self.tree.directories() if self.tree.at(path) is node)

    @rule()
    def compare_everything(self) -> None:
        inodes: dict[int, Node] = {}
        for path in self.tree.paths():
            node, found = self.tree.at(path), self.find(path)
            assert inodes.setdefault(found.inode, node) is node
            self.compare(node, found)
        assert len({id(node) for node in inodes.values()}) == len(inodes)

    def compare(self, node: Node, found: Attributes) -> None:
        assert found.mode == node.kind | node.mode
        assert (found.uid, found.gid, found.nlink) == (node.uid, node.gid, node.nlink)
        if node.mtime_ns is not None:
            assert found.mtime_ns == node.mtime_ns
        assert finish(self.fs.listxattr(ROOT_CALLER, found.inode)) == sorted(node.xattrs)
        for name, value in node.xattrs.items():
            assert finish(self.fs.getxattr(ROOT_CALLER, found.inode, name)) == value
        if node.kind == SYMLINK:
            assert finish(self.fs.readlink(found.inode)) == node.target
        elif node.kind == REGULAR:
            assert found.size_bytes == len(node.content)
            handle = finish(self.fs.open(ROOT_CALLER, found.inode, os.O_RDONLY))
            assert finish(self.fs.read(handle, 0, len(node.content) + 1)) == node.content
            finish(self.fs.release(handle))
        elif node.kind == DIRECTORY:
            assert finish(self.fs.lookup(ROOT_CALLER, found.inode, b".")) == found
            self.fs.forget(found.inode, 1)

    # the life of the mount

    @rule(event=st.sampled_from(["sync", "sync", "evict", "remount", "crash"]))
    def event(self, event: str) -> None:
        getattr(self, event)()

    def sync(self) -> None:
        finish(self.fs.sync())
        self.saved = self.tree.snapshot()

    def evict(self) -> None:
        evict_all(self.fs)

    def remount(self) -> None:
        finish(self.fs.close())
        assert_consistent(self.engine.durable_rows())
        self.handles.clear()
        self.unnamed.clear()
        self.saved = self.tree.snapshot()
        self.fs = finish(Filesystem.mount(self.engine, self.options, self.world))

    def crash(self) -> None:
        self.engine = self.engine.crash()
        assert_consistent(self.engine.rows(), orphans_allowed=True)
        self.handles.clear()
        self.unnamed.clear()
        self.tree = self.saved.snapshot()
        self.fs = finish(Filesystem.mount(self.engine, self.options, self.world))
        self.compare_everything()

    @invariant()
    def the_rows_are_consistent(self) -> None:
        self.engine.check_live_values()
        assert_consistent(self.engine.rows(), orphans_allowed=True)

    def teardown(self) -> None:
        self.compare_everything()
        self.remount()
        self.compare_everything()


TestFilesystem = FilesystemMachine.TestCase
TestFilesystem.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
