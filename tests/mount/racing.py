"""What processes do to the same directories at the same time: each function is the work of one, and says what it saw.

Losing a race is an errno, and each function names those that losing may give; any other is raised, and fails the test.
"""

import ctypes
import errno
import os
import random
from collections import Counter
from collections.abc import Callable

NOREPLACE, EXCHANGE = 1, 2

KINDS = ("file", "directory", "symlink", "fifo", "link", "renamed file", "renamed directory")
"""The ways to take a name that nobody has."""

_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: str, new: str, flags: int) -> None:
    """rename with flags, which Python does not pass."""
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def lost(call: Callable[..., object], *arguments: object, to: tuple[int, ...]) -> int:
    """Call it; 0, or the errno with which it lost, one of `to`."""
    try:
        call(*arguments)
    except OSError as error:
        if error.errno not in to:
            raise
        return error.errno
    return 0


def make(path: str, data: bytes = b"") -> None:
    """A new file with contents, in one write(2)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        assert os.write(descriptor, data) == len(data)
    finally:
        os.close(descriptor)


def read(path: str) -> bytes:
    """All of what is there now."""
    with open(path, "rb", buffering=0) as file:
        return file.readall()


# --- one name, one winner


def _way(number: int, name: int) -> str:
    return KINDS[(name + number) % len(KINDS)]


def prepare(root: str, number: int, rounds: int) -> None:
    """What is to be linked or moved to a name."""
    for name in range(rounds):
        kind, source = _way(number, name), f"{root}/{number} for {name}"
        if kind in ("link", "renamed file"):
            make(source)
        elif kind == "renamed directory":
            os.mkdir(source)


def claim(root: str, number: int, rounds: int) -> dict[int, str]:
    """Try to take each of the names 0, 1, 2…, each in another way; which were taken, and how.

    Who is behind loses fast, so that all soon try for the same name.
    """
    won = {}
    for name in range(rounds):
        kind, path, source = _way(number, name), f"{root}/{name}", f"{root}/{number} for {name}"
        calls = {
            "file": (make, path),
            "directory": (os.mkdir, path),
            "symlink": (os.symlink, "nowhere", path),
            "fifo": (os.mkfifo, path),
            "link": (os.link, source, path),
        }
        if not lost(*calls.get(kind, (renameat2, source, path, NOREPLACE)), to=(errno.EEXIST,)):
            won[name] = kind
    return won


def tidy(root: str, number: int, rounds: int, won: dict[int, str]) -> None:
    """Remove what was prepared. What was moved is not there any more, and all else is."""
    for name in range(rounds):
        kind, source = _way(number, name), f"{root}/{number} for {name}"
        if kind == "link" or (kind.startswith("renamed") and name not in won):
            (os.rmdir if kind == "renamed directory" else os.unlink)(source)


# --- a name that is replaced is always there


def version(number: int, count: int) -> bytes:
    """What a file holds: who made it, which of his it is, how long it is, and that many bytes."""
    size = random.Random(f"{number}/{count}").choice((100, 1500, 5000, 70_000))
    return b"%8d%8d%8d" % (number, count, size) + bytes([count % 251 + 1]) * size


def replace(target: str, number: int, rounds: int) -> None:
    """Put one version after the other in its place."""
    for count in range(rounds):
        make(f"{target} by {number}", version(number, count))
        os.rename(f"{target} by {number}", target)


def swap(one: str, other: str, rounds: int) -> None:
    """Exchange two that are both there at any time."""
    for _ in range(rounds):
        renameat2(one, other, EXCHANGE)


def watch(targets: list[str], stop: str) -> Counter[int]:
    """Open, read and stat them until told to stop: they are there, and each a whole version, never one older than what
    the same writer was seen to have put there. How many versions of each writer were seen."""
    newest: dict[tuple[str, int], int] = {}
    seen: set[tuple[int, int]] = set()
    ended = False
    while not ended:
        ended = os.path.exists(stop)  # so that the last look is at what is left
        for target in targets:
            os.stat(target)
            data = read(target)
            number, count = int(data[:8]), int(data[8:16])
            assert data == version(number, count), f"{len(data)} bytes are no whole version"
            if len(targets) == 1:
                assert count >= newest.get((target, number), 0), "an older version came back"
                newest[target, number] = count
            seen.add((number, count))
    return Counter(number for number, _ in seen)


# --- reading a directory that changes


def bustle(root: str, number: int, seed: int, rounds: int) -> None:
    """Names of its own that come, go and move; one of them is renamed only."""
    rng = random.Random(f"{seed}/{number}")
    roaming = f"{root}/roaming {number} "
    for count in range(rounds):
        here, there = (f"{root}/{number} {rng.randrange(12)}" for _ in range(2))
        call = rng.choice((os.mkdir, make, os.rmdir, os.unlink, os.rename, os.link))
        paths = (here, there) if call in (os.rename, os.link) else (here,)
        lost(
            call,
            *paths,
            to=(errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EPERM),
        )
        os.rename(f"{roaming}{count % 2}", f"{roaming}{(count + 1) % 2}")


def read_again_and_again(root: str, stop: str) -> list[Counter[str]]:
    """Every reading of the directory until told to stop: how often each name was seen, but those that come and go."""
    readings = []
    ended = False
    while not ended:
        ended = os.path.exists(stop)
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries]
        readings.append(Counter(name[:-2] if "roaming" in name else name for name in names if not name[0].isdigit()))
    return readings


# --- links


def juggle(names: list[str], number: int, seed: int, rounds: int) -> Counter[str]:
    """Make, link, rename, exchange and unlink any of the names; how often each was done."""
    rng = random.Random(f"{seed}/{number}")
    done: Counter[str] = Counter()
    for _ in range(rounds):
        one, other = rng.sample(names, 2)
        kind = rng.choice(("make", "link", "link", "link", "rename", "noreplace", "exchange", "unlink"))
        if kind == "make":
            code = lost(make, one, to=(errno.EEXIST,))
        elif kind == "link":
            code = lost(os.link, one, other, to=(errno.ENOENT, errno.EEXIST))
        elif kind == "rename":
            code = lost(os.rename, one, other, to=(errno.ENOENT,))
        elif kind == "noreplace":
            code = lost(renameat2, one, other, NOREPLACE, to=(errno.ENOENT, errno.EEXIST))
        elif kind == "exchange":
            code = lost(renameat2, one, other, EXCHANGE, to=(errno.ENOENT,))
        else:
            code = lost(os.unlink, one, to=(errno.ENOENT,))
        done[kind] += not code
    return done


# --- directories within directories


def some_directory(root: str, rng: random.Random) -> str:
    """A path that was there a moment ago: of a directory, where there is nothing else."""
    path = root
    while rng.random() < 0.75:
        try:
            below = sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            break
        if not below:
            break
        path = f"{path}/{rng.choice(below)}"
    return path


def shuffle(root: str, number: int, seed: int, rounds: int) -> int:
    """Move directories into each other, or exchange them; each keeps its name. How many moves there were."""
    rng = random.Random(f"{seed}/{number}")
    moves = 0
    for _ in range(rounds):
        one, other = some_directory(root, rng), some_directory(root, rng)
        if one == root:
            continue
        if other != root and rng.random() < 0.2:
            code = lost(renameat2, one, other, EXCHANGE, to=(errno.ENOENT, errno.EINVAL))
        else:
            into = f"{other}/{os.path.basename(one)}"
            code = lost(renameat2, one, into, NOREPLACE, to=(errno.ENOENT, errno.EINVAL, errno.EEXIST))
        moves += not code
    return moves


# --- removing what others fill


def fill(root: str, number: int, seed: int, rounds: int) -> int:
    """Make directories and files anywhere below; what is written to a file that was removed meanwhile is there. How
    many were made."""
    rng = random.Random(f"{seed}/{number}")
    made = 0
    for count in range(rounds):
        path = f"{some_directory(root, rng)}/{number}-{count}"
        if rng.random() < 0.5:
            made += not lost(os.mkdir, path, to=(errno.ENOENT, errno.ENOTDIR))
            continue
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except (FileNotFoundError, NotADirectoryError):
            continue
        data = rng.randbytes(rng.choice((10, 5000)))
        assert os.write(descriptor, data) == len(data)
        assert os.pread(descriptor, len(data) + 1, 0) == data
        os.close(descriptor)
        made += 1
    return made


def clear(path: str) -> None:
    """Remove everything below, as `rm -r` does: names that are gone already do not matter, nor do new ones."""
    try:
        with os.scandir(path) as entries:
            found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return
    for name, is_directory in found:
        if is_directory:
            clear(name)
            lost(os.rmdir, name, to=(errno.ENOENT, errno.ENOTEMPTY))
        else:
            lost(os.unlink, name, to=(errno.ENOENT,))


def clear_again_and_again(path: str, stop: str) -> None:
    """Until told to stop."""
    while not os.path.exists(stop):
        clear(path)
