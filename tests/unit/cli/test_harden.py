"""zerofs.cli.harden, in a process of its own."""

import subprocess
import sys

PROGRAM = """
import ctypes, resource, sys
from zerofs.cli.harden import harden
dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
before = dumpable()
harden()
print(before, dumpable(), resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_no_core_dump_and_not_dumpable():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "1 0 (0, 0)\n"


def test_main_hardens_before_it_does_anything_else():
    program = (
        "import sys; from zerofs.cli import main\n"
        "order = []\n"
        "main.harden = lambda: order.append('harden')\n"
        "main.execute = lambda argv: order.append('execute') or 0\n"
        "try:\n    main.main()\nexcept SystemExit as end:\n    print(order, end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['harden', 'execute'] 0\n"
