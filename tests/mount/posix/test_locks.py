"""flock, POSIX and open-file-description locks between processes. Source: flock(2), fcntl(2)."""

import errno
import fcntl
import os
import signal
import struct

import pytest

from tests.mount.posix.users import User, outcome

pytestmark = pytest.mark.mount

SHARED, EXCLUSIVE, FREE = "shared", "exclusive", "free"
KINDS = ["flock", "posix", "ofd"]
_FLOCK = struct.Struct("hhqqi")
_TYPES = {SHARED: fcntl.F_RDLCK, EXCLUSIVE: fcntl.F_WRLCK, FREE: fcntl.F_UNLCK}
_COMMANDS = {"posix": (fcntl.F_SETLK, fcntl.F_SETLKW), "ofd": (37, 38)}  # F_OFD_SETLK, F_OFD_SETLKW
_OFD_GETLK = 36
SOON_S, NEVER_S = 20.0, 0.3


def lock(descriptor, kind, what, start=0, size=0, wait=False):
    """Take, change or give back a lock; of the whole file if no size is given."""
    if kind == "flock":
        operation = {SHARED: fcntl.LOCK_SH, EXCLUSIVE: fcntl.LOCK_EX, FREE: fcntl.LOCK_UN}[what]
        fcntl.flock(descriptor, operation | (0 if wait else fcntl.LOCK_NB))
    else:
        fcntl.fcntl(descriptor, _COMMANDS[kind][wait], _FLOCK.pack(_TYPES[what], os.SEEK_SET, start, size, 0))


def asked(descriptor, start, size, command=fcntl.F_GETLK):
    """What stands in the way of an exclusive lock: (type, start, size, pid)."""
    found = fcntl.fcntl(descriptor, command, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, size, 0))
    what, _, start, size, pid = _FLOCK.unpack(found[: _FLOCK.size])
    return next(name for name, number in _TYPES.items() if number == what), start, size, pid


def wait_and_count(descriptor, kind):
    """Wait for an exclusive lock."""
    lock(descriptor, kind, EXCLUSIVE, wait=True)
    return "locked"


@pytest.fixture
def opened(site):
    """One file, open for both users: ((alice, descriptor), (bob, descriptor))."""
    path = site.file("f", 0o666)
    holders = [(user, user.open(path, os.O_RDWR)) for user in (site.alice, site.bob)]
    yield holders
    for user, descriptor in holders:
        user.close(descriptor)


def take(holder, kind, what, start=0, size=0):
    user, descriptor = holder
    return outcome(user.do, lock, descriptor, kind, what, start, size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held", [SHARED, EXCLUSIVE])
@pytest.mark.parametrize("wanted", [SHARED, EXCLUSIVE])
def test_who_keeps_whom_out(opened, kind, held, wanted):
    alice, bob = opened
    assert take(alice, kind, held) == "ok"
    assert take(bob, kind, wanted) == ("ok" if held == wanted == SHARED else "EAGAIN")
    assert take(alice, kind, FREE) == "ok"
    assert take(bob, kind, EXCLUSIVE) == "ok"


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_changes_its_kind(opened, kind):
    alice, bob = opened
    assert take(alice, kind, SHARED) == take(bob, kind, SHARED) == "ok"
    assert take(alice, kind, EXCLUSIVE) == "EAGAIN"
    assert take(bob, kind, FREE) == "ok"
    assert take(alice, kind, EXCLUSIVE) == "ok"
    assert take(bob, kind, SHARED) == "EAGAIN"
    assert take(alice, kind, SHARED) == "ok"
    assert take(bob, kind, SHARED) == "ok"


def test_flock_and_the_others_do_not_see_each_other(opened):
    alice, bob = opened
    assert take(alice, "flock", EXCLUSIVE) == "ok"
    assert take(bob, "posix", EXCLUSIVE) == "ok"
    assert take(alice, "ofd", EXCLUSIVE) == "EAGAIN"


@pytest.mark.parametrize("kind", ["posix", "ofd"])
def test_ranges(opened, kind):
    alice, bob = opened
    assert take(alice, kind, EXCLUSIVE, 10, 10) == "ok"
    for start, size, expected in [
        (0, 10, "ok"),
        (20, 5, "ok"),
        (0, 11, "EAGAIN"),
        (19, 1, "EAGAIN"),
        (15, 0, "EAGAIN"),
    ]:
        assert take(bob, kind, SHARED, start, size) == expected
        assert take(bob, kind, FREE, start, size) == "ok"
    assert take(alice, kind, FREE, 13, 2) == "ok"
    assert take(bob, kind, EXCLUSIVE, 13, 2) == "ok"
    assert take(bob, kind, EXCLUSIVE, 12, 3) == "EAGAIN"
    assert take(bob, kind, EXCLUSIVE, 2**62, 2**62) == "ok"


def test_asking_tells_who_is_in_the_way(opened):
    alice, bob = opened
    assert take(alice, "posix", SHARED, 100, 50) == "ok"
    user, descriptor = bob
    assert user.do(asked, descriptor, 0, 1000) == (SHARED, 100, 50, alice[0].pid)
    assert user.do(asked, descriptor, 0, 100)[0] == FREE
    assert take(alice, "posix", FREE) == "ok"
    assert take(alice, "ofd", EXCLUSIVE, 100, 50) == "ok"
    assert user.do(asked, descriptor, 0, 1000, _OFD_GETLK) == (EXCLUSIVE, 100, 50, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_which_close_gives_a_lock_back(site, opened, kind):
    """POSIX: any descriptor of that file. The others: the last one that shares the open file."""
    (alice, descriptor), bob = opened
    assert take(opened[0], kind, EXCLUSIVE) == "ok"
    alice.close(alice.dup(descriptor))
    alice.close(alice.open(site / "f", os.O_RDONLY))
    assert take(bob, kind, EXCLUSIVE) == ("ok" if kind == "posix" else "EAGAIN")


@pytest.mark.parametrize("kind", KINDS)
def test_two_open_files_of_one_process(site, kind):
    """POSIX locks belong to the process; the others keep its own descriptors apart."""
    path = site.file("f", 0o666)
    one, two = (site.alice.open(path, os.O_RDWR) for _ in range(2))
    assert take((site.alice, one), kind, EXCLUSIVE) == "ok"
    assert take((site.alice, two), kind, EXCLUSIVE) == ("ok" if kind == "posix" else "EAGAIN")
    site.alice.close(one)
    site.alice.close(two)


@pytest.mark.parametrize("kind", KINDS)
def test_a_waiter_gets_it_when_it_is_free(opened, kind):
    alice, (bob, descriptor) = opened
    assert take(alice, kind, EXCLUSIVE) == "ok"
    bob.begin(wait_and_count, descriptor, kind)
    with pytest.raises(TimeoutError):
        bob.result(NEVER_S)
    assert take(alice, kind, FREE) == "ok"
    assert bob.result(SOON_S) == "locked"
    assert take(alice, kind, SHARED) == "EAGAIN"


def wait_until_the_alarm(descriptor, kind):
    """Wait for an exclusive lock, for a quarter of a second at most: EINTR."""

    def give_up(*_):
        raise InterruptedError(4, "interrupted")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 0.25)
    try:
        lock(descriptor, kind, EXCLUSIVE, wait=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_ends_the_wait(opened, kind):
    alice, bob = opened
    assert take(alice, kind, EXCLUSIVE) == "ok"
    bob[0].begin(wait_until_the_alarm, bob[1], kind)
    with pytest.raises(InterruptedError):
        bob[0].result(SOON_S)
    assert take(alice, kind, FREE) == "ok"
    assert take(bob, kind, EXCLUSIVE) == take(bob, kind, FREE) == take(alice, kind, EXCLUSIVE) == "ok"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("doing", ["holding", "waiting"])
def test_a_process_that_dies_takes_its_locks_and_its_wait_with_it(site, kind, doing):
    path = site.file("f", 0o666)
    victim = User("victim", 64_003, 64_003, [])
    theirs, ours = victim.open(path, os.O_RDWR), site.alice.open(path, os.O_RDWR)
    if doing == "holding":
        assert take((victim, theirs), kind, EXCLUSIVE) == "ok"
        assert take((site.alice, ours), kind, EXCLUSIVE) == "EAGAIN"
    else:
        assert take((site.alice, ours), kind, EXCLUSIVE) == "ok"
        victim.begin(wait_and_count, theirs, kind)
        with pytest.raises(TimeoutError):
            victim.result(NEVER_S)
    victim.kill()
    assert take((site.alice, ours), kind, FREE) == "ok"
    other = site.bob.open(path, os.O_RDWR)
    site.bob.begin(wait_and_count, other, kind)  # the last of the victim may go a moment after it was reaped
    assert site.bob.result(SOON_S) == "locked"
    for user, descriptor in ((site.alice, ours), (site.bob, other)):
        user.close(descriptor)


def test_two_that_wait_for_each_other_are_told(opened):
    alice, bob = opened
    assert take(alice, "posix", EXCLUSIVE, 0, 1) == take(bob, "posix", EXCLUSIVE, 1, 1) == "ok"
    bob[0].begin(lock, bob[1], "posix", EXCLUSIVE, 0, 1, True)
    with pytest.raises(TimeoutError):
        bob[0].result(NEVER_S)
    assert outcome(alice[0].do, lock, alice[1], "posix", EXCLUSIVE, 1, 1, True) == errno.errorcode[errno.EDEADLK]
    assert take(alice, "posix", FREE) == "ok"
    assert bob[0].result(SOON_S) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("flags", "what", "expected"),
    [(os.O_RDONLY, SHARED, "ok"), (os.O_RDONLY, EXCLUSIVE, "EBADF"), (os.O_WRONLY, SHARED, "EBADF")],
)
def test_how_the_file_has_to_be_open(site, kind, flags, what, expected):
    descriptor = site.alice.open(site.file("f", 0o666), flags)
    assert take((site.alice, descriptor), kind, what) == ("ok" if kind == "flock" else expected)
    site.alice.close(descriptor)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_is_of_the_file_not_of_its_name(site, opened, kind):
    alice, bob = opened
    assert take(alice, kind, EXCLUSIVE) == "ok"
    os.link(site / "f", site / "g")
    os.rename(site / "f", site / "h")
    os.unlink(site / "h")
    other = bob[0].open(site / "g", os.O_RDWR)
    assert take((bob[0], other), kind, EXCLUSIVE) == "EAGAIN"
    assert take(alice, kind, FREE) == "ok"
    assert take((bob[0], other), kind, EXCLUSIVE) == "ok"
    bob[0].close(other)


@pytest.mark.parametrize("kind", ["flock", "ofd"])
def test_directories_and_fifos(site, kind):
    """flock locks a directory; the others want it open for writing, which it cannot be."""
    descriptor = site.alice.open(site.directory("d", 0o777), os.O_RDONLY)
    assert take((site.alice, descriptor), kind, SHARED) == "ok"
    assert take((site.alice, descriptor), kind, EXCLUSIVE) == ("ok" if kind == "flock" else "EBADF")
    site.alice.close(descriptor)
