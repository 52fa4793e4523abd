"""The table of exit codes: complete, without doubles, and what the errors carry."""

from zerofs import errors
from zerofs.cli import exitcodes


def all_errors(kind=errors.ZerofsError):
    for child in kind.__subclasses__():
        if child.__module__ == "zerofs.errors":
            yield child
            yield from all_errors(child)


def test_every_error_has_a_row():
    rows = {row.number for row in exitcodes.TABLE}
    assert len(rows) == len(exitcodes.TABLE)
    assert {str(kind.exit_code) for kind in all_errors()} <= rows


def test_the_numbers_are_frozen():
    # Scripts rely on them: a change here is a change for users.
    assert [(row.number, row.name) for row in exitcodes.TABLE] == [
        ("0", "ok"),
        ("1", "failure"),
        ("2", "usage, configuration"),
        ("10", "no volume"),
        ("11", "in use"),
        ("12", "wrong password"),
        ("13", "key missing"),
        ("14", "store"),
        ("15", "store unsuitable"),
        ("16", "corruption"),
        ("17", "rollback"),
        ("18", "fenced"),
        ("19", "unsaved data"),
        ("20", "mountpoint"),
        ("21", "newer format"),
        ("22", "checkpoint"),
        ("23", "clone"),
        ("128+N", "signal"),
    ]


def test_signals():
    assert exitcodes.for_signal(15) == 143
