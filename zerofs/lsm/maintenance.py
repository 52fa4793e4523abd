"""What a volume does for itself beside the requests: compact, repack, collect; then, when nobody writes, tighten once.

One task, one step at a time, each of which may fail without harm: whatever it is, it is tried again later. A volume at
rest that was tightened makes no requests and wakes nobody up (decisions 0008 to 0010).
"""

import logging
import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial

import trio

from zerofs.errors import CorruptionError, FencedError, UnavailableError, ZerofsError
from zerofs.lsm.collector import Collector, Doomed
from zerofs.lsm.commits import Commits
from zerofs.lsm.compactor import Compactor
from zerofs.lsm.format.foreign import last_foreign_epoch
from zerofs.lsm.format.manifest import Manifest
from zerofs.lsm.format.names import SstId, sst_name
from zerofs.lsm.format.trees import TREES
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.registers import KnownRegisters, RegisterView
from zerofs.lsm.repacker import PASS_SIZE_BYTES, Repacker, choose_victims
from zerofs.lsm.signal import Signal
from zerofs.lsm.storage import Storage
from zerofs.lsm.syncer import Syncer
from zerofs.lsm.versions import Versions

log = logging.getLogger(__name__)

REPACK_SHARE = 0.5
"""While writing, a chunk SST of which less is live is repacked."""

TIGHT_SHARE = 0.77
"""The same for the tightening pass: then a bucket is at most 1.30 times the frames that are live."""

TIGHTEN_AFTER_S = 30.0
"""Without a commit for so long, the volume is tightened."""

COLLECT_EVERY_S = 60.0
"""Passes of the collector while writing, at most one in so many seconds."""

PAUSE_S = (1.0, 60.0)
"""After a step that failed: shortest and longest pause."""


class Maintenance:
    """Owned by one engine. `run` serves it; the steps may also be asked for one by one."""

    def __init__(
        self,
        *,
        storage: Storage,
        options: LsmOptions,
        commits: Commits,
        versions: Versions,
        compactor: Compactor,
        repacker: Repacker,
        collector: Collector,
        known: KnownRegisters,
        syncer: Syncer,
        progress: Signal,
    ) -> None:
        self._storage = storage
        self._options = options
        self._commits = commits
        self._versions = versions
        self._compactor = compactor
        self._repacker = repacker
        self._collector = collector
        self._syncer = syncer
        self._progress = progress
        self._known = known
        self._repacked: set[SstId] = set()
        """Victims whose old pointer rows were not all merged away yet."""
        self._tight_at = commits.seqno
        """Nothing to do until something is committed above this."""
        self._collected_s = -COLLECT_EVERY_S
        self._collection_wanted = False
        self._failing = False
        self._judged: Manifest | None = None
        """The version that `_too_many_runs` is about."""
        self._too_many_runs = False
        self._turn = trio.Lock()
        self._life = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def is_behind(self) -> bool:
        """Whether some tree has so many runs that writers should wait; not while merging does not work."""
        current = self._versions.current
        if current is not self._judged:  # asked for at every change
            self._judged = current
            self._too_many_runs = any(len(tree.runs) >= self._options.runs_max for tree in current.trees)
        return self._too_many_runs and not self._failing

    async def run(self) -> None:
        """Serve until stopped, cancelled or fenced."""
        try:
            with self._life:
                await self._serve()
        except FencedError as error:
            await self._syncer.fail(error)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Stop serving; on return nothing is under way, or the store has not answered for the time of a close."""
        with trio.move_on_after(self._options.close_timeout_s):
            await self._versions.between_edits(self._life.cancel)
            await self._ended.wait()

    async def _serve(self) -> None:
        pause_s = PAUSE_S[0]
        while True:
            try:
                idle = not await self._wait_for_work()
                if self._syncer.failure is not None:
                    return  # whoever cannot store anything has nothing to tidy up
                if not idle:
                    await self.keep_up()
                else:
                    await self.tighten()
                pause_s, self._failing = PAUSE_S[0], False
            except FencedError:
                raise
            except ZerofsError as error:
                self._failing = True
                self._progress.notify()
                level = logging.INFO if isinstance(error, UnavailableError) else logging.ERROR
                log.log(level, "maintenance of the volume was interrupted: %s; it is tried again", error)
                self._storage.metrics.add("maintenance_failures")
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S[1])

    async def _wait_for_work(self) -> bool:
        """True for a new version or a wanted collection, False for something to tighten while nobody writes."""
        version = self._versions.current
        while True:
            seqno = self._commits.seqno
            if self._collection_wanted or self.is_behind:  # the latter also at the start: writers wait for it
                return True
            if seqno == self._tight_at:
                await self._progress.wait()
                continue
            with trio.move_on_after(TIGHTEN_AFTER_S):
                await self._versions.changed.wait()
            if self._versions.current is not version:
                return True
            if self._commits.seqno == seqno != self._tight_at:
                return False

    async def keep_up(self) -> None:
        """After a new version: merge until nothing needs it, repack what is half dead, collect if it is time."""
        async with self._turn:
            await self._merge_what_needs_it()
            await self._repack(REPACK_SHARE, self._known.by_sst.keys() - self._repacked)
            if self._collection_wanted or trio.current_time() - self._collected_s >= COLLECT_EVERY_S:
                await self._collect()

    async def tighten(self) -> None:
        """Bring the volume into its smallest shape (decision 0009, point 6); ends early when somebody writes."""
        async with self._turn:
            written = self._written_by_others
            await self._merge_everything()
            await self._known.learn(RegisterView(self._storage, self._versions.current))
            left = set(self._known.by_sst)
            while self._written_by_others == written:
                # Each object once: what comes of a repack is as tight as it gets.
                victims = await self._repack(TIGHT_SHARE, left)
                if not victims:
                    break
                left.difference_update(victims)
                await self._merge_everything()
            await self._collect()
            if self._written_by_others == written:
                self._tight_at = self._commits.seqno
                self._storage.metrics.add("tightenings")

    async def detach(self, progress: Callable[[str, int, int], None]) -> None:
        """Make everything that a clone's trees refer to this volume's own (decision 0016, point 7).

        Afterwards the foreign table has no keys; its entries remember the pins. Takes up what an earlier call left.
        `progress`: what is done, how much of it was, how much there is. Raises CorruptionError, UnavailableError,
        FencedError; then the volume is a clone still, and whole.
        """
        async with self._turn:
            last = last_foreign_epoch(self._versions.current.foreign)
            if last:
                await self._take_over_chunks(last, progress)
                progress("merging metadata", 0, 0)
                await self._merge_everything(rewrite_up_to=last)
                await self._versions.edit(partial(self._without_keys, last))
            await self._collect()

    async def _take_over_chunks(self, last: int, progress: Callable[[str, int, int], None]) -> None:
        """Move what is live in chunk SSTs of epochs up to `last` into SSTs of this volume."""
        await self._syncer.flush()
        await self._known.learn(RegisterView(self._storage, self._versions.current))
        foreign = {sst: register for sst, register in self._known.by_sst.items() if sst[0] <= last}
        done, total = 0, sum(register.live_bytes for register in foreign.values())
        while foreign:
            progress("moving bytes", done, total)
            victims = choose_victims(foreign, live_share=math.inf, budget_bytes=PASS_SIZE_BYTES)
            if not victims:
                raise CorruptionError(f"{sst_name(min(foreign))}: its register says that it has no frames")
            await self._repacker.repack(victims)
            await self._syncer.sync()  # what has moved need not be moved again
            await self._merge_what_needs_it()  # each pass leaves runs, and there may be thousands of passes
            for sst, register in victims:
                del foreign[sst]
                done += register.live_bytes

    async def _without_keys(self, last: int, current: Manifest) -> Manifest:
        """The version with a foreign table that nothing is read by. Raises CorruptionError if something would be."""
        in_trees = {sst.sst for tree in current.trees for run in tree.runs for sst in run.ssts}
        registered = {sst async for sst, _ in RegisterView(self._storage, current).all()}
        left = sorted(sst_name(sst) for sst in in_trees | registered if sst[0] <= last)
        if left:
            raise CorruptionError(
                f"{left[0]}, and {len(left) - 1} more objects of the source, are still referred to: run `zerofs fsck`"
            )
        return replace(
            current,
            foreign=tuple(source.without_keys() for source in current.foreign),
            # No WAL object of this volume is of such an epoch.
            tokens={epoch: token for epoch, token in current.tokens.items() if epoch > last},
        )

    async def collect(self, *, dry_run: bool = False) -> Doomed:
        """One pass of the collector, now."""
        async with self._turn:
            return await self._collect(dry_run=dry_run)

    def want_collection(self) -> None:
        """Let a pass of the collector come soon: something became garbage that no commit tells of."""
        self._collection_wanted = True
        self._progress.notify()

    @property
    def _written_by_others(self) -> int:
        """How many commits were not the repacker's."""
        return self._commits.seqno - self._repacker.commits

    async def _collect(self, *, dry_run: bool = False) -> Doomed:
        self._collected_s = trio.current_time()
        doomed = await self._collector.collect(dry_run=dry_run)
        self._collection_wanted = self._collection_wanted and dry_run
        return doomed

    async def _merge_what_needs_it(self) -> None:
        while await self._compactor.compact_one():
            self._progress.notify()  # writers may be waiting for it

    async def _merge_everything(self, *, rewrite_up_to: int = 0) -> None:
        await self._syncer.flush()
        for prefix in TREES:
            await self._compactor.compact_whole(prefix, rewrite_up_to=rewrite_up_to)
        # What counts in a register now is referred to by a row that is not hidden.
        self._repacked.clear()

    async def _repack(self, live_share: float, among: AbstractSet[SstId]) -> list[SstId]:
        """One pass over the poorest chunk SSTs; which they were."""
        # To copy what a clone's sources hold would free nothing there (0016).
        foreign = last_foreign_epoch(self._versions.current.foreign)
        known = {sst: register for sst, register in self._known.by_sst.items() if sst in among and sst[0] > foreign}
        victims = choose_victims(known, live_share=live_share, budget_bytes=PASS_SIZE_BYTES)
        if victims:
            self._repacked.update(sst for sst, _ in victims)
            await self._repacker.repack(victims)
        return [sst for sst, _ in victims]
