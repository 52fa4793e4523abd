"""SQLite: processes that share a database, and are killed, lose no transaction that was committed."""

import contextlib
import os
import signal
import sys

import pytest

from tests.mount.hosts import wait_for
from tests.programs import kit, ledger

pytestmark = kit.MARKS

WRITERS = 3
STEPS = 40

JOURNALS = pytest.mark.parametrize("journal", ["wal", "delete"])


class Worker:
    """A process that works on a bank. What it acknowledged stays known, whatever becomes of it."""

    def __init__(self, folder, work, bank, number):
        self.work, self.number = work, number
        self._said = folder / f"{work}-{number}"
        with self._said.open("a") as output:
            self.process = kit.start(sys.executable, ledger.__file__, work, bank, number, cwd=folder, output=output)

    def lines(self):
        """What was printed as a whole line."""
        return self._said.read_text().split("\n")[:-1]

    def acknowledged(self):
        return {int(line) for line in self.lines() if line.isdecimal()}

    def kill(self):
        kit.end(self.process)


@contextlib.contextmanager
def working(folder, bank):
    """Writers and readers, killed at the end."""
    with contextlib.ExitStack() as stack:
        crew = [Worker(folder, "move", bank, number) for number in range(WRITERS)]
        crew += [Worker(folder, "watch", bank, number) for number in range(2)]
        for worker in crew:
            stack.callback(worker.kill)
        yield crew


def wait_for_steps(crew, count):
    """Return when the writers that live have got so far together, and the readers have read; none of them failed."""
    alive = [worker for worker in crew if worker.process.poll() is None]
    before = [len(worker.lines()) for worker in alive]

    def done():
        new = [len(worker.lines()) - lines for worker, lines in zip(alive, before, strict=True)]
        for worker in alive:
            assert worker.process.poll() is None, worker.lines()[-5:]
        readers = [lines for worker, lines in zip(alive, new, strict=True) if worker.work == "watch"]
        return all(readers) and sum(new) - sum(readers) >= count

    wait_for(done, f"{count} steps of {len(alive)} processes", 120)


def check(bank, crew):
    """Nothing that was acknowledged is missing, and at most the step under way was done besides."""
    found = ledger.sound(bank)
    for worker in crew:
        steps = found.get(worker.number, set())
        assert steps == set(range(1, len(steps) + 1))
        assert len(steps) - len(worker.acknowledged()) in (0, 1), worker.lines()[-3:]


@JOURNALS
def test_writers_that_are_killed(mount, plain, journal):
    bank = mount.path / "bank"
    ledger.create(bank, journal)
    with working(plain, bank) as crew:
        writers = crew[:WRITERS]
        wait_for_steps(crew, STEPS)
        for victim in writers:
            os.kill(victim.process.pid, signal.SIGKILL)
            victim.process.wait()
            if victim is not writers[-1]:
                wait_for_steps(crew, 10)
    check(bank, writers)
    kit.unchanged_after_cold_remount(mount, mount.path)
    check(bank, writers)


@JOURNALS
def test_a_filesystem_that_is_killed(mount, plain, journal):
    bank = mount.path / "bank"
    ledger.create(bank, journal)
    mount.flush()
    for _ in range(2):
        with working(plain, bank) as crew:
            wait_for_steps(crew, STEPS)
            mount.kill()
        mount.drop_cache()
        mount.start()
        check(bank, crew[:WRITERS])
