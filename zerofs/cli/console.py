"""The terminal: error lines, tables, JSON, and questions without echo. Colours and progress on terminals only."""

import contextlib
import getpass
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerofs.errors import ConfigError
from zerofs.units import NS_PER_S, format_duration, format_size

_PIPE_WIDTH = 200
_LABELLED = re.compile(r"(\w+)\{(.*)\}")
_LABEL = re.compile(r'="([^"]*)"')
_UNITS: dict[str, Callable[[float], str]] = {
    " bytes": lambda value: format_size(int(value)),
    " ns": lambda value: format_duration(value / NS_PER_S),
    " s": format_duration,
    " total": str,
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def one_line(text: str) -> str:
    """`text` without anything that could move the cursor or begin a second line."""
    return _CONTROL.sub(" ", text).strip()


def say(text: str) -> None:
    """A line for a person, on standard output."""
    _print(Console(soft_wrap=True), Text(text))


def note(text: str) -> None:
    """A line about progress, on standard error."""
    _print(Console(stderr=True, soft_wrap=True), Text(text))


def complain(message: str) -> None:
    """`zerofs: error: …`, one line on standard error."""
    line = Text("zerofs: ")
    line.append("error:", style="bold red")
    _print(Console(stderr=True, soft_wrap=True), line.append(f" {one_line(message)}"))


def _print(console: Console, text: Text) -> None:
    # Names may hold bytes that are not text; a terminal gets them escaped rather than an exception.
    plain = text.plain.encode("utf-8", "backslashreplace").decode()
    if plain != text.plain:
        text = Text(plain)
    console.print(text, highlight=False, markup=False)


def print_json(value: Mapping[str, Any]) -> None:
    """A value as indented JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(title: str, values: Mapping[str, Any]) -> None:
    """A tree of values as two columns; sizes and durations spelled for people by the unit in their name."""
    table = Table(title=Text(title), show_header=False, title_justify="left")
    for name, value in _flattened(values, ""):
        table.add_row(Text(name), Text(one_line(value), overflow="fold"))
    _print_wide(table)


def print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Several things of one kind, a row each."""
    table = Table(*columns, title=Text(title), title_justify="left")
    for row in rows:
        table.add_row(*(Text(one_line(cell), overflow="fold") for cell in row))
    _print_wide(table)


def _print_wide(table: Table) -> None:
    console = Console()
    # A pipe has no width to break lines at.
    (console if console.is_terminal else Console(width=_PIPE_WIDTH)).print(table)


def _flattened(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        # A metric's labels, as in requests_total{kind="get"}, belong before its unit.
        labelled = _LABELLED.fullmatch(key)
        bare, labels = (labelled[1], _LABEL.findall(labelled[2])) if labelled else (key, [])
        name = f"{prefix}{bare}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{name}: ")
        else:
            spelled_name, spelled = _spelled(name, value)
            yield " ".join([spelled_name, *(label.replace("_", " ") for label in labels)]), spelled


def _spelled(name: str, value: Any) -> tuple[str, str]:
    if value is None or value == "":
        return name, "-"
    if isinstance(value, bool):
        return name, "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return name, ", ".join(str(item) for item in value) or "-"
    if not isinstance(value, (int, float)):
        return name, str(value)
    for unit, spell in _UNITS.items():
        if name.endswith(unit):
            return name.removesuffix(unit).rstrip(":"), spell(value)
    return name, str(value) if isinstance(value, int) else f"{value:.3g}"


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """Show that something takes its time, while it does, if standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(Text(text)):
        yield


@contextlib.contextmanager
def measured() -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows what is being done, and how much of how much, if standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    with console.status(Text("…")) as line:

        def show(what: str, done: int, total: int) -> None:
            spell = format_size if what.endswith(" bytes") else "{:,}".format
            shown = f"{spell(done)} of {spell(total)}" if total else spell(done)
            line.update(Text(f"{what.removesuffix(' bytes')}: {shown}"))

        yield show


def ask_secret(question: str) -> str:
    """A line from the terminal, without echo; standard input may be something else.

    Raises:
        ConfigError: there is no terminal.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise ConfigError(
            "no password is configured and there is no terminal to ask on; "
            "set encryption_password, password_file or password_command in [storage]"
        ) from None
    with warnings.catch_warnings():
        # getpass warns when it cannot switch the echo off, and asks all the same; then nothing may be asked.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(question)
        except (getpass.GetPassWarning, EOFError):
            raise ConfigError("the terminal does not allow a question without echo") from None
