"""Processes that race for the same names in the same directories: who may win, what others may see meanwhile, and what
is left. Each test runs in a plain directory too, which shows that it asks for nothing that Linux does not promise.
"""

import itertools
import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.mount import brawling, racing
from tests.mount.harness import TINY, Lab
from tests.mount.hosts import wait_for
from tests.mount.posix.users import User
from tests.mount.trees import differences, snapshot

pytestmark = pytest.mark.mount

RACERS = 4
MANY = 20
"""Times the short version."""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def racers():
    """Forked before anything is mounted, so that they hold nothing of it."""
    crew = [User(f"racer {number}", os.geteuid(), os.getegid(), []) for number in range(RACERS)]
    yield crew
    for racer in crew:
        racer.end()


@pytest.fixture(
    scope="module", params=["plain", "zerofs", pytest.param("zerofs, writethrough", marks=pytest.mark.slow)]
)
def ground(request, racers, tmp_path_factory):
    """Where they race. What is left in the end is the same after a cold remount, and fsck finds nothing."""
    if request.param == "plain":
        path = Path(tempfile.mkdtemp(prefix="zf-plain-", dir="/tmp"))
        yield path
        shutil.rmtree(path)
        return
    request.getfixturevalue("fuse")
    with Lab(tmp_path_factory.mktemp("races"), patience_s=1200) as lab:
        settings = {**TINY, "servers.fuse": {"writeback": request.param == "zerofs"}}
        mount = lab.mount(lab.local_store(), settings=settings)
        yield mount.path
        before = snapshot(mount.path)
        mount.cold_remount()
        assert differences(before, snapshot(mount.path), same_filesystem=True) == []
        mount.umount()
        mount.zerofs("fsck")


@pytest.fixture
def root(ground):
    """A new directory for one test."""
    path = ground / f"{next(_numbers)}"
    path.mkdir()
    return path


@pytest.fixture(params=[1, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(900)])], ids=["few", "many"])
def times(request):
    """How many times the rounds of the short version."""
    return request.param


def is_mount(root):
    """Whether a test's directory is that of a mount: what is said of zerofs alone."""
    return root.parent.name == "mnt"


def race(racers, *works):
    """Let each do its work, all at the same time. What each came to; what any of them raised is raised."""
    for racer, work in zip(racers, works, strict=False):
        racer.begin(*work)
    results, errors = [], []
    for racer, _ in zip(racers, works, strict=False):
        try:
            results.append(racer.result())
        except Exception as error:
            errors.append(error)
    for error in errors:
        raise error
    return results


def race_watched(racers, stop, works, watchers):
    """The same, with watchers that are told to stop when the works are done. What works and watchers came to."""
    watching = racers[len(works) :]
    for racer, work in zip(watching, watchers, strict=True):
        racer.begin(*work)
    try:
        done = race(racers, *works)
    finally:
        stop.touch()
        seen = [racer.result() for racer in watching]
    return done, seen


def test_one_wins_whatever_it_does(racers, root, times):
    """O_EXCL, mkdir, symlink, mkfifo, link and RENAME_NOREPLACE, all for one name."""
    rounds = 100 * times
    race(racers, *((racing.prepare, str(root), number, rounds) for number in range(RACERS)))
    won = race(racers, *((racing.claim, str(root), number, rounds) for number in range(RACERS)))
    for number, claimed in enumerate(won):
        racing.tidy(str(root), number, rounds, claimed)
    winners = Counter(name for claimed in won for name in claimed)
    assert winners == dict.fromkeys(range(rounds), 1)
    kinds = {name: kind for claimed in won for name, kind in claimed.items()}
    expected = {"file": "is_file", "link": "is_file", "directory": "is_dir", "symlink": "is_symlink", "fifo": "is_fifo"}
    for name, kind in kinds.items():
        assert getattr(root / f"{name}", expected[kind.removeprefix("renamed ")])(), f"{name} is no {kind}"
    assert {path.name for path in root.iterdir()} == {f"{name}" for name in range(rounds)}
    if is_mount(root):  # a plain directory is so fast that the first may be done before the next begins
        assert sum(map(bool, won)) > 1, "no race: one won all"


def test_what_is_replaced_is_always_there_and_whole(racers, root, tmp_path, times):
    target, rounds = str(root / "target"), 60 * times
    racing.make(target, racing.version(0, 0))
    works = [(racing.replace, target, number, rounds) for number in range(2)]
    watchers = [(racing.watch, [target], str(tmp_path / "stop"))] * 2
    _, seen = race_watched(racers, tmp_path / "stop", works, watchers)
    assert racing.read(target) in (racing.version(0, rounds - 1), racing.version(1, rounds - 1))
    assert [path.name for path in root.iterdir()] == ["target"]
    if is_mount(root):
        assert sum(counted.total() for counted in seen) > rounds / 10, "they were not watched"


def test_what_is_exchanged_is_always_there(racers, root, tmp_path, times):
    """Both names, and what either holds is one of two."""
    one, other, rounds = str(root / "one"), str(root / "other"), 200 * times
    for number, path in enumerate((one, other)):
        racing.make(path, racing.version(number, 0))
    works = [(racing.swap, one, other, rounds), (racing.swap, one, other, rounds)]
    watchers = [(racing.watch, [one, other], str(tmp_path / "stop"))] * 2
    _, seen = race_watched(racers, tmp_path / "stop", works, watchers)
    assert [racing.read(path) for path in (one, other)] == [racing.version(number, 0) for number in range(2)]
    assert seen == [Counter({0: 1, 1: 1})] * 2


def test_what_stays_is_seen_once_in_every_reading(racers, root, tmp_path, times):
    staying = {f"staying {number:03}" for number in range(150)}
    roaming = {f"roaming {number}" for number in range(2)}
    for name in [*staying, *(f"{name} 0" for name in roaming)]:
        racing.make(str(root / name))
    works = [(racing.bustle, str(root), number, times, 150 * times) for number in range(2)]
    watchers = [(racing.read_again_and_again, str(root), str(tmp_path / "stop"))] * 2
    _, seen = race_watched(racers, tmp_path / "stop", works, watchers)
    # POSIX says nothing about an entry that is renamed meanwhile: ext4 may show it twice or not. zerofs shows it once.
    counted = staying | roaming if is_mount(root) else staying
    for reading in itertools.chain(*seen):
        found = Counter({name: reading[name] for name in reading if name in counted})
        assert found == dict.fromkeys(counted, 1), Counter(dict.fromkeys(counted, 1)) - found or found
    if is_mount(root):
        assert min(map(len, seen)) > 3, "nobody read"


def test_link_counts_are_those_of_the_names(racers, root, times):
    """Also of files that lost their last name while they are open."""
    names = [str(root / folder / f"{name}") for folder in "abc" for name in range(6)]
    for folder in "abc":
        (root / folder).mkdir()
    for name in random.Random(times).sample(names, 8):
        racing.make(name, name.encode())
    opened = {name: os.open(name, os.O_RDONLY) for name in names if os.path.exists(name)}
    try:
        done = race(racers, *((racing.juggle, names, number, times, 200 * times) for number in range(RACERS)))
        found = [os.stat(path) for path in root.glob("*/*")]
        left = Counter(info.st_ino for info in found)
        assert all(info.st_nlink == left[info.st_ino] for info in found)
        for name, descriptor in opened.items():
            info = os.fstat(descriptor)
            assert info.st_nlink == left[info.st_ino]
            assert os.pread(descriptor, 1000, 0) == name.encode()
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
    assert set(sum(done, Counter())) == {"make", "link", "rename", "noreplace", "exchange", "unlink"}


def test_directories_that_move_into_each_other_stay_one_tree(racers, root, times):
    """No loop, none lost: each is found once, below the one that its `..` names."""
    for name in "abcdefghij":
        (root / name).mkdir()
    before = sorted(path.stat().st_ino for path in root.iterdir())
    moves = race(racers, *((racing.shuffle, str(root), number, times, 120 * times) for number in range(RACERS)))
    assert min(moves) > 0
    assert brawling.check(root) == len(before)
    assert sorted(path.stat().st_ino for path in root.rglob("*")) == before
    assert sorted(path.name for path in root.rglob("*")) == list("abcdefghij")


def test_removing_what_others_fill(racers, root, tmp_path, times):
    """It is done when they stop, and what was removed counts no more."""
    tree = root / "tree"
    tree.mkdir()
    works = [(racing.fill, str(tree), number, times, 150 * times) for number in range(2)]
    watchers = [(racing.clear_again_and_again, str(tree), str(tmp_path / "stop"))] * 2
    made, _ = race_watched(racers, tmp_path / "stop", works, watchers)
    assert min(made) > 10
    racing.clear(str(tree))
    assert list(tree.iterdir()) == []
    tree.rmdir()
    if is_mount(root):  # the kernel lets go of what was closed when it finds the time
        wait_for(lambda: brawling.used_inodes(root) == brawling.inodes_below(root.parent), "the removed to be gone")


def test_anything_at_once_leaves_a_tree(racers, root, times):
    for name in brawling.TOPS:
        (root / name).mkdir()
    for seed in range(times):
        done = race(racers, *((brawling.brawl, str(root), number, seed, 300) for number in range(RACERS)))
        brawling.check(root)
    succeeded = sum(done, Counter())
    assert set(succeeded) == set(brawling.ERRORS), "each call succeeded now and then"
