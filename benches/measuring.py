"""One load on one system: run it, and see what the system used and counted meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time

from benches.mounts import FailedError, drop_caches
from benches.processes import Usage

DROP = {"cold": "3", "pages dropped": "1", "names dropped": "2"}
"""What the kernel is told to forget: see `mounts.drop_caches`."""
CALM_S = 0.3


def forget(caches, system):
    """Bring the caches into this state: "cold", "pages dropped", "names dropped", or anything else for as they are."""
    if caches == "cold":
        system.make_cold()
    # Servers are told of what was forgotten, and nobody should be measured while they are busy with that.
    if caches in DROP and drop_caches(DROP[caches]):
        time.sleep(CALM_S)


def printed_by(module, *arguments, timeout_s):
    """What a load says of itself: a `load.Done` as a dictionary. Raises FailedError, subprocess.TimeoutExpired."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        printed, said = load.communicate(timeout=timeout_s)
    except BaseException:
        # Also whatever it has started.
        os.killpg(load.pid, signal.SIGKILL)
        load.communicate()
        raise
    if load.returncode != 0:
        raise FailedError(" ".join(said.strip().splitlines()[-1:]) or f"exit code {load.returncode}")
    return json.loads(printed)


def measured(system, module, *arguments, timeout_s):
    """The same, and `server_cpu_seconds`, `server_peak_bytes`, and what the system `counted` (see its `counters`)."""
    before = system.counters()
    usage = Usage(system.pids())
    printed = printed_by(module, *arguments, timeout_s=timeout_s)
    used = {"server_cpu_seconds": usage.cpu_seconds(), "server_peak_bytes": usage.peak_bytes()}
    now = system.counters()
    return printed | used | {"counted": {name: now[name] - before.get(name, 0) for name in now}}
