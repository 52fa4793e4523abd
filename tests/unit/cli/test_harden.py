"""zerofs.cli.main keeps the process to itself before it does anything else."""

import subprocess
import sys


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
