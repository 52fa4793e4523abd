"""The commented sample configuration, and the table of keys for the documentation: both written from `schema`."""

import textwrap

from zerofs.config import schema

_HEADER = """\
zerofs configuration. Made by `zerofs init`; every key is explained in docs/cli.md.
$NAME, ${NAME} and ${NAME:-default} stand for environment variables in every string; $$ is a dollar sign.
A line that begins with # shows an optional key."""


def sample_config() -> str:
    """The text that `zerofs init` writes, and the content of `zerofs.example.toml`."""
    parts = [textwrap.indent(_HEADER, "# ", lambda _: True), ""]
    for name, table in schema.tables().items():
        keys = schema.keys(table)
        parts.extend(_comment(table.__doc__ or ""))
        parts.append(f"[{name}]")
        for key in keys:
            parts.extend(_comment(key.description))
            parts.append(("" if key.sample.active else "# ") + f"{key.name} = {key.sample.toml}")
        parts.append("")
    return "\n".join(parts)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), width=110, initial_indent="# ", subsequent_indent="# ")


def reference() -> str:
    """Every key as Markdown tables, for `docs/cli.md`."""
    parts: list[str] = []
    for name, table in schema.tables().items():
        parts += [f"### `[{name}]`", "", " ".join((table.__doc__ or "").split()), ""]
        parts += ["| Key | Default | Meaning |", "|---|---|---|"]
        parts += [f"| `{key.name}` | {_default(key)} | {key.description} |" for key in schema.keys(table)]
        parts.append("")
    return "\n".join(parts)


def _default(key: schema.Key) -> str:
    if key.required:
        return "required"
    if key.default is None:
        return "none"
    if isinstance(key.default, bool):
        return f"`{str(key.default).lower()}`"
    return f"`{key.default}`"
