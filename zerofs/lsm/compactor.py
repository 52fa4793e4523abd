"""Compaction as the writer sees it: choose, have it done, commit (decision 0008). The work itself is `compaction`."""

from collections.abc import Mapping
from dataclasses import replace

from zerofs.errors import CorruptionError
from zerofs.lsm.compaction.job import CompactionJob, CompactionResult, names_needed
from zerofs.lsm.compaction.picker import pick, pick_all, run_size
from zerofs.lsm.compaction.worker import Worker
from zerofs.lsm.format.manifest import Manifest, Run, Tree
from zerofs.lsm.format.names import SstId
from zerofs.lsm.format.trees import META_PREFIX, SPACE_PREFIX
from zerofs.lsm.names import SstNames
from zerofs.lsm.options import LsmOptions
from zerofs.lsm.registers import Changed, KnownRegisters, RegisterView
from zerofs.lsm.runs import RunWriter
from zerofs.lsm.storage import Storage
from zerofs.lsm.versions import Versions


class Compactor:
    """Owned by the one writer of the volume. One merge at a time."""

    def __init__(
        self,
        *,
        storage: Storage,
        versions: Versions,
        names: SstNames,
        options: LsmOptions,
        known: KnownRegisters,
        worker: Worker,
    ) -> None:
        self._storage = storage
        self._versions = versions
        self._names = names
        self._options = options
        self._known = known
        self._worker = worker
        self._runs = RunWriter(storage, names, options)

    async def compact_one(self) -> bool:
        """Merge what most needs it; False when nothing does.

        Raises FencedError, CorruptionError, UnavailableError, WorkerDiedError; nothing has changed then.
        """
        for tree in self._versions.current.trees:
            sizes = [run_size(run) for run in tree.runs]
            chosen = pick(sizes, keeps_frames=tree.prefix != META_PREFIX)
            if chosen is not None:
                await self._compact(tree, chosen)
                return True
        return False

    async def compact_whole(self, prefix: bytes, *, rewrite_up_to: int = 0) -> None:
        """Merge a whole tree into one run without deletes, unless it is one. Otherwise as `compact_one`.

        No SST of an epoch up to `rewrite_up_to` is left in it.
        """
        tree = self._versions.current.tree(prefix)
        chosen = pick_all(tree.runs, rewrite_up_to)
        if chosen is not None:
            await self._compact(tree, chosen, rewrite_up_to)

    async def _compact(self, tree: Tree, chosen: slice, rewrite_up_to: int = 0) -> None:
        versions, options = self._versions, self._options
        runs = tree.runs[chosen]
        minted = [self._names.mint() for _ in range(names_needed(runs, options.meta_sst_size_bytes))]
        job = CompactionJob(
            prefix=tree.prefix,
            runs=runs,
            drop_deletes=chosen.stop == len(tree.runs),
            tokens=versions.current.tokens,
            epoch=versions.current.epoch,
            token=versions.current.token,
            names=tuple(minted),
            target_size_bytes=options.meta_sst_size_bytes,
            block_size_bytes=options.block_size_bytes,
            foreign=tuple(source for source in versions.current.foreign if source.is_read),
            rewrite_up_to=rewrite_up_to,
        )
        changed: Changed = {}

        async def change(current: Manifest) -> Manifest:
            nonlocal changed
            merged = replace_runs(current.tree(tree.prefix), runs, result.run)
            after = current.with_trees(merged)
            rows, ranges, changed = await RegisterView(self._storage, current).changed(_less(result.dropped), {})
            if rows or ranges:
                registers = await self._runs.put(current.token, rows, ranges, minted)
                after = after.with_trees(after.tree(SPACE_PREFIX).with_newest(registers))
            return after

        try:
            result = await self._worker.compact(job)
        except BaseException:
            self._names.settle(minted)
            raise
        self._storage.world.reached("compact_after_outputs_before_manifest")
        await versions.edit(change, minted=minted, in_force=lambda _: self._known.note(changed))
        self._note(result)

    def _note(self, result: CompactionResult) -> None:
        metrics = self._storage.metrics
        metrics.add("compactions")
        metrics.add("compacted_bytes", sum(sst.size_bytes for sst in result.written))
        metrics.add("moved_ssts", result.moved)


def replace_runs(tree: Tree, before: tuple[Run, ...], after: Run | None) -> Tree:
    """The tree with the neighbouring runs `before` replaced by one, or by nothing.

    Runs may have been added since `before` was chosen, newer ones only. Raises CorruptionError when they are not there.
    """
    for start in range(len(tree.runs) - len(before) + 1):
        if tree.runs[start : start + len(before)] == before:
            merged = () if after is None else (after,)
            return replace(tree, runs=(*tree.runs[:start], *merged, *tree.runs[start + len(before) :]))
    raise CorruptionError(f"the runs that were merged are not in the tree {tree.prefix.decode()} any more")


def _less(dropped: Mapping[SstId, int]) -> dict[SstId, int]:
    return {sst: -size for sst, size in dropped.items()}
