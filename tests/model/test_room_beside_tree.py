"""The room and the plain tree, driven side by side by random calls, with remounts, lost caches and crashes.

Without a kernel: as root only, and with the verbs that pyfuse3 does not wire.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from tests.model.fs_checker import assert_consistent
from tests.model.fs_model import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tests.model.machine import modes, names, offsets, outcome, picks
from tests.model.machine_contents import OPENED_MAX, ContentsMachine, Opened
from tests.model.on_room import RoomCalls, finish
from tests.model.on_tree import TreeCalls
from tests.unit.fs.harness import evict_all
from zerofs.units import CHUNK_SIZE as C

allocations = st.sampled_from([0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE])


class RoomBesideTree(ContentsMachine):
    """See the module."""

    xattrs = (*ContentsMachine.xattrs, b"security.capability")

    def __init__(self) -> None:
        super().__init__()
        self.ours = RoomCalls()
        self.theirs = TreeCalls()
        self.nameless: list[Opened] = []
        self.sync()

    # what pyfuse3 does not wire

    @precondition(lambda self: self.opened)
    @rule(pick=picks, mode=allocations, offset=offsets, size=offsets)
    def allocate(self, pick: int, mode: int, offset: int, size: int) -> None:
        self.through("allocate", self.at(pick), mode, offset, size)

    @precondition(lambda self: len(self.opened) < OPENED_MAX)
    @rule(pick=picks, mode=modes)
    def tmpfile(self, pick: int, mode: int) -> None:
        if opened := self.keep("tmpfile", self.directory(pick), mode):
            self.opened.append(opened)
            self.nameless.append(opened)

    @precondition(lambda self: self.nameless)
    @rule(pick=picks, other=picks, name=names)
    def name_a_tmpfile(self, pick: int, other: int, name: bytes) -> None:
        opened = self.nameless[pick % len(self.nameless)]
        if opened in self.opened:
            self.through("link_opened", opened, self.place(other, name))

    @precondition(lambda self: self.opened)
    @rule(pick=picks, offset=offsets)
    def seek(self, pick: int, offset: int) -> None:
        """Where holes are is the room's own; that they are zeros is not."""
        opened = self.at(pick)
        content = self.theirs.handle(opened.theirs).content
        hole = outcome(self.ours.seek, (opened.ours, offset, True))
        begin = outcome(self.ours.seek, (opened.ours, offset, False))
        if offset >= len(content):
            assert hole == begin == "ENXIO"
            return
        assert hole == len(content) or not any(content[hole : (hole // C + 1) * C])
        assert not any(content[offset : len(content) if begin == "ENXIO" else begin])

    @rule(count=st.integers(1, 7))
    def readdir_in_other_steps(self, count: int) -> None:
        self.ours.page = count

    # the life of the mount

    @rule()
    def sync(self) -> None:
        finish(self.ours.fs.sync())
        self.theirs.save()

    @rule()
    def evict(self) -> None:
        evict_all(self.ours.fs)

    @rule()
    def remount(self) -> None:
        self.close_all()
        finish(self.ours.fs.close())
        assert_consistent(self.ours.engine.durable_rows())
        self.theirs.save()
        self.ours.mount()

    @rule()
    def crash(self) -> None:
        """Nothing of what was open is closed. The tree goes back to the last sync."""
        self.opened.clear()
        self.ours.engine = self.ours.engine.crash()
        assert_consistent(self.ours.engine.rows(), orphans_allowed=True)
        self.theirs.crash()
        self.ours.mount()
        self.compare_everything()

    @invariant()
    def the_rows_are_consistent(self) -> None:
        self.ours.engine.check_live_values()
        assert_consistent(self.ours.engine.rows(), orphans_allowed=True)

    def teardown(self) -> None:
        self.compare_everything()
        self.remount()
        self.compare_everything()


TestRoomBesideTree = RoomBesideTree.TestCase
TestRoomBesideTree.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
