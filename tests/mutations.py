"""Remove a guard, and a test must fail: `make mutations`.

Each mutation takes one guard out of a copy of the tree and runs the tests that ought to notice. The table in
docs/durability.md is made of the same list. One that survives is a guard without a test, or a test that cannot fail.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LSM = "zerofs/lsm/"
UNIT = "tests/unit/lsm/"


@dataclass(frozen=True)
class Mutation:
    """One guard. `before` must stand in `file` exactly once."""

    guard: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "an object in flight or held is not collected",
        LSM + "collector.py",
        "current, protected = self._versions.current, self._names.protected()",
        "current, protected = self._versions.current, frozenset()",
        (UNIT + "test_collector.py",),
    ),
    Mutation(
        "a chunk SST is held until every memtable that may point to it is flushed",
        LSM + "names.py",
        "if newest <= generation]",
        "if newest <= generation + 1]",
        (UNIT + "test_collector.py",),
    ),
    Mutation(
        "what replayed WAL objects point to is held until the first flush",
        LSM + "opening.py",
        "SstNames(recovered.manifest.epoch, recovered.referred)",
        "SstNames(recovered.manifest.epoch)",
        (UNIT + "test_collector.py",),
    ),
    Mutation(
        "the store is listed before the version is looked at",
        LSM + "collector.py",
        "current, protected = self._versions.current, self._names.protected()\n",
        "current, protected = self._versions.current, self._names.protected()\n        listing = await self._list()\n",
        (UNIT + "test_collector.py",),
    ),
    Mutation(
        "the manifest that the collector goes by is read back",
        LSM + "collector.py",
        "        await self._read_back(current)\n",
        "",
        (UNIT + "test_collector.py",),
    ),
    Mutation(
        "checkpoints are views",
        LSM + "collector.py",
        "for point in current.checkpoints]]\n        in_trees",
        "for point in current.checkpoints[:0]]]\n        in_trees",
        (UNIT + "test_checkpoints.py",),
    ),
    Mutation(
        "a chunk SST with a register in some view is not collected",
        LSM + "collector.py",
        "registered = await self._registered(candidates, views)",
        "registered = set()",
        (UNIT + "test_maintenance.py",),
    ),
    Mutation(
        "an SST that a tree lists is not collected",
        LSM + "collector.py",
        "referred=in_trees, protected=protected",
        "referred=set(), protected=protected",
        (UNIT + "test_maintenance.py",),
    ),
    Mutation(
        "a WAL object above the mark is not collected",
        LSM + "collector.py",
        "if wal_id <= mark and size",
        "if wal_id <= mark + 1 and size",
        (UNIT + "test_collector.py", UNIT + "test_crashes.py"),
    ),
    Mutation(
        "a fence is not collected",
        LSM + "collector.py",
        " and size > FENCE_OBJECT_MAX_SIZE]",
        "]",
        (UNIT + "test_collector.py",),
    ),
    Mutation(
        "a manifest that a checkpoint names is not collected",
        LSM + "collector.py",
        "manifest_id < current - 1 and manifest_id not in kept",
        "manifest_id < current - 1",
        (UNIT + "test_checkpoints.py",),
    ),
    Mutation(
        "the floor is raised before manifests are deleted",
        LSM + "collector.py",
        "            await self._manifests.floor.raise_to(current.manifest_id - 1, current.epoch)\n",
        "            pass\n",
        (UNIT + "test_faults.py",),
    ),
    Mutation(
        "an SST of a later epoch ends the pass",
        LSM + "collector.py",
        "if sst[0] > epoch:",
        "if False:",
        (UNIT + "test_collector.py",),
    ),
    Mutation(
        "a claim that was overtaken and collected is noticed by the floor",
        LSM + "manifests.py",
        "if await self.floor.get() > (newest or manifest).manifest_id:",
        "if False:",
        (UNIT + "test_races.py",),
    ),
    Mutation(
        "an accepted roll-back raises the floor to its claim",
        LSM + "recovery.py",
        "            await manifests.floor.raise_to(manifest_id, epoch)\n",
        "",
        (UNIT + "test_races.py",),
    ),
    Mutation(
        "an edit that was cut off is looked for before the next",
        LSM + "versions.py",
        "            await self._resolve_doubt()\n",
        "",
        (UNIT + "test_races.py",),
    ),
    Mutation(
        "what is shared is held in the instant in which it is known to be live",
        LSM + "sharing.py",
        "if version is current() and all(map(lookup.is_newest, keys, entries)):",
        "if True:",
        (UNIT + "test_races.py",),
    ),
    Mutation(
        "the tokens of older epochs stay until their WAL objects are flushed",
        LSM + "versions.py",
        "if after.wal_mark > before.wal_mark else after.tokens",
        "",
        (UNIT + "test_collector.py",),
    ),
    Mutation(
        "a WAL object is put after the chunk SSTs that it names",
        LSM + "syncer.py",
        "            await self._chunk_writer.store(pending)\n",
        "            carried = await self._chunk_writer.take(pending)\n",
        (UNIT + "test_engine.py",),
    ),
    Mutation(
        "repack puts a pointer only where the copied one still stands",
        LSM + "repacker.py",
        "if self._now(key, in_trees[key]) == pointer}",
        "}",
        (UNIT + "test_repacker.py",),
    ),
    Mutation(
        "repack asks the memtables again in the instant of the commit",
        LSM + "repacker.py",
        "return _pointer_of(in_tree if isinstance(entry, Missing) else entry)",
        "return _pointer_of(in_tree)",
        (UNIT + "test_repacker.py",),
    ),
    Mutation(
        "deletes stay while older runs are left",
        LSM + "compactor.py",
        "drop_deletes=chosen.stop == len(tree.runs)",
        "drop_deletes=True",
        (UNIT + "test_maintenance.py", UNIT + "test_collector.py"),
    ),
    Mutation(
        "registers lose what a merge drops in the version of that merge",
        LSM + "compactor.py",
        ".changed(_less(result.dropped), {})",
        ".changed({}, {})",
        (UNIT + "test_maintenance.py",),
    ),
    Mutation(
        "the epoch is checked again after the fence",
        LSM + "recovery.py",
        "await _fence(storage, manifests, claimed)\n        await _check_epoch(manifests, claimed)\n",
        "await _fence(storage, manifests, claimed)\n",
        (UNIT + "test_races.py",),
    ),
    Mutation(
        "merges of a detach move nothing of the source",
        LSM + "compaction/plan.py",
        "            and sst.sst[0] > rewrite_up_to\n",
        "",
        (UNIT + "compaction/test_plan.py",),
    ),
    Mutation(
        "a clone forgets the keys of its source only when nothing needs them",
        LSM + "maintenance.py",
        "        if left:\n            raise CorruptionError(",
        "        if not current:\n            raise CorruptionError(",
        (UNIT + "test_clones.py",),
    ),
    Mutation(
        "a checkpoint that needs the source forbids a detach",
        LSM + "engine.py",
        "points = await self.checkpoints.of_sources()",
        "points = []",
        (UNIT + "test_clones.py",),
    ),
    Mutation(
        "what lies under a foreign name in a clone is not collected",
        LSM + "collector.py",
        "if sst[0] > foreign:",
        "if sst[0] > 0:",
        (UNIT + "test_clones.py",),
    ),
    Mutation(
        "what a patch lies on is of the version in which it is made",
        LSM + "sharing.py",
        "if version is current() and all(map(lookup.is_newest, keys, entries)):",
        "if all(map(lookup.is_newest, keys, entries)):",
        (UNIT + "test_patches.py",),
    ),
    Mutation(
        "what a clone has of its source is read before it is changed",
        LSM + "sharing.py",
        "return pointer if pointer is not None and is_own(pointer) else None",
        "return pointer",
        (UNIT + "test_patches.py",),
    ),
    Mutation(
        "a chunk that keeps what it had although it was written to is told",
        LSM + "patcher.py",
        "self._losses.append((chunk.key, base))",
        "pass",
        (UNIT + "test_patches.py",),
    ),
    Mutation(
        "a chunk that could become all zeros is read",
        "zerofs/fs/chunks.py",
        "zeros = [part for part in parts if is_zero(data[part.offset : part.offset + part.stop - part.start])]",
        "zeros: list[Piece] = []",
        ("tests/unit/fs/ops/test_io.py",),
    ),
)


def survives(mutation: Mutation, folder: Path) -> bool:
    """Whether the tests pass without the guard."""
    source = ROOT / mutation.file
    text = source.read_text()
    if text.count(mutation.before) != 1:
        raise SystemExit(f"{mutation.guard}: its text stands {text.count(mutation.before)} times in {mutation.file}")
    copy = folder / mutation.file
    copy.write_text(text.replace(mutation.before, mutation.after))
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *mutation.tests]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    finally:
        copy.write_text(text)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{mutation.guard}: pytest ended with {done.returncode}\n{done.stdout[-3000:]}")
    return done.returncode == 0


def main() -> None:
    """Run them all, or those whose guard contains a word."""
    parser = argparse.ArgumentParser(description="Remove guards one by one; a test must notice each.")
    parser.add_argument("word", nargs="?", default="")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.word in mutation.guard]
    survivors = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("zerofs", "tests", "benches"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for mutation in chosen:
            alive = survives(mutation, folder)
            survivors += [mutation] if alive else []
            print(f"{'SURVIVES' if alive else 'noticed '}  {mutation.guard}", flush=True)
    print(f"{len(chosen) - len(survivors)} passed, {len(survivors)} failed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
