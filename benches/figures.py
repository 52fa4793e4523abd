"""What the engine costs: requests, bytes and space, counted on a metered store; and stalls, timed on a real mount.

    python -m benches.figures [--small] [--only WORD] [--directory DIR]

Each figure has a bar. Counts and ratios do not depend on the machine; stalls do, and are given with what the machine
does at rest. `--small` divides the large volumes by a hundred: it shows that the command works, the bars that depend on
size are not judged then.
"""

import argparse
import contextlib
import gc
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import trio
from rich.console import Console

from benches import bars
from benches.bars import Figure
from benches.stalls import stalls
from zerofs.admission import OpenOptions
from zerofs.config.loading import load
from zerofs.fs.access import Caller
from zerofs.keys.password import check_password
from zerofs.volume import open_volume
from zerofs.world import World

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ROOT = Caller(uid=0, gid=0, pid=1, umask=0o022, groups=frozenset)
PASSWORD = check_password("a password for measurements")


class Bench:
    """One volume on a local directory; what it asked of the store since the last `reset`."""

    def __init__(self, base, name, memory_gb=0.25):
        self.base = base / name
        self.base.mkdir()
        # Of a store on the same disk there would be no copies, which those of other stores have.
        self.cache = Path(tempfile.mkdtemp(prefix="figures-", dir="/dev/shm"))
        config = self.base / "zerofs.toml"
        config.write_text(
            f'[cache]\ndir = "{self.cache}"\ndisk_size_gb = 2.0\nmemory_size_gb = {memory_gb}\n'
            f'[storage]\nurl = "file://{self.base}/store"\n'
        )
        self.settings = load(config, {"XDG_STATE_HOME": str(self.base / "state"), "HOME": str(self.base)})
        self._before = {}
        self.volume = None

    @contextlib.asynccontextmanager
    async def open(self):
        self._before = {}
        async with open_volume(self.settings, PASSWORD, OpenOptions(), World()) as self.volume:
            yield self.volume.fs

    def _metrics(self):
        return self.volume.status()["metrics"]

    def reset(self):
        self._before = self._metrics()

    def _since(self, start):
        return sum(
            value - self._before.get(name, 0) for name, value in self._metrics().items() if name.startswith(start)
        )

    @property
    def puts(self):
        return self._since('store_requests_total{kind="put')

    @property
    def requests(self):
        return self._since("store_requests_total")

    @property
    def sent_bytes(self):
        return self._since("store_sent_bytes")

    @property
    def bucket_bytes(self):
        return sum(path.stat().st_size for path in (self.base / "store").rglob("*") if path.is_file())

    def remove(self):
        self.volume = None
        shutil.rmtree(self.base)
        shutil.rmtree(self.cache)


async def new_file(fs, name, parent=1):
    handle, attributes = await fs.create(ROOT, parent, name, 0o644, os.O_RDWR)
    return handle, attributes.inode


async def write_file(fs, name, size, source):
    """A file of random data, in requests of 1 MiB; its handle stays open."""
    handle, _ = await new_file(fs, name)
    for offset in range(0, size, MIB):
        await fs.write(handle, offset, source.randbytes(min(MIB, size - offset)))
    return handle


async def small_syncs(base, scale):
    bench = Bench(base, "sync")
    async with bench.open() as fs:
        handle, _ = await new_file(fs, b"file")
        await fs.write(handle, 0, b"x" * 4096)
        await fs.fsync(handle)
        counts = set()
        for number in range(20):
            await fs.write(handle, 4096 * number, os.urandom(4096))
            bench.reset()
            await fs.fsync(handle)
            counts.add((bench.puts, bench.requests))
        yield Figure(
            what="requests of one small fsync", measured=f"{counts}", bar="1 PUT, nothing else", met=counts == {(1, 1)}
        )
        handles = [(await new_file(fs, b"%d" % number))[0] for number in range(16)]
        await fs.sync()
        bench.reset()

        async def worker(handle):
            for number in range(20):
                await fs.write(handle, 4096 * number, os.urandom(4096))
                await fs.fsync(handle)

        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(worker, handle)
        yield Figure(
            what="PUTs of 16 tasks, 20 fsyncs each", measured=str(bench.puts), bar="<= 40 of 320", met=bench.puts <= 40
        )
        await bench.volume.flush()
        await bench.volume.engine.maintenance.tighten()
        bench.reset()
        await trio.sleep(60)
        yield Figure(what="requests of an idle minute", measured=str(bench.requests), bar="0", met=bench.requests == 0)
    bench.remove()


async def sequential(base, scale):
    size = GIB // scale
    bench = Bench(base, "sequential")
    source = random.Random(1)
    async with bench.open() as fs:
        bench.reset()
        await fs.release(await write_file(fs, b"big", size, source))
        await bench.volume.flush()
        ratio = bench.sent_bytes / size
        yield Figure(
            what=f"uploaded for {size // MIB} MiB that do not compress",
            measured=f"{ratio:.3f} x",
            bar="<= 1.05 x",
            met=ratio <= 1.05,
        )
    bench.remove()


async def many_files(base, scale):
    count = 100_000 // scale
    bench = Bench(base, "files")
    source = random.Random(2)
    async with bench.open() as fs:
        bench.reset()
        directory = None
        for number in range(count):
            if number % 1000 == 0:
                directory = (await fs.mkdir(ROOT, 1, b"d%d" % number, 0o755)).inode
            handle, inode = await new_file(fs, b"f%d" % number, directory)
            await fs.write(handle, 0, source.randbytes(4096))
            await fs.release(handle)
            fs.forget(inode, 1)
        await bench.volume.flush()
        ratio = bench.sent_bytes / (count * 4096)
        yield Figure(
            what=f"uploaded for {count:,} files of 4 KiB, no fsync",
            measured=f"{ratio:.2f} x",
            bar="<= 1.6 x",
            met=ratio <= 1.6,
            judged=scale == 1,
        )
        yield Figure(what="... PUTs", measured=str(bench.puts), bar="<= 120", met=bench.puts <= 120)
    bench.remove()


async def large_volume(base, scale):
    size = 10 * GIB // scale
    bench = Bench(base, "large")
    source = random.Random(3)
    async with bench.open() as fs:
        await fs.release(await write_file(fs, b"big", size, source))
    async with bench.open() as fs:
        opened = bench.requests
        yield Figure(
            what=f"requests of opening a volume of {size / GIB:g} GiB",
            measured=str(opened),
            bar="<= 20",
            met=opened <= 20,
        )
        gc.collect()
        begun = time.perf_counter()
        await fs.unlink(ROOT, 1, b"big")
        took_ms = 1000 * (time.perf_counter() - begun)
        yield Figure(
            what=f"delete of a file of {size / GIB:g} GiB returns after",
            measured=f"{took_ms:.1f} ms",
            bar="<= 50 ms",
            met=took_ms <= 50,
        )
        begun = time.perf_counter()
        await bench.volume.engine.maintenance.tighten()
        yield Figure(
            what="... the bucket after the tightening pass",
            measured=f"{bench.bucket_bytes / KIB:.0f} KiB, {time.perf_counter() - begun:.1f} s later",
            bar="<= 64 KiB",
            met=bench.bucket_bytes <= 64 * KIB,
        )
    bench.remove()


async def random_writes(base, scale):
    size = 2 * GIB // scale
    bench = Bench(base, "random")
    source = random.Random(4)
    async with bench.open() as fs:
        handle = await write_file(fs, b"big", size, source)
        await bench.volume.flush()
        bench.reset()
        written = 0
        while written < size // 2:
            await fs.write(handle, 4096 * source.randrange(size // 4096), source.randbytes(4096))
            written += 4096
        await bench.volume.flush()
        while_writing = bench.bucket_bytes / size
        ratio = bench.sent_bytes / written
        yield Figure(
            what=f"uploaded per byte of random 4 KiB writes over {size // MIB} MiB",
            measured=f"{ratio:.1f}",
            bar="<= 15",
            met=ratio <= 15,
            judged=scale == 1,
        )
        bench.reset()
        await bench.volume.engine.maintenance.tighten()
        share = bench.bucket_bytes / size
        yield Figure(
            what="bucket of live data after the tightening pass",
            measured=f"{share:.2f} x (before: {while_writing:.2f} x; it uploaded {bench.sent_bytes / size:.2f} x)",
            bar="<= 1.35 x",
            met=share <= 1.35,
            judged=scale == 1,
        )
    bench.remove()


async def mounted(base, scale):
    for what, measured, bar, met in await trio.to_thread.run_sync(lambda: list(stalls(base, scale))):
        yield Figure(what=what, measured=measured, bar=bar, met=met, judged=scale == 1)


GROUPS = (small_syncs, sequential, many_files, large_volume, random_writes, mounted)


async def measure(base, scale, word, console):
    figures = []
    for group in GROUPS:
        if word not in group.__name__:
            continue
        async for figure in group(base, scale):
            figures.append(figure)
            bars.announce(console, figure)
    return figures


def main():
    parser = argparse.ArgumentParser(prog="python -m benches.figures", description="What the engine costs.")
    parser.add_argument("--small", action="store_true", help="volumes of a hundredth: shows that it works")
    parser.add_argument("--only", default="", metavar="WORD", help=", ".join(group.__name__ for group in GROUPS))
    parser.add_argument("--directory", type=Path, default=Path("build"), help="whose disk is used; default build")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 160)
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="figures-") as name:
        figures = trio.run(measure, Path(name).resolve(), 100 if arguments.small else 1, arguments.only, console)
    bars.show(console, figures)
    bars.write_json(console, "figures", figures, vars(arguments))
    sys.exit(bars.missed(figures))


if __name__ == "__main__":
    main()
