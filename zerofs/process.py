"""What a process tells the operating system about itself."""

import ctypes
import resource

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
