"""`zerofs fsck` and `zerofs verify`: looking at what is stored, without changing it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import trio

from zerofs.admin.examination import Progress, Report
from zerofs.admin.fsck import fsck as check
from zerofs.cli import console, exitcodes
from zerofs.cli.pin import pinned
from zerofs.cli.reach import Reached, reach
from zerofs.config.password import read_password
from zerofs.telemetry.log import configure
from zerofs.units import format_size
from zerofs.world import World

SHOWN_MAX = 1000
"""Problems that are printed for people; --json has more."""


def fsck(config: Path | None, checkpoint: str | None, *, accept_rollback: bool, as_json: bool, verbose: bool) -> int:
    """Print what is wrong with the volume; returns an exit code as fsck(8) has them."""
    reached = reach(config)
    configure("debug" if verbose else "warning")
    with _version(reached, checkpoint, "fsck-") as version, console.measured() as progress:
        report = trio.run(_fsck, reached, version, accept_rollback, progress)
    if checkpoint is None:
        report.checkpoint = ""
    show(report, as_json=as_json)
    return exitcodes.OK if report.is_clean else exitcodes.FSCK_ERRORS_LEFT


async def _fsck(reached: Reached, checkpoint: str | None, accept_rollback: bool, progress: Progress) -> Report:
    from zerofs.admin.examination import examine
    from zerofs.lsm.inspection import View
    from zerofs.lsm.witness import Witness
    from zerofs.volume import open_objects

    settings = reached.settings
    password = read_password(settings.storage.password, console.ask_secret)
    async with open_objects(settings, password, World(), accept_rollback=accept_rollback) as storage:

        async def work(view: View, report: Report) -> None:
            await check(view, report, progress)

        seen = Witness(settings.state_dir, storage.volume_id).load()
        return await examine(storage, work, checkpoint=checkpoint, seen=seen, accept_rollback=accept_rollback)


@contextlib.contextmanager
def _version(reached: Reached, checkpoint: str | None, prefix: str) -> Iterator[str | None]:
    """What to examine: the checkpoint that was named, one made for the purpose, or None for the newest version."""
    if checkpoint is not None:
        yield checkpoint
        return
    with pinned(reached, prefix) as name:
        yield name


def show(report: Report, *, as_json: bool) -> None:
    """Print a report."""
    if as_json:
        console.print_json(report.to_json())
        return
    for problem in report.problems[:SHOWN_MAX]:
        console.say(console.one_line(str(problem)))
    left_out = max(0, len(report.problems) - SHOWN_MAX) + report.left_out
    if left_out:
        console.say(f"… and {left_out} more")
    for note in report.notes:
        console.say(console.one_line(note))
    counted = ", ".join(
        f"{format_size(count)} read" if name == "bytes" else f"{count} {name.replace('_', ' ')}"
        for name, count in report.counted.items()
    )
    state = "clean" if report.is_clean else f"{len(report.problems) + report.left_out} problems"
    console.say(f"{report.store}: {state}{f' ({counted})' if counted else ''}")
