"""A program that changes files step by step and notes outside of the mount what it knows to be durable.

    python journal.py DIRECTORY NOTES SEED

Which step comes when is a function of the seed (`steps`), and so is what the directory holds after any number of them
(`states`). Each note is one line: how many steps were done, the last of them an fsync. It runs until a step fails,
which is what happens when somebody kills the filesystem under it.
"""

import dataclasses
import itertools
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

APPENDED = ("ledger", "journal", "diary")
DIRECTORY = "."
"""What is fsynced when it is the directory itself."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One system call that changes something, or an fsync of `path`, a file or the directory."""

    kind: str
    path: str
    other: str = ""
    data: bytes = b""


def steps(seed: int) -> Iterator[Step]:
    """Endless work: records appended to a few files, files made, renamed over each other, removed; fsyncs between."""
    source = random.Random(seed)
    for path in APPENDED:
        yield Step("create", path)
    files: list[str] = []
    for number in itertools.count():
        for _ in range(source.randrange(1, 6)):
            data = b"%06d %s\n" % (number, source.randbytes(source.choice((3, 40, 700, 9000))).hex().encode())
            yield Step("append", source.choice(APPENDED), data=data)
        choice = source.random()
        if choice < 0.5 or len(files) < 3:
            files.append(f"file {number}")
            yield Step("create", files[-1])
            yield Step("append", files[-1], data=source.randbytes(source.choice((10, 5000, 70_000))))
        elif choice < 0.7:
            old, new = files.pop(source.randrange(len(files))), f"renamed {number}"
            files.append(new)
            yield Step("rename", old, new)
        elif choice < 0.8:
            old, new = source.sample(files, 2)
            files.remove(old)
            yield Step("rename", old, new)
        elif choice < 0.9:
            yield Step("unlink", files.pop(source.randrange(len(files))))
        else:
            yield Step("mkdir", f"folder {number}")
        if source.random() < 0.3:
            yield Step("fsync", source.choice([*APPENDED, *files, DIRECTORY]))


def states(seed: int, first: int, last: int) -> Iterator[dict[str, bytes | None]]:
    """What it holds after `first` steps, after one more, and so on up to `last`. One dictionary, changed in place."""
    found: dict[str, bytes | None] = {}
    if first == 0:
        yield found
    for done, step in enumerate(itertools.islice(steps(seed), last), 1):
        if step.kind == "create":
            found[step.path] = b""
        elif step.kind == "append":
            found[step.path] = (found[step.path] or b"") + step.data
        elif step.kind == "rename":
            found[step.other] = found.pop(step.path)
        elif step.kind == "unlink":
            del found[step.path]
        elif step.kind == "mkdir":
            found[step.path] = None
        if done >= first:
            yield found


def fsynced_sizes(seed: int, count: int, moment: int) -> dict[str, int]:
    """For every file that is there after `moment` steps: how much of it was made durable by an fsync of that very file
    among the first `count` steps. What a file was renamed to afterwards has what it had."""
    sizes: dict[str, int] = {}
    for done, (step, state) in enumerate(zip(steps(seed), states(seed, 1, moment), strict=False), 1):
        if step.kind == "fsync" and step.path != DIRECTORY and done <= count:
            sizes[step.path] = len(state[step.path] or b"")
        elif step.kind == "rename":
            sizes[step.other] = sizes.pop(step.path, 0)
        elif step.kind == "unlink":
            sizes.pop(step.path, None)
    return sizes


def read_directory(root: Path) -> dict[str, bytes | None]:
    """What the directory does hold."""
    return {path.name: None if path.is_dir() else path.read_bytes() for path in root.iterdir()}


def work(root: str, notes: int, seed: int) -> None:
    """Do the steps until one fails."""
    opened: dict[str, int] = {}

    def descriptor(path: str) -> int:
        if path not in opened:
            flags = os.O_DIRECTORY if path == DIRECTORY else os.O_WRONLY | os.O_APPEND | os.O_CREAT
            opened[path] = os.open(os.path.join(root, path), flags)
        return opened[path]

    for done, step in enumerate(steps(seed)):
        path = os.path.join(root, step.path)
        if step.kind == "create":
            descriptor(step.path)
        elif step.kind == "append":
            assert os.write(descriptor(step.path), step.data) == len(step.data)
        elif step.kind == "rename":
            os.rename(path, os.path.join(root, step.other))
            replaced = opened.pop(step.other, None)
            if replaced is not None:
                os.close(replaced)
            opened[step.other] = opened.pop(step.path)
        elif step.kind == "unlink":
            os.unlink(path)
            os.close(opened.pop(step.path))
        elif step.kind == "mkdir":
            os.mkdir(path)
        elif step.kind == "fsync":
            os.fsync(descriptor(step.path))
            os.write(notes, b"%d\n" % (done + 1))


def main() -> None:
    """See the top."""
    root, notes, seed = sys.argv[1:]
    work(root, os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND), int(seed))


if __name__ == "__main__":
    main()
