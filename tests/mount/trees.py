"""Trees of files for tests: building them, and telling whether two are the same in everything that can be seen.

A snapshot is a plain dictionary: path below the root (bytes; the root itself is b".") to `Node`. It is compared whole,
so a file too many, an attribute too few or a hard link that became a copy all show up by name.
"""

import dataclasses
import hashlib
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
COMMAND_TIMEOUT_S = 200.0

_TOP = b"."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """All that lstat(2), readlink(2), the xattr calls and reading tell about one path.

    `links` are the paths in the tree that lead to the same inode. What a filesystem chooses for itself (inode numbers,
    link counts and sizes of directories, blocks, change times) is in `local`, and compared only between snapshots of
    one. Access times, which looking changes, are there for empty files only: those are not opened.
    """

    mode: int
    owner: tuple[int, int]
    links: tuple[bytes, ...]
    size: int | None
    mtime_ns: int
    rdev: int
    target: bytes | None
    xattrs: tuple[tuple[bytes, bytes], ...]
    digest: str | None
    local: tuple[int, ...]


def snapshot(root: Path) -> dict[bytes, Node]:
    """Everything at and below `root`."""
    top = os.fsencode(root)
    stats = {}
    for folder, folders, files in os.walk(top, onerror=_raise):
        for name in [b""] if folder == top else []:
            stats[_TOP] = os.lstat(os.path.join(folder, name))
        for name in folders + files:
            path = os.path.join(folder, name)
            stats[os.path.relpath(path, top)] = os.lstat(path)
    by_inode: dict[int, list[bytes]] = {}
    for path, found in stats.items():
        by_inode.setdefault(found.st_ino, []).append(path)
    return {
        path: _node(os.path.join(top, path), found, tuple(sorted(by_inode[found.st_ino])))
        for path, found in sorted(stats.items())
    }


def _raise(error: OSError) -> None:
    raise error


def _node(path: bytes, found: os.stat_result, links: tuple[bytes, ...]) -> Node:
    kind = stat.S_IFMT(found.st_mode)
    is_link, is_directory = kind == stat.S_IFLNK, kind == stat.S_IFDIR
    return Node(
        mode=found.st_mode,
        owner=(found.st_uid, found.st_gid),
        links=links,
        size=None if is_directory else found.st_size,
        mtime_ns=found.st_mtime_ns,
        rdev=found.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        target=os.readlink(path) if is_link else None,
        xattrs=tuple(
            (os.fsencode(name), os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        ),
        digest=_digest(path) if kind == stat.S_IFREG and found.st_size else None,
        local=(
            found.st_ino,
            found.st_nlink,
            found.st_size,
            found.st_blocks,
            found.st_ctime_ns,
            0 if found.st_size or kind != stat.S_IFREG else found.st_atime_ns,
        ),
    )


def _digest(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_become(expected: Mapping[bytes, Node], top: Path, *, same_filesystem: bool) -> bool:
    """Whether a tree looks as expected now. One that changes while it is looked at does not, yet."""
    try:
        return not differences(expected, snapshot(top), same_filesystem=same_filesystem)
    except OSError:
        return False


def differences(
    expected: Mapping[bytes, Node], found: Mapping[bytes, Node], *, same_filesystem: bool, limit: int = 20
) -> list[str]:
    """What is not the same, in words. Between two filesystems, what each chooses for itself does not count."""
    said = [f"{path!r} is missing" for path in expected.keys() - found.keys()]
    said += [f"{path!r} was not there before" for path in found.keys() - expected.keys()]
    for path in sorted(expected.keys() & found.keys()):
        for field in dataclasses.fields(Node):
            ours, theirs = getattr(expected[path], field.name), getattr(found[path], field.name)
            if ours != theirs and (same_filesystem or field.name != "local"):
                said.append(f"{path!r}: {field.name} was {ours!r}, is {theirs!r}")
    return said[:limit]


# --- building ---------------------------------------------------------------------------------------------------


def run(*command: object, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Run a program that must succeed; what it printed."""
    done = subprocess.run(
        [os.fspath(word) if isinstance(word, Path) else str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


def missing(program: str) -> bool:
    """Whether a program is not installed."""
    return shutil.which(program) is None


def copy(source: Path, target: Path) -> None:
    """`cp -a`."""
    run("cp", "-a", "--", source, target)


STDLIB = Path(sysconfig.get_path("stdlib"))
SLICE = ("asyncio", "collections", "concurrent", "email", "html", "http", "importlib", "json", "logging")


def standard_library(target: Path, packages: Iterable[str] | None) -> None:
    """A real tree: these packages of the standard library, or all of it but what is installed there."""
    target.mkdir()
    for path in sorted(STDLIB.iterdir()):
        if path.name != "site-packages" and (packages is None or path.name in packages):
            copy(path, target / path.name)


def oddities(root: Path) -> None:
    """Whatever is not a plain file of a plain name: links, modes, times, xattrs, holes, names of any bytes, a fifo."""
    root.mkdir()
    top = os.fsencode(root)
    _files_of_all_sizes(root / "sizes")
    for number, name in enumerate((b"\xff\xfe not utf-8 \x01\n", "ümläut".encode(), b"n" * 255, b"-rf", b" ", b"\\")):
        path = os.path.join(top, name)
        with open(path, "xb") as file:
            file.write(b"named %d" % number)
    _links(root)
    for mode in (0o0, 0o4755, 0o2755, 0o1777, 0o7777, 0o604):
        folder, file = root / f"folder-{mode:o}", root / f"file-{mode:o}"
        folder.mkdir()
        file.write_bytes(b"%o" % mode)
        for path in (folder, file):
            path.chmod(mode)
    os.mkfifo(root / "fifo", 0o640)
    if os.geteuid() == 0:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.chown(root / "file-604", 1234, 4321)
    _xattrs(root)
    _holes(root / "holes")
    _times(root / "times")


TIMES = {"old": 1, "exact": 1_234_567_890_123_456_789, "before 1970": -1_500_000_000, "late": 2**33 * 10**9 + 7}


def _times(folder: Path) -> None:
    folder.mkdir()
    for name, moment_ns in TIMES.items():
        (folder / name).touch()
        os.utime(folder / name, ns=(moment_ns + 1, moment_ns))
    os.utime(folder, ns=(5, 123_456_789_000_000_001))


def check_times(folder: Path) -> None:
    """Access and modification times are those that were set, to the nanosecond."""
    for name, moment_ns in TIMES.items():
        found = (folder / name).lstat()
        assert (found.st_atime_ns, found.st_mtime_ns) == (moment_ns + 1, moment_ns), name


def _files_of_all_sizes(folder: Path) -> None:
    """Around every border: a file in its row, the chunk, several chunks."""
    folder.mkdir()
    source = random.Random(2)
    for border in (0, 1, KIB, 4 * KIB, 32 * KIB, 64 * KIB, MIB):
        for size in (border - 1, border, border + 1):
            if size >= 0:
                (folder / str(size)).write_bytes(source.randbytes(size))
    (folder / "compressible").write_bytes(b"again and " * 30_000)
    (folder / "zeros").write_bytes(bytes(100_000))


def _links(root: Path) -> None:
    (root / "links" / "deep" / "er").mkdir(parents=True)
    (root / "links" / "one").write_bytes(b"many names")
    os.link(root / "links" / "one", root / "links" / "two")
    os.link(root / "links" / "one", root / "links" / "deep" / "er" / "three")
    os.symlink("one", root / "links" / "relative")
    os.symlink(b"/no/where/\xff", os.fsencode(root / "links" / "dangling"))
    os.symlink("t" * 4000, root / "links" / "long")
    os.link(root / "links" / "dangling", root / "links" / "dangling too", follow_symlinks=False)
    os.utime(root / "links" / "relative", ns=(7, 1_000_000_007), follow_symlinks=False)


def _xattrs(root: Path) -> None:
    path = root / "with xattrs"
    path.write_bytes(b"x")
    source = random.Random(3)
    os.setxattr(path, b"user.empty", b"")
    os.setxattr(path, b"user.\xff bytes", b"\x00\x01\xff")
    os.setxattr(path, "user.large", source.randbytes(1500))
    os.setxattr(root / "links" / "deep", "user.of a directory", b"value")
    for number in range(20):
        os.setxattr(path, f"user.number {number}", b"%d" % number)


def _holes(path: Path) -> None:
    with open(path, "xb") as file:
        file.seek(3 * MIB + 5)
        file.write(b"far out")
        file.truncate(5 * MIB + 1)
        file.seek(MIB - 1)
        file.write(b"between")


GIT = {
    "GIT_OPTIONAL_LOCKS": "0",  # looking changes nothing
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def git(folder: Path, *arguments: object) -> str:
    """`git ARGUMENTS` in a folder, without any configuration of this machine."""
    return run("git", "-c", f"safe.directory={folder}", *arguments, cwd=folder, environ=GIT)


def repository(folder: Path, commits: int = 12) -> None:
    """A repository with packed and loose objects, branches and a tag."""
    folder.mkdir()
    source = random.Random(4)
    git(folder, "init", "-q", "-b", "main")
    for number in range(commits):
        for name in range(8):
            path = folder / f"part-{name % 3}" / f"file-{name}"
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as file:
                file.write(source.randbytes(300).hex().encode() + b"\n")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", f"commit {number}")
        if number == commits // 2:
            git(folder, "tag", "-a", "-m", "half", "half")
            git(folder, "gc", "-q")
            git(folder, "branch", "side")


def clone(source: Path, target: Path) -> None:
    """`git clone`, with every object copied."""
    run("git", "-c", f"safe.directory={source}/.git", "clone", "-q", "--no-local", source, target, environ=GIT)


def check_repository(folder: Path) -> None:
    """`git fsck` finds nothing, and the work tree is clean."""
    git(folder, "fsck", "--full", "--strict", "--no-dangling")
    assert git(folder, "status", "--porcelain") == ""


ROWS = 4000


def database(path: Path) -> None:
    """An SQLite database as programs build one: several transactions, an index, updates, a VACUUM."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT, number REAL, data BLOB)")
        connection.execute("CREATE INDEX by_word ON words (word)")
        source = random.Random(5)
        for start in range(0, ROWS, ROWS // 8):
            rows = [
                (number, f"word {source.random()}", source.random(), source.randbytes(100))
                for number in range(start, start + ROWS // 8)
            ]
            with connection:
                connection.executemany("INSERT INTO words VALUES (?, ?, ?, ?)", rows)
        with connection:
            connection.execute("UPDATE words SET number = number + 1 WHERE id % 3 = 0")
            connection.execute("DELETE FROM words WHERE id % 7 = 0")
        connection.execute("VACUUM")


def check_database(path: Path) -> None:
    """The database is whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = ROWS - len(range(0, ROWS, 7))
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM words").fetchone() == (kept, kept)
