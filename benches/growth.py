"""How the cost of one file, and of one MiB, grows with how many there are.

    python -m benches.growth [--files 1000,10000,100000,1000000] [--sizes-mib 10,100,1024,10240] [--quick]

Each point has a volume of its own, on a local directory; small ones are measured several times, and their median is
taken. Files have 4 KiB. Walks come after the kernel has forgotten all names; reads are cold: remounted, cache deleted,
kernel caches dropped. The largest takes a quarter of an hour, and 12 GB of disk. It may be interrupted: what was
measured until then is shown and written, and nothing is left behind.
"""

import argparse
import contextlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benches import bars
from benches.bars import Figure
from benches.measuring import forget, measured
from benches.mounts import FailedError
from benches.report import MIB
from benches.systems import Zerofs, mounted

REFERENCE = {"file": 10_000, "MiB": 100}
LARGEST = 1_000_000
MEMORY_BAR_BYTES = 680_000_000
"""The budget of 0.25 GB, and what README.md (P6) says to count on top: 0.2, 0.2 for merging, 30 MB for sealing."""
REPEATED_BELOW = {"file": 30_000, "MiB": 500}
MOST_REPEATS = 5
SLOWEST_PER_UNIT_S = 1.0  # then something hangs


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What is measured at each size, in this order on each volume."""

    title: str
    workload: str
    unit: str
    caches: str = "as they are"
    bar: float | None = None  # the largest, of the reference


CURVES = {
    "file": (
        Curve(title="create + write 4 KiB + close", workload="create", unit="file", bar=1.3),
        Curve(title="walk and stat", workload="stat_walk", unit="file", caches="names dropped", bar=1.3),
        Curve(title="delete", workload="delete", unit="file", bar=1.3),
    ),
    "MiB": (
        Curve(title="sequential write + fsync", workload="sequential_write", unit="MiB"),
        Curve(title="cold sequential read", workload="sequential_read", unit="MiB", caches="cold"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One workload at one size: medians, of one unit."""

    workload: str
    unit: str
    size: int
    us: float
    server_cpu_us: float
    requests: float
    sent_bytes: float
    peak_bytes: int
    runs_us: tuple[float, ...]


def measure_size(base, unit, size, points, console):
    """All curves of this unit at this size; adds to `points`."""
    runs = {curve: [] for curve in CURVES[unit]}
    for number in range(max(1, min(REPEATED_BELOW[unit] // size, MOST_REPEATS))):
        with volume(base / f"{unit}-{size}-{number}") as system:
            for curve in CURVES[unit]:
                forget(curve.caches, system)
                options = {"file": ("--files", size, "--size-mib", 1), "MiB": ("--files", 1, "--size-mib", size)}[unit]
                arguments = ("benches.load", curve.workload, system.directory, *options)
                runs[curve].append(measured(system, *arguments, timeout_s=60 + SLOWEST_PER_UNIT_S * size))
    for curve, done in runs.items():
        point = summarise(curve, size, done)
        points.append(point)
        said = f"{point.workload}, {size:,}: {point.us:,.0f} µs per {unit}, peak {point.peak_bytes / MIB:,.0f} MiB"
        console.print(said, highlight=False)


def summarise(curve, size, runs):
    """The point of a curve, of its runs."""
    per_unit = [1e6 * run["seconds"] / size for run in runs]

    def median(figure):
        return statistics.median(figure(run) for run in runs) / size

    return Point(
        workload=curve.title,
        unit=curve.unit,
        size=size,
        us=statistics.median(per_unit),
        server_cpu_us=median(lambda run: 1e6 * run["server_cpu_seconds"]),
        requests=median(lambda run: run["counted"]["requests"]),
        sent_bytes=median(lambda run: run["counted"]["sent_bytes"]),
        peak_bytes=max(run["server_peak_bytes"] for run in runs),
        runs_us=tuple(per_unit),
    )


@contextlib.contextmanager
def volume(base):
    """A new volume, mounted. Nothing is left of it."""
    try:
        with mounted(Zerofs(base)) as system:
            yield system
    finally:
        shutil.rmtree(base, ignore_errors=True)


def against_reference(points, point):
    """How much more it costs than at the reference size; None without that."""
    for other in points:
        if other.workload == point.workload and other.size == REFERENCE[point.unit]:
            return point.us / other.us
    return None


def figures_of(points):
    """The largest of each curve beside the reference, and the memory of all."""
    figures = []
    for curve in (*CURVES["file"], *CURVES["MiB"]):
        found = sorted((point for point in points if point.workload == curve.title), key=lambda point: point.size)
        if not found or (ratio := against_reference(points, found[-1])) is None:
            continue
        size, reference = found[-1].size, REFERENCE[curve.unit]
        figures.append(
            Figure(
                what=f"{curve.title}: one {curve.unit} of {size:,}, of one of {reference:,}",
                measured=f"{ratio:.2f} x",
                bar=f"<= {curve.bar} x" if curve.bar else "stated",
                met=curve.bar is None or ratio <= curve.bar,
                judged=curve.bar is None or size >= LARGEST,
            )
        )
    if points:
        peak = max(points, key=lambda point: point.peak_bytes)
        figures.append(
            Figure(
                what=f"most resident memory ({peak.workload}, {peak.size:,})",
                measured=f"{peak.peak_bytes / 1e6:,.0f} MB",
                bar=f"<= {MEMORY_BAR_BYTES / 1e6:,.0f} MB",
                met=peak.peak_bytes <= MEMORY_BAR_BYTES,
            )
        )
    return figures


def show(console, points):
    """The curves."""
    table = Table(title="costs of one file, and of one MiB", title_justify="left")
    table.add_column("workload")
    for heading in ("of", "time", "of reference", "server CPU", "requests", "sent", "peak RSS"):
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in (*CURVES["file"], *CURVES["MiB"]):
        found = sorted((point for point in points if point.workload == curve.title), key=lambda point: point.size)
        for index, point in enumerate(found):
            ratio = against_reference(points, point)
            table.add_row(
                "" if index else point.workload,
                f"{point.size:,} {point.unit}{'s' if point.unit == 'file' else ''}",
                f"{point.us:,.0f} µs",
                "" if ratio is None else f"{ratio:.2f}",
                f"{point.server_cpu_us:,.0f} µs",
                f"{point.requests:.4f}",
                f"{point.sent_bytes / 1024:,.2f} KiB",
                f"{point.peak_bytes / MIB:,.0f} MiB",
            )
        if found:
            table.add_section()
    console.print(table)


def sizes(text):
    """A comma-separated list, the smallest first; may be empty."""
    found = sorted({int(part) for part in text.split(",") if part.strip()})
    if any(size < 1 for size in found):
        raise argparse.ArgumentTypeError("sizes are positive")
    return found


def parse_arguments():
    parser = argparse.ArgumentParser(prog="python -m benches.growth", description="How costs grow.")
    parser.add_argument("--files", type=sizes, help="default 1000,10000,100000,1000000; empty for none")
    parser.add_argument("--sizes-mib", type=sizes, help="default 10,100,1024,10240; empty for none")
    parser.add_argument("--quick", action="store_true", help="small ones only: shows that it works")
    parser.add_argument("--directory", type=Path, default=Path("build"), help="whose disk is used; default build")
    arguments = parser.parse_args()
    if arguments.files is None:
        arguments.files = [100, 1000] if arguments.quick else [1000, 10_000, 100_000, 1_000_000]
    if arguments.sizes_mib is None:
        arguments.sizes_mib = [4, 16] if arguments.quick else [10, 100, 1024, 10_240]
    return arguments


def measure(base, arguments, points, console):
    """Everything, the small ones first."""
    for unit, wanted in (("file", arguments.files), ("MiB", arguments.sizes_mib)):
        for size in wanted:
            measure_size(base, unit, size, points, console)


def main():
    arguments = parse_arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    # As Ctrl-C: everything is put away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments.directory.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="growth-", dir=arguments.directory.resolve()))
    points = []
    try:
        measure(base, arguments, points, console)
    except (FailedError, subprocess.TimeoutExpired) as error:
        console.print(f"FAILED: {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 128 + signal.SIGINT
    finally:
        shutil.rmtree(base, ignore_errors=True)
        figures = figures_of(points)
        if points:
            show(console, points)
            bars.show(console, figures)
            bars.write_json(console, "growth", figures, vars(arguments), points=[as_json(point) for point in points])
    return int(bars.missed(figures))


def as_json(point):
    return {name: getattr(point, name) for name in point.__dataclass_fields__}


if __name__ == "__main__":
    sys.exit(main())
