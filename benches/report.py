"""Figures for people and for programs: the table, the JSON file, the progress on a terminal."""

import json
import os
import platform
import statistics
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

MIB = 1 << 20
RESULTS = Path(__file__).parent / "results"


def figures_of(row, runs):
    """One figure a run: seconds, or MiB/s where bytes count, else operations a second."""
    if row.unit == "s":
        return [run["seconds"] for run in runs]
    amount = (lambda run: run["moved_bytes"] / MIB) if row.unit == "MiB/s" else (lambda run: run["operations"])
    return [amount(run) / run["seconds"] for run in runs]


def speed(row, median):
    """What is more when it is better."""
    return 1 / median if row.unit == "s" else median


def summarise(rows, systems, runs):
    """One dictionary per row and system: median, range, and the ratios against null and plain."""
    lines = []
    for row in rows:
        medians = {
            system.name: statistics.median(figures_of(row, runs[row.title, system.name]))
            for system in systems
            if runs.get((row.title, system.name))
        }
        for system in systems:
            if system.name not in medians:
                continue
            of_system = runs[row.title, system.name]
            figures = figures_of(row, of_system)
            median = medians[system.name]
            lines.append(
                {
                    "workload": row.title,
                    "system": system.name,
                    "unit": row.unit,
                    "median": median,
                    "lowest": min(figures),
                    "highest": max(figures),
                    "of_null": speed(row, median) / speed(row, medians["null"]) if "null" in medians else None,
                    "of_plain": speed(row, median) / speed(row, medians["plain"]) if "plain" in medians else None,
                    "acknowledged": getattr(system, f"acknowledges_{row.acknowledged_by}", None),
                    "runs": figures,
                    "percentiles_ms": {
                        name: statistics.median(run["percentiles_ms"].get(name, 0) for run in of_system)
                        for name in of_system[0]["percentiles_ms"]
                    },
                }
                | costs(of_system)
            )
    return lines


def costs(runs):
    """What the runs of one row cost the server: time and memory, and of the store, where it counts that. Amplification
    is bytes asked of the store per byte that the load moved."""
    operations = sum(run["operations"] for run in runs)
    moved = sum(run["moved_bytes"] for run in runs)
    counted = Counter()
    for run in runs:
        counted.update(run["counted"])
    peaks = [run["server_peak_bytes"] for run in runs if run["server_peak_bytes"] is not None]
    found = {
        "server_cpu_us_per_operation": 1e6 * sum(run["server_cpu_seconds"] for run in runs) / operations,
        "server_peak_bytes": max(peaks, default=None),
    }
    for name in ("requests", "sent_bytes", "received_bytes"):
        found[f"store_{name}_per_operation"] = counted[name] / operations if name in counted else None
    for name in ("sent", "received"):
        figure = f"{name}_bytes"
        found[f"{name}_amplification"] = counted[figure] / moved if figure in counted and moved else None
    found["hit_rates"] = {
        name: hits / (hits + misses)
        for name in sorted(key.removesuffix("_hits") for key in counted if key.endswith("_hits"))
        if (hits := counted[f"{name}_hits"]) + (misses := counted[f"{name}_misses"])
    }
    return found


def environment():
    """Where it was measured."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit or None,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "load_before": os.getloadavg()[0],
        "root": os.geteuid() == 0,
    }


def write_json(document):
    """Put it beside the earlier ones. Returns the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{document['environment']['time'].replace(':', '').replace('+0000', 'Z')}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def show(console: Console, document):
    """The table, and whatever has to be said beside it."""
    sizes = document["parameters"]
    title = f"{sizes['size_mib']} MiB, {sizes['files']} small files, medians of {sizes['runs']}"
    table = Table(title=title + (", the S3 server 20 ms away" if sizes["far"] else ""), title_justify="left")
    for heading in ("workload", "system"):
        table.add_column(heading, no_wrap=True)
    for heading in ("median", "range", "of null", "of plain", "server CPU", "peak RSS", "of the store, per op"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("acknowledged in")
    last = None
    for line in document["results"]:
        if last not in (None, line["workload"]):
            table.add_section()
        table.add_row(
            line["workload"] if line["workload"] != last else "",
            line["system"],
            f"{_figure(line['median'])} {line['unit']}",
            f"{_figure(line['lowest'])} - {_figure(line['highest'])}",
            _ratio(line["of_null"]),
            _ratio(line["of_plain"]),
            f"{line['server_cpu_us_per_operation']:,.0f} µs/op",
            "" if line["server_peak_bytes"] is None else f"{line['server_peak_bytes'] / MIB:,.0f} MiB",
            _asked(line),
            line["acknowledged"] or "",
        )
        last = line["workload"]
    console.print(table)
    if any(line["percentiles_ms"] for line in document["results"]):
        console.print(_percentiles(document["results"]))
    for name, percent in document["idle_cpu_percent"].items():
        console.print(f"idle: {name} used {percent:.1f} % of a core")
    for name, reason in document["not_measured"].items():
        console.print(f"[bold]NOT MEASURED[/bold] {name}: {reason}", highlight=False)
    for warning in document["warnings"]:
        console.print(f"[bold]NOTE[/bold] {warning}", highlight=False)


def _asked(line):
    """Requests, bytes up and bytes down for one operation of the load."""
    if line["store_requests_per_operation"] is None:
        return ""
    sent, received = (line[f"store_{name}_bytes_per_operation"] / 1024 for name in ("sent", "received"))
    return f"{line['store_requests_per_operation']:.3f}, {_figure(sent)} KiB up, {_figure(received)} down"


def _figure(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _percentiles(lines):
    """How long single calls took."""
    table = Table("workload", "system", title="medians of percentiles, in ms", title_justify="left")
    headings = list(dict.fromkeys(name for line in lines for name in line["percentiles_ms"]))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        if found := line["percentiles_ms"]:
            cells = [f"{found[name]:.2f}" if name in found else "" for name in headings]
            table.add_row(line["workload"], line["system"], *cells)
    return table


def _ratio(value):
    return "" if value is None else f"{value:.2f}"


class Steps:
    """Progress: a bar on a terminal, a line for each step elsewhere."""

    def __init__(self, console: Console, count):
        self.console, self.count, self.done = console, count, 0
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self.task = self.progress.add_task("", total=count)

    def __enter__(self):
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_):
        self.progress.stop()

    def step(self, what):
        """The next thing begins."""
        if self.console.is_terminal:
            self.progress.update(self.task, description=what, completed=self.done)
        else:
            self.console.print(f"[{self.done + 1}/{self.count}] {what}", markup=False, highlight=False)
        self.done += 1
