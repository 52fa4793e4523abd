"""Requests that wait, and callers that are killed meanwhile.

The kernel sends INTERRUPT for every signal that a waiting caller gets, once. Disks do not let a signal end a stat, a
read or an fsync, and few programs are prepared for it: so only a caller that is being killed ends its request. After
the first signal its state is looked at again and again, since a second signal is not told. Source: linux/fuse.h;
Documentation/filesystems/fuse.rst; proc_pid_status(5).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import trio

LOOK_AGAIN_S = 0.25

_SIGKILL = 1 << 8
"""A thread of a process that is to end has it pending, whatever ends it."""


class _Waiting(NamedTuple):
    pid: int
    scope: trio.CancelScope


def is_dying(pid: int) -> bool:
    """Whether a thread is being killed; False for one that cannot be seen."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return False
    pending = [line.split()[1] for line in status.splitlines() if line.startswith((b"SigPnd:", b"ShdPnd:"))]
    return any(int(mask, 16) & _SIGKILL for mask in pending)


class Interrupts:
    """Which requests wait and may be given up: for those nothing would be left half done."""

    def __init__(self, is_dying: Callable[[int], bool] = is_dying) -> None:
        self._is_dying = is_dying
        self._waiting: dict[int, _Waiting] = {}

    def begin(self, unique: int, pid: int, scope: trio.CancelScope) -> None:
        """A request of a thread begins to wait within a scope."""
        self._waiting[unique] = _Waiting(pid, scope)

    def end(self, unique: int) -> None:
        """It waits no more, or never did."""
        self._waiting.pop(unique, None)

    async def watch(self, unique: int) -> None:
        """After an INTERRUPT: cancel the request when its caller is being killed. Returns when it waits no more."""
        while (found := self._waiting.get(unique)) is not None:
            if self._is_dying(found.pid):
                found.scope.cancel()
                return
            await trio.sleep(LOOK_AGAIN_S)

    def give_up_all(self) -> None:
        """Nobody is there any more to be answered."""
        for found in self._waiting.values():
            found.scope.cancel()
