"""Any call on any name, by several processes in the same three directories: what may come of it, and what is left.

Names are few, so that whatever a process looks at, another one has just made, moved, replaced or removed.
"""

import errno
import os
import random
import stat
from collections import Counter
from pathlib import Path

from tests.mount.racing import EXCHANGE, NOREPLACE, lost, make, read, renameat2

TOPS = ("x", "y", "z")
NAMES = ("a", "b", "c", "d")

_GONE = {errno.ENOENT, errno.ENOTDIR}
ERRORS = {
    "make": _GONE | {errno.EEXIST},
    "mkdir": _GONE | {errno.EEXIST},
    "symlink": _GONE | {errno.EEXIST},
    "link": _GONE | {errno.EEXIST, errno.EPERM},
    "unlink": _GONE | {errno.EISDIR},
    "rmdir": _GONE | {errno.ENOTEMPTY},
    "rename": _GONE | {errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL},
    "noreplace": _GONE | {errno.EEXIST, errno.EINVAL},
    "exchange": _GONE | {errno.EINVAL},
    "read": _GONE | {errno.EISDIR},
    "list": _GONE,
    "chmod": _GONE,
}
"""What each call may come to, by the manual page of it. A directory that is replaced by one above it: ENOTEMPTY."""


def token(number: int, count: int) -> bytes:
    """What the file holds that was made then: whole, or not yet."""
    return b"%d-%d;" % (number, count) * (1 if count % 2 else 400)


def is_token(data: bytes) -> bool:
    """Whether somebody wrote just that."""
    head = data.partition(b";")[0]
    return b"-" in head and data == token(*map(int, head.split(b"-")))


def read_token(path: str) -> None:
    """A file is empty as long as it is being made, and whole afterwards."""
    data = read(path)
    assert not data or is_token(data), f"{data[:50]!r}, {len(data)} bytes, was written by nobody"


def brawl(root: str, number: int, seed: int, rounds: int) -> Counter[str]:
    """Do anything; how often each call succeeded."""
    rng = random.Random(f"{seed}/{number}")
    done: Counter[str] = Counter()
    for count in range(rounds):
        one, other = (_place(root, rng) for _ in range(2))
        calls = {
            "make": (make, one, token(number, count)),
            "mkdir": (os.mkdir, one),
            "symlink": (os.symlink, "nowhere", one),
            "link": (os.link, one, other),
            "unlink": (os.unlink, one),
            "rmdir": (os.rmdir, one),
            "rename": (os.rename, one, other),
            "noreplace": (renameat2, one, other, NOREPLACE),
            "exchange": (renameat2, one, other, EXCHANGE),
            "read": (read_token, one),
            "list": (os.listdir, one),
            "chmod": (os.chmod, one, rng.choice((0o700, 0o755))),
        }
        (kind,) = rng.choices([*calls], [4, 3, 1, 2, 2, 2, 4, 2, 2, 3, 2, 1])
        done[kind] += not lost(*calls[kind], to=tuple(ERRORS[kind]))
    return done


def _place(root: str, rng: random.Random) -> str:
    path = f"{root}/{rng.choice(TOPS)}/{rng.choice(NAMES)}"
    return f"{path}/{rng.choice(NAMES)}" if rng.random() < 0.4 else path


def check(root: Path) -> int:
    """What is left is a tree: every file as often as its link count says and whole, every directory once, below the
    one that its `..` names. How many names there are."""
    names: Counter[int] = Counter()
    links: dict[int, int] = {}
    for folder, folders, files in os.walk(root, onerror=_raise):
        found = os.lstat(folder)
        assert found.st_nlink == 2 + sum(not os.path.islink(f"{folder}/{name}") for name in folders), folder
        for name in folders + files:
            path = f"{folder}/{name}"
            info = os.lstat(path)
            names[info.st_ino] += 1
            if stat.S_ISDIR(info.st_mode):
                assert names[info.st_ino] == 1, f"{path} has two places"
                assert os.stat(f"{path}/..").st_ino == found.st_ino, f"{path}/.. is another directory"
            else:
                links[info.st_ino] = info.st_nlink
                assert not stat.S_ISREG(info.st_mode) or is_token(read(path)), f"{path} is not whole"
    assert links == {inode: names[inode] for inode in links}
    return names.total()


def inodes_below(root: Path) -> int:
    """How many there are, the top among them."""
    return len({os.lstat(root).st_ino, *(os.lstat(path).st_ino for path in root.rglob("*"))})


def used_inodes(path: Path) -> int:
    """How many the filesystem says that it has."""
    found = os.statvfs(path)
    return found.f_files - found.f_ffree


def _raise(error: OSError) -> None:
    raise error
