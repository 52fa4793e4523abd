"""zerofs.cli.console: what people see, in a pipe and on a terminal."""

import contextlib
import json
import os
import pty

from zerofs.cli import console
from zerofs.errors import ConfigError


def test_an_error_is_one_plain_line(capsys):
    console.complain("first\nsecond\x1b[31m [bold]third[/bold] " + "long " * 100)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("zerofs: error: first second [31m [bold]third[/bold] long long")
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_names_that_are_not_text_are_escaped(capsys):
    console.say("/mnt/\udcff")
    assert capsys.readouterr().out == "/mnt/\\udcff\n"


def test_json_is_json(capsys):
    console.print_json({"mountpoint": "/mnt/\udcff", "n": 1})
    assert json.loads(capsys.readouterr().out) == {"mountpoint": "/mnt/\udcff", "n": 1}


def test_a_table_spells_units(capsys):
    console.print_table(
        "/mnt",
        {
            "pid": 7,
            "state": "ok",
            "dirty_bytes": 1536,
            "oldest_dirty_ns": 2_500_000_000,
            "uptime_s": 61,
            "read_only": False,
            "log": None,
            "requests": {"read": 12345, "write": 0},
            'store_received_bytes{kind="get"}': 2048,
            'store_requests_total{kind="put_if_absent"}': 3,
            "cache": {"bytes": 0},
            "reason": "",
            "names": ["a", "b"],
            "ratio": 0.25,
        },
    )
    rows = [line.strip("│ \n").split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert {row[0].strip(): row[1].strip() for row in rows} == {
        "pid": "7",
        "state": "ok",
        "dirty": "1.5 KiB",
        "oldest dirty": "2.5 s",
        "uptime": "1 min 1 s",
        "read only": "no",
        "log": "-",
        "requests: read": "12345",
        "store received get": "2.0 KiB",
        "store requests put if absent": "3",
        "cache": "0 B",
        "reason": "-",
        "requests: write": "0",
        "names": "a, b",
        "ratio": "0.25",
    }


def test_progress_is_silent_in_a_pipe(capsys):
    with console.progress("working"):
        pass
    assert capsys.readouterr() == ("", "")


def test_there_is_no_question_without_a_terminal():
    pid = os.fork()
    if pid == 0:
        os.setsid()  # no controlling terminal any more
        code = 1
        try:
            console.ask_secret("Password: ")
        except ConfigError as error:
            code = 0 if "there is no terminal" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_question_is_asked_without_echo():
    pid, terminal = pty.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if console.ask_secret("Password: ") == "hunter2-hunter2" else 2
        finally:
            os._exit(code)
    shown = b""
    while b"Password: " not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"hunter2-hunter2\n")
    with contextlib.suppress(OSError):  # how Linux tells the end of a terminal
        while True:
            shown += os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"hunter2" not in shown
