"""The work itself: objects in, objects out (decision 0008, points 3 and 4). Decides nothing, deletes nothing.

Runs are read side by side in windows: every source has rows loaded, and the least of their last keys is the bound up
to which nothing is missing. A window is merged with dictionaries, a few thousand rows at a time, instead of row by row.
"""

import logging

import trio

from zerofs.lsm.compaction.hiding import merge_window
from zerofs.lsm.compaction.job import CompactionJob, CompactionResult
from zerofs.lsm.compaction.output import NO_RANGES, Output
from zerofs.lsm.compaction.plan import Cluster, Plan, make_plan
from zerofs.lsm.compaction.source import Reading, Source
from zerofs.lsm.format.names import SstId
from zerofs.lsm.format.register import referred_bytes
from zerofs.lsm.format.rows import DELETE, Row
from zerofs.lsm.storage import Storage

log = logging.getLogger(__name__)


async def compact(storage: Storage, job: CompactionJob) -> CompactionResult:
    """Merge the runs of a job into one.

    Reads each input once, by large ranges and past the caches; inputs that are moved are not read at all. Outputs are
    put under the job's names and sealed under the sealers' current generation. Holds, besides what `source` fetches,
    what `SstBuilder` holds of one output. A store that does not take outputs is waited for; cancelling leaves objects
    that nothing names. Raises CorruptionError naming the object, UnavailableError when an input cannot be read.
    """
    storage.origins.learn(job.foreign)
    reading = Reading(storage, job.tokens, len(job.runs))
    range_deletes = [
        (await reading.reader.index(run.ssts[0])).range_deletes if run.has_range_deletes else NO_RANGES
        for run in job.runs
    ]
    plan = make_plan(
        job.runs,
        range_deletes,
        job.target_size_bytes,
        drop_deletes=job.drop_deletes,
        rewrite_up_to=job.rewrite_up_to,
    )
    output = Output(storage, job, plan)
    dropped: dict[SstId, int] = {}
    for cluster in plan.clusters:
        if cluster.moved:
            await output.move(*cluster.ssts)
        else:
            await _merge(reading, cluster, plan, output, dropped, drop_deletes=job.drop_deletes)
    run, written = await output.finish()
    moved = sum(cluster.moved for cluster in plan.clusters)
    log.debug("merged %d runs of %s: %d SSTs written, %d moved", len(job.runs), job.prefix, len(written), moved)
    return CompactionResult(run=run, written=written, moved=moved, dropped=dropped)


async def _merge(
    reading: Reading, cluster: Cluster, plan: Plan, output: Output, dropped: dict[SstId, int], *, drop_deletes: bool
) -> None:
    sources = [Source(reading, ssts) for ssts in cluster.sources]
    while True:
        for source in sources:
            if not source.rows:
                await source.load()
        loaded = [source.rows[-1][0] for source in sources if source.rows]
        if not loaded:
            break
        bound = min(loaded)
        parts = [(hiding, source.take(bound)) for hiding, source in zip(plan.hiding, sources, strict=True)]
        kept, gone = merge_window(parts)
        for sst, size in referred_bytes(gone).items():
            dropped[sst] = dropped.get(sst, 0) + size
        await output.add(_without_deletes(kept) if drop_deletes else kept)
        await trio.lowlevel.checkpoint()
    await output.end_cluster()


def _without_deletes(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row[1] != DELETE]
