"""The journal program at work in a mount, and the oracles that say whether what a crash left is one of its moments."""

import contextlib
import itertools
import subprocess
import sys

from tests.mount import journal
from tests.mount.hosts import wait_for

STRICT = {"servers.fuse": {"writeback": False}, "lsm": {"sync_interval_s": 0.05}}
"""Every write(2) is a request of its own, and cuts happen all the time."""

LOOK_AHEAD = 2000
"""Steps after the last fsync that could have been done when the process died."""


@contextlib.contextmanager
def working(lab, root, seed):
    """The journal program at work below `root`; the file that it notes down in. The block must end its filesystem."""
    notes = lab.root / f"notes {seed}"
    notes.touch()
    command = [sys.executable, journal.__file__, root, notes, str(seed)]
    with (lab.root / f"journal {seed}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield notes
        assert process.wait(60) == 1, "it ends with the error that the dead filesystem gives it"
    finally:
        process.kill()
        process.wait()


def wait_for_fsyncs(notes, count):
    """Return when so many fsyncs were acknowledged."""
    wait_for(lambda: notes.read_bytes().count(b"\n") >= count, f"{count} fsyncs")


def steps_noted(notes):
    """How many steps were durable at the last fsync that was acknowledged."""
    return int((notes.read_text().split() or ["0"])[-1])


def check_moment(seed, durable, found):
    """What is there is what was there after so many steps, or after some more of them: a prefix of the requests."""
    moments = map(dict, journal.states(seed, durable, durable + LOOK_AHEAD))
    assert any(is_between(*pair, found) for pair in itertools.pairwise(moments)), (
        f"seed {seed}: no prefix of {durable} or more steps"
    )


def is_between(before, after, found):
    """Whether `found` is the state before a step, or that with part of what the step appends.

    A request is all or nothing, but one write(2) may be several: the kernel ends a request at a page of the caller's
    buffer that it cannot copy at once.
    """
    return found.keys() == before.keys() and all(
        data == before[name]
        or (
            None not in (data, before[name], after.get(name))
            and data.startswith(before[name])
            and after[name].startswith(data)
        )
        for name, data in found.items()
    )


def check_prefixes(seed, durable, found):
    """Names are those of one moment; every file holds a prefix of what was appended to it, and what was fsynced.

    The kernel keeps written pages back and hands them over when it likes, but an fsync makes it hand over one file.
    """
    nearest: list[str] | None = None
    for moment, state in enumerate(journal.states(seed, durable, durable + LOOK_AHEAD), durable):
        if state.keys() == found.keys():
            sizes = journal.fsynced_sizes(seed, durable, moment)
            wrong = [
                describe(name, found[name], whole, sizes.get(name, 0))
                for name, whole in state.items()
                if not is_prefix(found[name], whole, sizes.get(name, 0))
            ]
            if not wrong:
                return
            if nearest is None or len(wrong) < len(nearest):
                nearest = wrong
    raise AssertionError(f"no moment after at least {durable} steps explains {nearest or sorted(found)}")


def describe(name, data, whole, size):
    """What is wrong with a file: how much is there, was written, was fsynced, and where it differs."""
    if data is None or whole is None:
        return f"{name}: directory or file"
    differs = next((i for i, (a, b) in enumerate(zip(data, whole, strict=False)) if a != b), min(len(data), len(whole)))
    zeros = len(data[differs:]) - len(data[differs:].lstrip(b"\0"))
    return f"{name}: {len(data)} of {len(whole)} bytes, {size} fsynced, differs at {differs}, then {zeros} zeros"


def is_prefix(data, whole, size):
    if data is None or whole is None:
        return data is whole
    return whole.startswith(data) and len(data) >= size
