"""zerofs.process, in a process of its own."""

import subprocess
import sys

PROGRAM = """
import ctypes, resource, sys
from zerofs.process import harden
dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
before = dumpable()
harden()
print(before, dumpable(), resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_no_core_dump_and_not_dumpable():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "1 0 (0, 0)\n"
