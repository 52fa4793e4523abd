"""Programs that write in a mount while its store is away. Their files must not be open in the test's own process: each
process that a test starts closes what it inherits, and closing waits for pages that an outage holds.

    python load.py files ROOT NOTES NUMBER     writes files, fsyncs some, notes them, until told to end (SIGTERM)
    python load.py at-once ROOT COUNT SIZE     a line on stdin: COUNT files are written at once, and fsynced
    python load.py one PATH SIZE               a line on stdin: writes and fsyncs; another one: appends, and closes

Whatever fails ends them with exit code 1 and a traceback, but for the fsync of `one`: its errno is printed.
"""

import os
import random
import signal
import sys
import threading
import time

MORE = b"more"
SIZES = (300, 5000, 100_000)
PIECE = 256 * 1024


def content(name: str, size: int | None = None) -> bytes:
    """What is in a file of that name."""
    chance = random.Random(name)
    return chance.randbytes(size or chance.choice(SIZES))


def write_all(descriptor: int, data: bytes) -> None:
    for at in range(0, len(data), PIECE):
        assert os.write(descriptor, data[at : at + PIECE]) == len(data[at : at + PIECE])


def files(root: str, notes: str, number: str) -> None:
    """Each note: name, whether it was fsynced, and how many seconds that took."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    chance = random.Random(int(number))
    with open(notes, "a", buffering=1) as noted:
        while not ending.is_set():
            name = f"{number}-{chance.randrange(10**9)}"
            started = time.monotonic()
            descriptor = os.open(os.path.join(root, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            write_all(descriptor, content(name))
            synced = chance.random() < 0.5
            if synced:
                os.fsync(descriptor)
            os.close(descriptor)
            noted.write(f"{name} {int(synced)} {time.monotonic() - started:.3f}\n")


def at_once(root: str, count: str, size: str) -> None:
    """The contents of file N are those of the name N."""
    opened = [os.open(os.path.join(root, str(n)), os.O_WRONLY | os.O_CREAT) for n in range(int(count))]
    errors: list[BaseException] = []

    def write(number: int, descriptor: int) -> None:
        try:
            write_all(descriptor, content(str(number), int(size)))
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=pair) for pair in enumerate(opened)]
    print("ready", flush=True)
    sys.stdin.readline()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for error in errors:
        raise error
    for descriptor in opened:
        os.fsync(descriptor)
        os.close(descriptor)


def one(path: str, size: str) -> None:
    """The contents are those of the base name, and MORE."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    print("open", flush=True)
    sys.stdin.readline()
    write_all(descriptor, content(os.path.basename(path), int(size)))
    try:
        os.fsync(descriptor)
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
    sys.stdin.readline()
    assert os.write(descriptor, MORE) == len(MORE)
    os.close(descriptor)


if __name__ == "__main__":
    {"files": files, "at-once": at_once, "one": one}[sys.argv[1]](*sys.argv[2:])
