"""Figures with bars: what was measured, what was to be reached, and whether it was; as a table, and as JSON."""

import json
import os
import time
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from benches.report import RESULTS, environment


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table. `judged`: whether the bar was to be met in this run. `details`: for the JSON only."""

    what: str
    measured: str
    bar: str
    met: bool
    judged: bool = True
    details: dict | None = None

    @property
    def verdict(self):
        return ("ok" if self.met else "MISSED") if self.judged else "not judged"


def announce(console: Console, figure: Figure):
    """Say a figure as soon as it is there."""
    console.print(f"{figure.what}: {figure.measured} (bar: {figure.bar}) {figure.verdict}", highlight=False)


def show(console: Console, figures):
    """The table."""
    table = Table("figure", "measured", "bar", "")
    for figure in figures:
        table.add_row(figure.what, figure.measured, figure.bar, figure.verdict)
    console.print(table)


def write_json(console: Console, name, figures, parameters, **more):
    """Put it beside the earlier ones."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / time.strftime(f"{name}-%Y-%m-%dT%H%M%SZ.json", time.gmtime())
    document = {"environment": environment(), "parameters": parameters, "figures": [asdict(item) for item in figures]}
    document |= more
    file.write_text(json.dumps(document, indent=1, default=os.fspath) + "\n")
    console.print(f"written to {file}", highlight=False)


def missed(figures):
    """Whether a bar that was to be met was not."""
    return any(figure.judged and not figure.met for figure in figures)
