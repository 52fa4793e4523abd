"""How near zerofs comes to what boto3 alone reaches, on an S3 server that is 20 ms and 200 MB/s away.

    python -m benches.far [--quick] [--runs N] [--size-mib N] [--syncs N] [--directory DIR]

One volume on MinIO, behind the proxy of `benches.latency`; beside it, through the same proxy, a bare client of boto3
with as many connections as serve it best. Both take turns, and the medians are compared. Reads are cold: remounted,
disk cache deleted, kernel caches dropped, for both. Data is random, so that nothing shrinks.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3.session
from botocore.config import Config
from botocore.handlers import add_expect_header
from rich.console import Console

from benches import bars
from benches.bars import Figure
from benches.latency import far_away
from benches.load import BLOCK, MIB
from benches.mounts import drop_caches
from benches.systems import ZerofsOnS3
from tests.servers import minio_server, missing_minio

CONNECTIONS = (4, 8, 16)
RANGES_BYTES = (1 * MIB, 4 * MIB, 8 * MIB)
ROUNDS = 5
WARM_UP = 3


class Bare:
    """boto3 and nothing else, on the same server at the same distance."""

    def __init__(self, server):
        self._bucket = server.bucket
        self._client = boto3.session.Session(
            server.access_key_id, server.secret_access_key, region_name="us-east-1"
        ).client(
            "s3",
            endpoint_url=server.endpoint,
            config=Config(
                s3={"addressing_style": "path"},
                max_pool_connections=max(CONNECTIONS),
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        # It would ask "100-continue" before each body: a round trip more for every put, which a bar must not have.
        self._client.meta.events.unregister("before-call.s3", add_expect_header)
        self._put = 0

    def sizes(self, prefix):
        """The objects below a prefix: sizes by name."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def get_all(self, objects, range_bytes, connections):
        """Seconds to get the objects, in ranges and in parallel."""
        ranges = [
            (name, start, min(start + range_bytes, size) - 1)
            for name, size in objects.items()
            for start in range(0, size, range_bytes)
        ]

        def get(part):
            name, first, last = part
            answer = self._client.get_object(Bucket=self._bucket, Key=name, Range=f"bytes={first}-{last}")
            return len(answer["Body"].read())

        begun = time.perf_counter()
        with ThreadPoolExecutor(connections) as pool:
            moved = sum(pool.map(get, ranges))
        took = time.perf_counter() - begun
        if moved != sum(objects.values()):
            raise SystemExit(f"got {moved} of {sum(objects.values())} bytes")
        return took

    def put_all(self, bodies, connections):
        """Seconds to put the bodies, in parallel. They do not stay."""
        names = [self._name() for _ in bodies]

        def put(name, body):
            self._client.put_object(Bucket=self._bucket, Key=name, Body=body)

        begun = time.perf_counter()
        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(put, names, bodies))
        took = time.perf_counter() - begun
        for name in names:
            self._client.delete_object(Bucket=self._bucket, Key=name)
        return took

    def put_if_absent(self, body):
        """Seconds of one conditional put."""
        name = self._name()
        begun = time.perf_counter()
        self._client.put_object(Bucket=self._bucket, Key=name, Body=body, IfNoneMatch="*")
        return time.perf_counter() - begun

    def close(self):
        self._client.close()

    def _name(self):
        self._put += 1
        return f"bare/{self._put:08}"


class Samples:
    """Seconds by what was done, over all runs."""

    def __init__(self):
        self._of = {}

    def add(self, what, seconds):
        self._of.setdefault(what, []).append(seconds)

    def best(self, start):
        """The ways of doing it that begin so: the one with the least median, and that."""
        medians = {what: statistics.median(took) for what, took in self._of.items() if what.startswith(start)}
        what = min(medians, key=medians.get)
        return what.removeprefix(start).strip(), medians[what]

    def details(self, start=""):
        return {what: took for what, took in self._of.items() if what.startswith(start)}


def write_file(path, blocks):
    """Seconds until all of it is in the store."""
    begun = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        file.writelines(blocks)
        os.fsync(file.fileno())
    return time.perf_counter() - begun


def read_file(path, size):
    begun = time.perf_counter()
    moved = 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(MIB):
            moved += len(piece)
    took = time.perf_counter() - begun
    if moved != size:
        raise SystemExit(f"read {moved} of {size} bytes")
    return took


def sequential(system, bare, arguments):
    """A large file, written and read cold, beside objects of the same bytes."""
    size = arguments.size_mib * MIB
    samples = Samples()
    for number in range(arguments.runs):
        blocks = [os.urandom(MIB) for _ in range(arguments.size_mib)]
        before = bare.sizes("zerofs/compacted/")
        path = system.directory / f"big-{number}"
        samples.add("write", write_file(path, blocks))
        made = {name: found for name, found in bare.sizes("zerofs/compacted/").items() if name not in before}
        noise = b"".join(blocks)
        for way, sizes in (
            ("objects as zerofs made them", [*made.values()]),
            ("objects of 8 MiB", _cut(size, 8 * MIB)),
        ):
            bodies = _bodies(noise, sizes)
            for connections in CONNECTIONS:
                took = bare.put_all(bodies, connections)
                # As if it had been exactly as much as the file.
                samples.add(f"put: {way}, {connections} at once", took * size / sum(map(len, bodies)))
        del blocks, noise, bodies
        system.make_cold()
        drop_caches("3")
        samples.add("read", read_file(path, size))
        for range_bytes in RANGES_BYTES:
            for connections in CONNECTIONS:
                drop_caches("3")
                took = bare.get_all(made, range_bytes, connections)
                way = f"get: ranges of {range_bytes // MIB} MiB, {connections} at once"
                samples.add(way, took * size / sum(made.values()))
    yield _rate_figure("cold sequential read", samples, "read", "get:", size, arguments)
    yield _rate_figure("sequential write + fsync", samples, "write", "put:", size, arguments)


def _cut(size, piece):
    return [min(piece, size - start) for start in range(0, size, piece)]


def _bodies(noise, sizes):
    """Pieces of these sizes, over and over from the same noise: nobody looks whether it repeats."""
    view, start, bodies = memoryview(noise), 0, []
    for size in sizes:
        start = start if start + size <= len(noise) else 0
        bodies.append(bytes(view[start : start + size]))
        start += size
    return bodies


def _rate_figure(what, samples, ours, theirs, size, arguments):
    _, took = samples.best(ours)
    way, bare_took = samples.best(theirs)
    share = bare_took / took
    return Figure(
        what=f"{what}, {size // MIB} MiB, of what boto3 reaches",
        measured=f"{share:.2f} ({size / MIB / took:.0f} of {size / MIB / bare_took:.0f} MiB/s: {way})",
        bar=">= 0.8",
        met=share >= 0.8,
        judged=not arguments.quick,
        details=samples.details(),
    )


def syncs(path, count):
    """Seconds of each write and fdatasync of 4 KiB."""
    took = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(count):
            block = os.urandom(BLOCK)
            begun = time.perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return took


def one_sync(system, bare, arguments):
    """4 KiB written and synced, beside a put of 4 KiB: what a sync is at least."""
    syncs(system.directory / "warm", WARM_UP)
    ours, theirs = [], []
    for number in range(ROUNDS):
        ours += syncs(system.directory / f"alone-{number}", arguments.syncs // ROUNDS)
        theirs += [bare.put_if_absent(os.urandom(BLOCK)) for _ in range(arguments.syncs // ROUNDS)]
    ratio = statistics.median(ours) / statistics.median(theirs)
    yield Figure(
        what="4 KiB write + fdatasync, of one bare conditional PUT",
        measured=f"{ratio:.2f} x ({1000 * statistics.median(ours):.1f} of {1000 * statistics.median(theirs):.1f} ms)",
        bar="<= 1.2 x",
        met=ratio <= 1.2,
        judged=not arguments.quick,
        details={"sync": ours, "put": theirs},
    )


def many_syncs(system, bare, arguments):
    """As many threads as are asked for, each with a file of its own, beside one."""
    rates = {1: [], arguments.threads: []}
    for number in range(ROUNDS):
        for threads, found in rates.items():
            names = [system.directory / f"of-{threads}-{number}-{index}" for index in range(threads)]
            workers = [threading.Thread(target=syncs, args=(name, arguments.syncs // ROUNDS)) for name in names]
            begun = time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            found.append(threads * (arguments.syncs // ROUNDS) / (time.perf_counter() - begun))
    alone, together = (statistics.median(found) for found in rates.values())
    yield Figure(
        what=f"4 KiB write + fdatasync, {arguments.threads} threads of one",
        measured=f"{together / alone:.1f} x ({together:.0f} of {alone:.0f} /s)",
        bar=">= 8 x",
        met=together >= 8 * alone,
        judged=not arguments.quick,
        details={str(threads): found for threads, found in rates.items()},
    )


def parse_arguments():
    parser = argparse.ArgumentParser(prog="python -m benches.far", description="zerofs beside boto3, far away.")
    parser.add_argument("--quick", action="store_true", help="small and once: shows that it works, not how fast")
    parser.add_argument("--runs", type=int, help="repetitions of the large file; default 3, quick 1")
    parser.add_argument("--size-mib", type=int, help="the large file; default 256, quick 16")
    parser.add_argument("--syncs", type=int, help="of each thread; default 200, quick 20")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--round-trip-ms", type=float, default=20.0)
    parser.add_argument("--megabytes-s", type=float, default=200.0, help="of each direction")
    parser.add_argument("--directory", type=Path, default=Path("build"), help="whose disk is used; default build")
    arguments = parser.parse_args()
    for name, usual, quick in (("runs", 3, 1), ("size_mib", 256, 16), ("syncs", 200, 20)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else usual)
    if arguments.runs < 1 or arguments.size_mib < 1 or arguments.syncs < ROUNDS or arguments.threads < 2:
        parser.error(f"at least one run of 1 MiB, {ROUNDS} syncs and two threads")
    return arguments


def main():
    arguments = parse_arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    if reason := missing_minio():
        console.print(f"NOT MEASURED: {reason}")
        return 1
    arguments.directory.mkdir(parents=True, exist_ok=True)
    figures = []
    with contextlib.ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="far-", dir=arguments.directory.resolve()))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        near = stack.enter_context(minio_server(base / "minio"))
        away = far_away(near.endpoint, arguments.round_trip_ms / 1000, 1e6 * arguments.megabytes_s)
        server = dataclasses.replace(near, endpoint=stack.enter_context(away))
        bare = stack.enter_context(contextlib.closing(Bare(server)))
        system = ZerofsOnS3(base, server)
        stack.callback(system.remove)
        system.prepare()
        system.start()
        for group in (sequential, one_sync, many_syncs):
            for figure in group(system, bare, arguments):
                figures.append(figure)
                bars.announce(console, figure)
    bars.show(console, figures)
    bars.write_json(console, "far", figures, vars(arguments))
    return int(bars.missed(figures))


if __name__ == "__main__":
    sys.exit(main())
