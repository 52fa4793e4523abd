"""Following the writer: a reader looks for a newer state at regular intervals, and shows each one as a whole.

    look  ─▶ the next WAL object, until one is absent ─▶ a newer manifest? ─▶ read it, and on from its mark
    show  ─▶ memtable and trees are exchanged together, in one instant; reads under way keep the state they began with

Two requests when nothing is new: GET of the next WAL object, then LIST of what is above the manifest, in this order.
The id that comes next may have been written and collected in between, but not without a newer manifest; so when there
is none after the GET, what is shown is what was in the store when the look began. Nothing is ever written.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from zerofs.errors import CorruptionError, MissingObjectError, UnavailableError, ZerofsError
from zerofs.lsm.commits import Commits
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.names import MANIFEST_PREFIX, manifest_name, parse_manifest_name
from zerofs.lsm.lookup import Lookup
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.replay import Replay, read_wal
from zerofs.lsm.signal import Signal
from zerofs.lsm.storage import Storage

log = logging.getLogger(__name__)

MANIFESTS_MAX = 16
"""Newer manifests that one look goes through; with a writer that is as fast as this, the next look goes on."""

SHOW_TRIES = 4
"""How often a state is looked for anew because it was collected before it could be shown."""


@dataclass(slots=True, frozen=True, kw_only=True)
class State:
    """One state of the volume, which never changes: a version, and the rows above it."""

    manifest: Manifest
    replay: Replay
    commits: Commits
    lookup: Lookup


Accept = Callable[[State], Awaitable[None]]
"""Shows a newer state. Raises MissingObjectError when that is not whole any more."""


class Follower:
    """What a reader shows, and how it comes by the next. `run` serves it."""

    def __init__(
        self, storage: Storage, manifests: ManifestStore, options: LsmOptions, state: State, as_of_ns: int
    ) -> None:
        self._storage = storage
        self._manifests = manifests
        self._options = options
        self.state = state
        """What is shown."""
        self._as_of_ns = as_of_ns
        self._next_look_s = -1.0
        self._is_running = False
        self._wanted = trio.Event()
        self._begun = 0
        self._ended = 0
        self._look_ended = Signal()

    @property
    def age_ns(self) -> int:
        """How old what is shown is, at most: everything that was in the store before is in it."""
        return self._storage.world.monotonic_ns() - self._as_of_ns

    @property
    def interval_s(self) -> float:
        """From one look to the next."""
        return self._options.poll_interval_s

    @property
    def holds_s(self) -> float:
        """How long what is shown stays, if nobody asks for more: until the next look. 0 while one is under way."""
        return max(0.0, self._next_look_s - trio.current_time())

    async def renew(self) -> None:
        """Return after a look that began after this call. At once, when nobody serves."""
        enough = self._begun + 1
        self._wanted.set()
        while self._is_running and self._ended < enough:
            await self._look_ended.wait()

    async def run(self, accept: Accept) -> None:
        """Look once per interval, and when somebody asks for it, until cancelled. No failure ends it."""
        self._is_running = True
        self._next_look_s = trio.current_time() + self.interval_s
        try:
            while True:
                with trio.move_on_at(self._next_look_s):
                    await self._wanted.wait()
                self._wanted = trio.Event()
                await self._look_and_show(accept)
        finally:
            self._is_running = False
            self._look_ended.notify()

    async def _look_and_show(self, accept: Accept) -> None:
        self._begun += 1
        self._next_look_s = -1.0
        try:
            await self._show_newest(accept)
            self._note("")
        except ZerofsError as error:
            # What is shown stays: old, and whole.
            level = logging.WARNING if isinstance(error, UnavailableError) else logging.ERROR
            self._note(str(error), level)
        finally:
            self._next_look_s = trio.current_time() + self.interval_s
            self._ended += 1
            self._look_ended.notify()

    def _note(self, trouble: str, level: int = logging.INFO) -> None:
        outage = self._storage.outage
        if trouble and not outage.has_failed:
            log.log(level, "what the writer stored cannot be followed: %s; an older state is shown", trouble)
        elif outage.has_failed and not trouble:
            log.info("the writer is followed again")
        if trouble:
            outage.failed(trouble, trio.current_time())
        else:
            outage.ended()

    async def _show_newest(self, accept: Accept) -> None:
        for attempt in range(SHOW_TRIES):
            began_ns = self._storage.world.monotonic_ns()
            try:
                with self._storage.opening():
                    newer, is_newest = await self._look()
                if newer is not None:
                    await accept(newer)
            except MissingObjectError:
                # Collected under our hands: then there is a newer manifest, which does not need it.
                if attempt == SHOW_TRIES - 1:
                    raise
                continue
            if is_newest:
                self._as_of_ns = began_ns
            self._storage.metrics.add("looks", found="newer" if newer is not None else "nothing")
            return

    async def _look(self) -> tuple[State | None, bool]:
        """The newest state, None when it is the one that is shown; and whether there was certainly no newer one."""
        manifest, replay = self.state.manifest, self.state.replay
        is_newest = False
        for _ in range(MANIFESTS_MAX):
            failure: CorruptionError | None = None
            try:
                replay = await self._read_on(manifest, replay)
            except CorruptionError as error:
                failure = error  # of a newer epoch, or of another timeline: a newer manifest may explain it
            newest = await self._newer(manifest)
            if newest is None:
                if failure is not None:
                    raise failure
                is_newest = True
                break
            if (newest.wal_mark, newest.wal_mark_put_id) != (manifest.wal_mark, manifest.wal_mark_put_id):
                replay = Replay(newest)
            manifest = newest
        else:
            replay = await self._read_on(manifest, replay)
        if manifest is self.state.manifest and replay is self.state.replay:
            return None, is_newest
        return state_of(self._storage, self._options, manifest, replay), is_newest

    async def _read_on(self, manifest: Manifest, replay: Replay) -> Replay:
        """The replay with every WAL object that follows; itself when there is none."""
        advanced = replay
        while True:
            try:
                wal_object = await read_wal(self._storage, manifest, advanced.last_id + 1)
            except MissingObjectError:
                return advanced
            if advanced is replay:
                advanced = replay.copy()
            advanced.add(wal_object)

    async def _newer(self, manifest: Manifest) -> Manifest | None:
        """The newest manifest, None when it is the given one. One LIST then."""
        name = manifest_name(manifest.manifest_id)
        if not await self._storage.list_ids(MANIFEST_PREFIX, parse_manifest_name, name):
            return None
        return await self._manifests.latest()


def state_of(storage: Storage, options: LsmOptions, manifest: Manifest, replay: Replay) -> State:
    """A state, ready to be read."""
    commits = Commits(None, replay.memtable, replay.seqno, options)
    return State(manifest=manifest, replay=replay, commits=commits, lookup=Lookup(storage, commits, lambda: manifest))
