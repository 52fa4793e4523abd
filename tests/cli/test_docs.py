"""docs/cli.md is what the program says of itself, and complete."""

import re

import typer

from tests.cli.conftest import ROOT
from zerofs.cli import exitcodes
from zerofs.cli.app import app
from zerofs.cli.docs import markdown
from zerofs.config import schema

COMMANDS = [
    *("init", "run", "mount", "umount", "flush", "status", "clear-data-lost", "change-password", "collect"),
    *("fsck", "verify", "debug", "backup create", "backup verify"),
    *(f"checkpoint {name}" for name in ("create", "list", "info", "delete", "clone", "restore")),
    "clone detach",
]


def all_commands():
    """Every command by its words; those of a group by both."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        if hasattr(command, "commands"):
            found |= {f"{name} {below}": item for below, item in command.commands.items()}
        else:
            found[name] = command
    return found


def test_the_document_is_up_to_date():
    assert (ROOT / "docs" / "cli.md").read_text() == markdown(), "run: make docs"


def test_every_command_and_option_is_there():
    commands = all_commands()
    assert list(commands) == COMMANDS
    for name, command in commands.items():
        section = re.search(rf"(?s)### `zerofs {name} .*?(?=\n##)", markdown())[0]
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            for option in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]:
                assert f"`{option}".replace("|", r"\|") in section or f"`{option}" in section
            assert parameter.help, f"{name} {parameter.name} has no help"


def test_every_command_takes_a_configuration_and_verbose():
    for name, command in all_commands().items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"-c", "--config", "-v", "--verbose"} <= options, name


def test_every_exit_code_and_key_is_there():
    for row in exitcodes.TABLE:
        assert f"| {row.number} | {row.name} | " in markdown()
    for name in schema.tables():
        assert f"### `[{name}]`" in markdown()
