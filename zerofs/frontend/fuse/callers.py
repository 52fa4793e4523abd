"""On whose behalf a request of the kernel runs."""

from functools import partial
from pathlib import Path

from zerofs.fs.access import Caller

_CALLERS_KEPT = 256


def supplementary_groups(pid: int) -> frozenset[int]:
    """The groups of a process or thread; none when it has ended or lives in another pid namespace.

    Source: proc_pid_status(5), line `Groups:`.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return frozenset()
    for line in status.splitlines():
        if line.startswith(b"Groups:"):
            return frozenset(map(int, line.split()[1:]))
    return frozenset()


class Callers:
    """Makes a `Caller` of what a request says. The kernel has checked permissions, so it says `checked`.

    One process sends many requests: the last few hundred callers are kept. Groups are read when asked for and not
    remembered, so a caller that is kept never answers with old ones.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], Caller] = {}

    def __call__(self, uid: int, gid: int, pid: int, umask: int) -> Caller:
        """The process on whose behalf a request runs."""
        key = (uid, gid, pid, umask)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _CALLERS_KEPT:
                self._known.clear()
            known = self._known[key] = Caller(
                uid=uid, gid=gid, pid=pid, umask=umask, groups=partial(supplementary_groups, pid), checked=True
            )
        return known
