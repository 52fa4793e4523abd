"""Documents that say what is so: links lead somewhere, configurations load, commands and tests that are named exist."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import zerofs.errors
from tests.mutations import MUTATIONS
from zerofs.cli import exitcodes
from zerofs.cli.app import app
from zerofs.config import load

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MODULES = sorted((ROOT / "zerofs").rglob("*.py"))

ENVIRONMENT = {"HOME": "/home/somebody", "ZEROFS_PASSWORD": "a password of the test"}

FENCE = re.compile(r"^```([a-z]*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(document: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(document.read_text()) if found == language]


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text())


def code(document: Path) -> list[str]:
    """Lines of shell blocks, and spans of code in the text."""
    lines = "\n".join(blocks(document, "sh")).splitlines()
    return [*(re.sub(r"(^|\s)#.*", "", line) for line in lines), *SPAN.findall(prose(document))]


def anchors(document: Path) -> set[str]:
    """The names that headings get: lower case, punctuation dropped, spaces to hyphens."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in HEADING.findall(prose(document))
    }


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """Target and anchor of every link that is not to the outside."""
    for link in LINK.findall(SPAN.sub("", prose(document))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        yield (document.parent / path).resolve() if path else document, anchor


def reachable(start: Path) -> set[Path]:
    """The documents that a reader comes to from `start`; a link to a folder shows all that is in it."""
    seen: set[Path] = set()
    pending = [start]
    while pending:
        document = pending.pop()
        if document not in seen:
            seen.add(document)
            for target, _ in links(document):
                pending += target.glob("*.md") if target.is_dir() else [target] if target.suffix == ".md" else []
    return seen


def commands() -> dict[str, set[str]]:
    """Every command with its options, a group with those of all its commands."""
    found = typer.main.get_command(app).commands
    return {
        name: {
            option
            for command in getattr(group, "commands", {"": group}).values()
            for item in command.params
            for option in item.opts
        }
        for name, group in found.items()
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document):
    for target, anchor in links(document):
        assert target.exists(), f"{name_of(document)} links to {target}"
        assert target.is_relative_to(ROOT), f"{name_of(document)} links to {target}, outside of the repository"
        if anchor:
            assert anchor in anchors(target), f"{name_of(document)} links to #{anchor} in {name_of(target)}"


def test_every_document_is_found_from_the_readme():
    assert set(DOCUMENTS) - reachable(README) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_that_are_named_exist(document):
    text = document.read_text()
    for path in re.findall(r"`([\w.-]+/[\w./-]*\.(?:py|md|json))(?:::\w+)?`", text):
        assert any((folder / path).is_file() for folder in (ROOT, ROOT / "zerofs")), f"{name_of(document)} names {path}"
    for path, function in re.findall(r"`(tests/[\w./-]+\.py)::(\w+)`", text):
        assert f"def {function}(" in (ROOT / path).read_text(), f"{name_of(document)} names {path}::{function}"


def test_every_row_of_the_semantics_names_its_test():
    promises = [
        row
        for table in re.findall(r"(?:^\|.*\n)+", (ROOT / "docs" / "semantics.md").read_text(), re.MULTILINE)
        if table.startswith(("| Promise |", "| | What happens |"))
        for row in table.splitlines()[2:]
    ]
    assert len(promises) > 50
    for row in promises:
        assert re.fullmatch(r"\|.+\|.+\| `tests/[\w/]+/test_\w+\.py::test_\w+` \|", row), row


def test_every_module_says_what_it_is_for():
    assert len(MODULES) > 100
    assert [name_of(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_configurations_in_documents_load(tmp_path):
    found = [(document, block) for document in DOCUMENTS for block in blocks(document, "toml")]
    assert {README} <= {document for document, _ in found}
    for document, block in found:
        path = tmp_path / "zerofs.toml"
        path.write_text(block)
        assert load(path, ENVIRONMENT).storage.url, f"{name_of(document)}: {block}"


def test_the_example_holds_the_defaults(tmp_path):
    least = tmp_path / "zerofs.toml"
    least.write_text(
        '[storage]\nurl = "s3://bucket/path"\nencryption_password = "${ZEROFS_PASSWORD}"\n'
        '[servers.fuse]\nmountpoint = "/mnt/zerofs"\n'
    )
    example = load(ROOT / "zerofs.example.toml", ENVIRONMENT)
    assert dataclasses.replace(example, path=least) == load(least, ENVIRONMENT)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_and_options_that_are_named_exist(document):
    known = commands()
    for line in code(document):
        for name, rest in re.findall(r"(?:^|[\s(/])zerofs ([a-z][a-z-]*)([^|;&#)]*)", line):
            assert name in known, f"{name_of(document)}: {line}"
            for option in re.findall(r"(?<!\S)-{1,2}[a-z][a-z-]*", rest):
                assert option in known[name], f"{name_of(document)}: {line}"


def test_the_readme_shows_every_command():
    shown = set(re.findall(r"\bzerofs ([a-z][a-z-]*)", "\n".join(code(README))))
    assert set(commands()) - shown == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_make_targets_that_are_named_exist(document):
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in code(document):
        for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", line):
            assert target in targets, f"{name_of(document)}: {line}"


def test_exit_codes():
    table = re.search(r"^## Exit codes\n(.*?)^## ", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE | re.DOTALL)
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table[1].split("\n") if line][2:]
    assert rows == [(row.number, row.name, row.meaning) for row in exitcodes.TABLE]
    numbers = {number for number, _, _ in rows}
    errors = [
        item
        for item in vars(zerofs.errors).values()
        if isinstance(item, type) and issubclass(item, zerofs.errors.ZerofsError)
    ]
    assert {str(error.exit_code) for error in errors} <= numbers
    for document in DOCUMENTS:
        for number in re.findall(r"exit codes? (\d+)", " ".join(document.read_text().split())):
            assert number in numbers, f"{name_of(document)} says exit code {number}"


def test_the_readme_keeps_a_place_for_the_figures():
    assert re.search(r"^<!-- figures -->\n.+?^<!-- /figures -->$", README.read_text(), re.MULTILINE | re.DOTALL)


def test_the_guards_are_those_of_the_mutations():
    table = (ROOT / "docs" / "durability.md").read_text().split("## The guards")[1].split("\n## ")[0]
    told = re.findall(r"^\| (.+?) \| (`.+`) \|$", table, re.MULTILINE)
    guards = [(m.guard[0].upper() + m.guard[1:], ", ".join(f"`{test}`" for test in m.tests)) for m in MUTATIONS]
    assert told == guards
    for mutation in MUTATIONS:
        assert (ROOT / mutation.file).read_text().count(mutation.before) == 1, mutation.guard
