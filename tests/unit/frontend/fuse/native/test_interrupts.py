"""Who is being killed, seen from outside."""

import os
import signal
import subprocess
import sys

from zerofs.frontend.fuse.native.interrupts import is_dying


def test_a_process_that_lives_and_one_that_nobody_sees():
    assert not is_dying(os.getpid())
    assert not is_dying(2**30)


def test_a_signal_that_is_pending_is_no_death():
    """Blocked, so that it stays pending."""
    program = "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert not is_dying(process.pid)
        process.kill()
