"""The background service: what was written becomes durable within a few seconds although nobody asks for it.

Not the place of durability itself: that is the engine's. A failed sync loses nothing (the engine keeps the data and its
next sync covers it), so this service only tries again, and says so once.
"""

import logging

import trio

from zerofs.errors import ClosedError, FencedError, ZerofsError
from zerofs.fs.context import Context
from zerofs.fs.ports import ALIVE

_log = logging.getLogger(__name__)


async def run(ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Sync every `writeback_interval_s` when something is dirty. Returns when the engine has stopped for good."""
    task_status.started()
    failing = False
    while True:
        await trio.sleep(ctx.options.writeback_interval_s)
        ctx.orphans.sweep()
        ctx.note_losses()
        if not ctx.engine.dirty_bytes:
            continue
        try:
            await ctx.engine.sync()
        except FencedError as error:
            _log.error("another writer took the volume over; this mount is read-only from now on: %s", error)
            return
        except ClosedError:
            return
        except ZerofsError as error:
            if ctx.engine.state not in ALIVE:
                _log.error("what was written cannot become durable any more: %s", error)
                return
            if not failing:
                _log.warning("could not make written data durable, will go on trying: %s", error)
            failing = True
        else:
            if failing:
                _log.warning("written data is durable again")
            failing = False
