"""One program that works at random on files of its own, and knows at any time which bytes they hold.

    python -m tests.mount.byte_worker DIRECTORY SEED NUMBER

It takes orders on stdin, one a line, and says `done` after each: `work N` does N operations, `pause` compares and
closes everything, `look` opens it again and compares. Which operations come is a function of seed, number and orders.
Whatever is not as it should be ends it with a traceback and its last operations on stderr.
"""

import collections
import os
import sys
import traceback

from tests.model.bytes_model import PAGE, REQUEST, C, Dice
from tests.mount.byte_files import File
from tests.mount.byte_operations import OPERATIONS, copy

LIMITS = (3 * PAGE, 9 * C, 9 * C, 3 * REQUEST)
"""How large each of its files may become."""

REMEMBERED = 60
COMPARED = 0.04
"""The share of operations after which a file is compared as a whole."""


class Worker:
    """Its files, and what it did to them last."""

    def __init__(self, root: str, seed: str, number: str) -> None:
        self.root = root
        self.dice = Dice(f"{seed}/{number}")
        self.number = number
        self.made = 0
        self.done = 0
        self.notes: collections.deque[str] = collections.deque(maxlen=REMEMBERED)
        self.files = [self.new_file(limit) for limit in LIMITS]

    def new_name(self) -> str:
        self.made += 1
        return f"{self.root}/{self.number}-{self.made}"

    def new_file(self, limit: int) -> File:
        file = File(self.new_name(), limit)
        file.open(os.O_CREAT | os.O_EXCL)
        return file

    # --- orders

    def work(self, count: str) -> None:
        own = {self.copy: 5, self.rename: 3, self.unlink: 2}
        choices, weights = [*OPERATIONS, *own], [*OPERATIONS.values(), *own.values()]
        for _ in range(int(count)):
            (operation,) = self.dice.rng.choices(choices, weights)
            index = self.dice.rng.randrange(len(self.files))
            file = self.files[index]
            self.done += 1
            if operation in own:
                operation(index)
            else:
                operation(self.dice, file, lambda text, file=file: self.note(file, text))
            if self.dice.chance(COMPARED):
                self.files[index].compare(self.files[index].opened[-1])

    def pause(self) -> None:
        """What has no name is gone afterwards."""
        for index, file in enumerate(self.files):
            file.compare(file.opened[0])
            file.close()
            if not file.name:
                self.files[index] = self.new_file(file.limit)
                self.files[index].close()

    def look(self) -> None:
        self.notes.append("everything was closed, and looked at again")
        for file in self.files:
            file.open()
            file.compare(file.opened[0])

    def note(self, file: File, text: str) -> None:
        self.notes.append(f"{self.done}. {file}: {text}")

    # --- operations with several files

    def copy(self, index: int) -> None:
        file, source = self.files[index], self.dice.rng.choice(self.files)
        copy(self.dice, source, file, lambda text: self.note(file, text))

    def rename(self, index: int) -> None:
        """To a new name, or onto another of the files, which lives on without one."""
        file, other = self.files[index], self.dice.rng.choice(self.files)
        onto = self.dice.chance(0.2)
        if file.name:
            name = other.name if onto and other.name else self.new_name()
            self.note(file, f"renamed to {os.path.basename(name)}")
            os.rename(file.name, name)
            if other.name == name:
                other.name = ""
            file.name = name

    def unlink(self, index: int) -> None:
        """It lives on for a while; what has no name already makes room for a new file."""
        file = self.files[index]
        if file.name:
            self.note(file, "unlinked")
            os.unlink(file.name)
            file.name = ""
        elif self.dice.chance(0.3):
            self.note(file, "closed for ever")
            file.compare(file.opened[0])
            file.close()
            self.files[index] = self.new_file(file.limit)


def main() -> None:
    """See the top."""
    _, seed, number = sys.argv[1:]
    worker = Worker(*sys.argv[1:])
    orders = {"work": worker.work, "pause": worker.pause, "look": worker.look}
    try:
        for line in sys.stdin:
            order, *arguments = line.split()
            orders[order](*arguments)
            print("done", flush=True)
    except BaseException:
        traceback.print_exc()
        print(f"worker {number} of seed {seed}; its last operations:", *worker.notes, sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
