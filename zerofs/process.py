"""What a process tells the operating system, and its own interpreter, about itself."""

import ctypes
import gc
import os
import resource
import sys

GC_THRESHOLDS = (5_000, 1, 10_000)
"""New objects before the youngest are looked at, then how often the older ones are.

Of 5,000 it takes up to 10 ms, of 50,000 it took 15 to 36, in which nothing is answered. What lived through two looks
is looked at again after a hundred million new objects."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter while a request waits. Python's own 5 ms would show in every request."""

_PR_SET_DUMPABLE = 4


def harden() -> None:
    """Turn core dumps off and make the process not dumpable (prctl(2)), which also closes /proc/<pid>/mem to others.

    For a process that will hold secrets: to be called before anything secret. Children that run another program are
    ordinary again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The prototype takes unsigned longs; a plain int would leave half a register undefined on some machines.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(ctypes.c_int(_PR_SET_DUMPABLE), *(ctypes.c_ulong(0) for _ in range(4)))


def tune_interpreter() -> None:
    """Settings of a process that serves requests. Idempotent.

    Memtables and caches hold hundreds of thousands of objects without cycles: at Python's own thresholds the cycle
    collector takes a third of the time of a create, and its passes over all of them stall requests.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    gc.freeze()


def child_environment(*, for_store: bool) -> dict[str, str]:
    """The environment of a process of ours that serves this one, and uses the store or does not.

    Without what zerofs itself is told there: the password may stand in a variable of that name. Without a store also
    without the credentials of one.
    """
    hidden = ("ZEROFS_",) if for_store else ("ZEROFS_", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
