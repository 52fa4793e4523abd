"""`zerofs fsck` and `zerofs verify`: looking at what is stored, without changing it."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from zerofs.admin.examination import Progress, Report
from zerofs.cli import console, exitcodes
from zerofs.cli.pin import pinned
from zerofs.cli.reach import Reached, reach
from zerofs.config.password import read_password
from zerofs.config.settings import Settings
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError
from zerofs.telemetry.log import configure
from zerofs.units import MIB, format_size
from zerofs.world import World

if TYPE_CHECKING:
    from zerofs.lsm.inspection import View

SHOWN_MAX = 1000
"""Problems that are printed for people; --json has more."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Look:
    """What to examine, and how to tell of it."""

    config: Path | None
    checkpoint: str | None
    accept_rollback: bool
    as_json: bool
    verbose: bool


def fsck(look: Look) -> int:
    """Print what is wrong with the volume. Returns an exit code of fsck's own table."""
    return exitcodes.OK if _examine(look, "fsck-", _fsck) else exitcodes.FSCK_ERRORS_LEFT


def verify(look: Look, *, full: bool, rate_mib_per_s: float, restart: bool) -> int:
    """Print what is missing or damaged; returns the exit code for corruption if anything is."""

    async def work(settings: Settings, view: "View", report: Report, progress: Progress) -> None:
        from zerofs.admin.verify import verify_quick

        if full:
            await verify_all(settings, view, report, progress, rate_mib_per_s=rate_mib_per_s, restart=restart)
        else:
            await verify_quick(view, report, progress)

    return exitcodes.OK if _examine(look, "verify-", work) else CorruptionError.exit_code


async def verify_all(
    settings: Settings, view: "View", report: Report, progress: Progress, *, rate_mib_per_s: float, restart: bool
) -> None:
    """A full verification that goes on where an interrupted one stopped."""
    from zerofs.admin.throttle import Throttle
    from zerofs.admin.verified import Verified
    from zerofs.admin.verify import verify_full

    done = Verified.of_volume(settings.state_dir, view.storage.volume_id, view.storage.store.url)
    if not restart and (count := done.resume()):
        console.note(f"going on after {count} objects that an interrupted run verified; --restart reads them again")
    try:
        await verify_full(view, report, progress, Throttle(rate_mib_per_s * MIB), done)
        done.finish()
    finally:
        done.close()


Work = Callable[[Settings, "View", Report, Progress], Awaitable[None]]
"""Examine an opened version."""


def _examine(look: Look, prefix: str, work: Work) -> bool:
    """Examine what `look` says, print the report, and return whether nothing is wrong."""
    reached = reach(look.config)
    configure("debug" if look.verbose else "warning")
    password = read_password(reached.settings.storage.password, console.ask_secret)
    with _version(reached, look.checkpoint, prefix) as version, console.measured() as progress:
        report = trio.run(
            partial(
                examined,
                reached.settings,
                password,
                work,
                progress,
                checkpoint=version,
                accept_rollback=look.accept_rollback,
            )
        )
    if look.checkpoint is None:
        report.checkpoint = ""
    show(report, as_json=look.as_json)
    return report.is_clean


async def examined(
    settings: Settings,
    password: Secret,
    work: Work,
    progress: Progress,
    *,
    checkpoint: str | None,
    accept_rollback: bool,
) -> Report:
    """The report of `work` on the volume of the settings."""
    from zerofs.admin.examination import examine
    from zerofs.lsm.witness import Witness
    from zerofs.volume import open_objects

    async with open_objects(settings, password, World(), accept_rollback=accept_rollback) as storage:

        async def on_view(view: "View", report: Report) -> None:
            await work(settings, view, report, progress)

        seen = Witness(settings.state_dir, storage.volume_id).load()
        return await examine(storage, on_view, checkpoint=checkpoint, seen=seen, accept_rollback=accept_rollback)


async def _fsck(_: Settings, view: "View", report: Report, progress: Progress) -> None:
    from zerofs.admin.fsck import fsck as check

    await check(view, report, progress)


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
