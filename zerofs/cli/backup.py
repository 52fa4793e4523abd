"""`zerofs backup`: a copy of the volume at another place, and a check of such a copy.

The checkpoint that holds the state still is made and deleted where the volume is served: by its mount on this host,
through the control socket, or else by opening the volume here for a moment.
"""

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from zerofs.admin import checkpoints
from zerofs.cli import console, exitcodes
from zerofs.cli.elsewhere import at, destination
from zerofs.cli.holding import Pins
from zerofs.cli.inspect import examined, show, verify_all
from zerofs.cli.pin import utc_name
from zerofs.cli.reach import reach
from zerofs.config.password import read_password
from zerofs.config.settings import Settings
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError, ZerofsError
from zerofs.telemetry.log import configure
from zerofs.units import MIB, format_size
from zerofs.world import World

if TYPE_CHECKING:
    from zerofs.admin.examination import Progress, Report
    from zerofs.lsm.inspection import View
    from zerofs.lsm.storage import Storage
    from zerofs.objectstore.api import ObjectStore

GIVE_UP_S = 20.0
"""How long a checkpoint that is of no use any more may take to be deleted after a failure."""


OTHER_HOST = "run the backup on that host, or name a checkpoint with --checkpoint; --take-over shuts that mount out"


@dataclass(slots=True, frozen=True, kw_only=True)
class Order:
    """What to back up, and where."""

    dest: str
    checkpoint: str | None
    prune: bool
    rate_mib_per_s: float
    take_over: bool


def create(order: Order, config: Path | None, *, as_json: bool, verbose: bool) -> None:
    """Back up, and print what was done. Raises what `admin.backup` raises, ConfigError, VolumeInUseError."""
    settings = reach(config).settings
    dest = destination(settings, order.dest, "backup", may_be_read=not order.prune)
    configure("debug" if verbose else "warning")
    password = read_password(settings.storage.password, console.ask_secret)
    with console.measured() as progress:
        done = trio.run(_Backup(settings, dest, password, order, progress).run)
    if as_json:
        console.print_json(done)
        return
    console.say(
        f"Backup of checkpoint {done['checkpoint']} completed: {done['objects']} objects, "
        f"{format_size(done['size_bytes'])}, in {done['destination']}"
    )
    console.say(f"Copied: {done['copied_objects']} objects, {format_size(done['copied_bytes'])}")
    if order.prune:
        console.say(f"Deleted there: {done['pruned_objects']} objects")


def verify(
    dest: str, config: Path | None, *, rate_mib_per_s: float, restart: bool, as_json: bool, verbose: bool
) -> int:
    """Open the copy as a volume, read all of it, and print a report."""
    settings = reach(config).settings
    copy = at(settings, dest, "backup")
    configure("debug" if verbose else "warning")
    password = read_password(settings.storage.password, console.ask_secret)

    async def work(settings: Settings, view: "View", report: "Report", progress: "Progress") -> None:
        from zerofs.admin.fsck import fsck

        await verify_all(settings, view, report, progress, rate_mib_per_s=rate_mib_per_s, restart=restart)
        structure = replace(report, problems=[], counted={})
        await fsck(view, structure, progress)
        told = set(map(str, report.problems))
        report.add(problem for problem in structure.problems if str(problem) not in told)
        report.counted |= structure.counted

    async def main() -> "Report":
        # A copy is older than what this host has seen of the volume: that is what it is for.
        return await examined(copy, password, work, progress, checkpoint=None, accept_rollback=True)

    with console.measured() as progress:
        report = trio.run(main)
    show(report, as_json=as_json)
    return exitcodes.OK if report.is_clean else CorruptionError.exit_code


class _Backup:
    """One backup, from the command line's point of view."""

    def __init__(
        self,
        settings: Settings,
        dest: Settings,
        password: Secret,
        order: Order,
        progress: "Progress",
    ) -> None:
        self._settings = settings
        self._dest = dest
        self._password = password
        self._order = order
        self._progress = progress
        self._world = World()
        self._pins = Pins(settings, password, self._world)

    async def run(self) -> dict[str, Any]:
        """See `create`."""
        from zerofs.admin.backup import destination_storage, prepare
        from zerofs.volume import open_objects

        async with open_objects(self._settings, self._password, self._world) as source, self._store(source) as store:
            dest = destination_storage(source, store)
            own = await prepare(source, dest)
            if self._order.checkpoint is not None:
                point = await self._pins.find(source, self._order.checkpoint)
                return await self._copy(source, dest, point)
            if not self._order.take_over:
                await self._pins.check_writer(source, OTHER_HOST)
            made, *others = await self._pins.change(
                checkpoints.CREATE, [f"{utc_name('backup-', self._world)}-{own[:8]}"]
            )
            try:
                done = await self._copy(source, dest, made)
            except BaseException:
                await self._give_up(made["name"])
                raise
            # Whatever else was pinned for this destination has served: the last success, and runs that were killed.
            ours = re.compile(rf"backup-[0-9T:.-]+Z-{own[:8]}")
            older = [point["name"] for point in others if ours.fullmatch(point["name"])]
            await self._pins.change(checkpoints.DELETE, older)
            return done

    @contextlib.asynccontextmanager
    async def _store(self, source: "Storage") -> "AsyncIterator[ObjectStore]":
        from zerofs.objectstore.open import open_store

        url = self._dest.storage.url
        async with contextlib.aclosing(open_store(url, self._dest.aws, self._world, source.metrics)) as store:
            yield store

    async def _copy(self, source: "Storage", dest: "Storage", point: dict[str, Any]) -> dict[str, Any]:
        from zerofs.admin.backup import backup

        result = await backup(
            source,
            dest,
            point["manifest_id"],
            rate_bytes_per_s=self._order.rate_mib_per_s * MIB,
            prune=self._order.prune,
            progress=self._progress,
        )
        return {"checkpoint": point["name"]} | result.to_json()

    async def _give_up(self, name: str) -> None:
        """Delete the checkpoint of a backup that failed; what was copied stays, and is not copied again."""
        with trio.move_on_after(GIVE_UP_S, shield=True) as scope:
            try:
                await self._pins.change(checkpoints.DELETE, [name])
            except (ZerofsError, BaseExceptionGroup):
                scope.cancel()
        if scope.cancelled_caught or scope.cancel_called:
            console.note(f"the checkpoint {name} could not be deleted: zerofs checkpoint delete {name}")
