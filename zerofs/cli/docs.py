"""`docs/cli.md`, written from the commands, the table of exit codes and the configuration's schema.

Run as `python -m zerofs.cli.docs [FILE]`; a test holds the file equal to what this writes.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from zerofs.cli import exitcodes
from zerofs.cli.app import app
from zerofs.cli.mount_options import describe_options
from zerofs.config.sample import reference

_HIDDEN_OPTIONS = ("install_completion", "show_completion")

_INTRODUCTION = """\
# The command line

Written by `make docs` from the program itself; do not edit.

Every error is one line on standard error, `zerofs: error: …`, and an exit code from the [table](#exit-codes). There are
two exceptions. `change-password`: its failures after its configuration was read are `✗ Error: …`, with exit code 1.
`fsck`: its exit codes are [those of fsck(8)](#exit-codes-of-fsck). `verify` and `backup verify` exit with the code for
corruption when they find any, after printing what it is.
Results go to standard output, everything else to standard error; colours and progress appear on terminals only, and
`NO_COLOR` turns colours off. Core dumps are off and no debugger of the same user may attach, in every command.
"""

_FSCK = """\
## Exit codes of fsck

`zerofs fsck` keeps to those of fsck(8), so they differ from the table above. 1 and 2, for repairs, do not occur.
"""

_FILES = """\
## Files

| Where | What |
|---|---|
| `$ZEROFS_CONFIG`, `./zerofs.toml`, `$XDG_CONFIG_HOME/zerofs/zerofs.toml`, `/etc/zerofs/zerofs.toml` | The \
configuration when no `-c` is given: the first that exists. |
| `$XDG_STATE_HOME/zerofs` (`~/.local/state/zerofs`) | Logs of daemons, the error log, notes about volumes. |
| `/run/zerofs` for root, else `$XDG_RUNTIME_DIR/zerofs` | Control sockets (mode 0600) and the registry of mounts; \
`$ZEROFS_RUNTIME_DIR` puts them elsewhere. |

A process without `HOME`, as in a mount unit, takes it from the user database.
"""

_UNLOCKING = """\
## The password

It comes from `encryption_password`, `password_file` or `password_command` in `[storage]`; from the terminal, without
echo, when none of them is set. White space around it is removed whatever the source. It is checked before the store is
touched: one line, not empty, at least 8 characters, not `CHANGEME`. `change-password` reads the new one from standard
input, with or without a newline at its end, and refuses a second line:

```sh
printf '%s\\n' "$NEW_PASSWORD" | zerofs change-password -c zerofs.toml
```
"""

_SIGNALS = """\
## Signals

The first SIGINT, SIGTERM or SIGHUP flushes, unmounts, stores everything and exits 0, or with the code of what could not
be stored. If processes use the mount, they are named in the log, the mount is detached, and their open files are served
a little longer. A second signal ends the process at once with 128+N; then everything after the last fsync may be lost.
A signal to `zerofs mount` before the mount is there gives the mount up.

`umount`(8) and `fusermount3 -u` do not wait for the data: use `zerofs umount`. `sync`(1) does not reach the store: use
`zerofs flush`, or fsync.
"""

_FSTAB = """\
## fstab

`make install` puts the helper where mount(8) looks for it; the source is the configuration file:

```
/etc/zerofs/zerofs.toml  /mnt/zerofs  fuse.zerofs  _netdev,nofail,x-systemd.mount-timeout=60  0  0
```

The mount options, there and after `-o`:

"""


def markdown() -> str:
    """The whole document."""
    parts = [_INTRODUCTION, "## Commands\n"]
    command = typer.main.get_command(app)
    parts.extend(_commands(command))
    parts += [_FSTAB.rstrip("\n") + "\n", describe_options() + "\n", _SIGNALS, _UNLOCKING]
    parts += ["## Exit codes\n", exitcodes.markdown() + "\n", _FSCK, exitcodes.markdown(exitcodes.FSCK_TABLE) + "\n"]
    parts += ["## Configuration\n"]
    parts += [
        "A TOML file. In every string, `$NAME` and `${NAME}` stand for an environment variable, which must be set;"
        " `${NAME:-default}` has a\ndefault, `$$` is a dollar sign. An unknown key or a wrong type is an error."
        " Relative paths count from the file's directory.\n"
    ]
    parts += [reference(), _FILES]
    return "\n".join(parts)


def _commands(group: Any, *above: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, *above, name)
            continue
        words = ["zerofs", *above, name, "[OPTIONS]"]
        words += [f"[{item.metavar}]" for item in command.params if item.param_type_name == "argument"]
        yield f"### `{' '.join(words)}`\n"
        yield command.help.strip() + "\n"
        yield "| Option | Meaning |\n|---|---|\n" + "\n".join(_rows(command.params)) + "\n"


def _rows(parameters: Any) -> Iterator[str]:
    for item in parameters:
        if item.param_type_name == "argument":
            yield f"| `{_cell(item.metavar)}` | {item.help} |"
        elif not item.hidden and item.name not in _HIDDEN_OPTIONS:
            value = f" {item.metavar}" if item.metavar else ""
            yield f"| `{'`, `'.join(item.opts)}{value}` | {item.help} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the document to the file that is named, or to standard output."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
    else:
        sys.stdout.write(markdown())


if __name__ == "__main__":
    main()
