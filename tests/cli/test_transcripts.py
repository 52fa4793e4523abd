"""What commands print and how they exit, as far as nothing has to be mounted for it."""

import json
import os
import pty
import select
import shlex
import stat
import subprocess
import sys

import pytest
import trio

from tests.cli.conftest import PASSWORD, ROOT
from zerofs import __version__
from zerofs.crypto.kdf import KdfCost
from zerofs.crypto.secret import Secret
from zerofs.keys import vault
from zerofs.objectstore.open import open_store
from zerofs.objectstore.options import S3Options
from zerofs.telemetry.metrics import Metrics
from zerofs.world import World

NEW = "correct-horse-battery"


def one_line(text):
    assert text.startswith("zerofs: error: ")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text.removeprefix("zerofs: error: ").rstrip("\n")


def test_version(home):
    assert tuple(home.spawn("--version")) == (0, f"zerofs {__version__}\n", "")


def test_help(home):
    code, out, err = home.run("--help")
    assert (code, err) == (0, "")
    for command in ("init", "run", "mount", "umount", "flush", "status", "change-password"):
        assert f"  {command} " in out
    assert "[servers.fuse]" in out


def test_no_arguments_show_the_help_but_are_no_success(home):
    code, out, err = home.run()
    assert (code, err) == (2, "")
    assert out.startswith("Usage: zerofs ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate' (see `zerofs --help`)"),
        (["status", "--jason"], "No such option: --jason"),
        (["run", "extra"], "Got unexpected extra argument"),
        (["run", "-c"], "Option '-c' requires an argument"),
        (["mount", "/mnt", "-o", "sync"], 'there is no mount option "sync"; the nearest known one is "'),
        (["status", "/mnt", "-c", "x.toml"], "give a mountpoint or a configuration, not both"),
        (["init", "a.toml", "-c", "b.toml"], "give PATH or -c FILE, not both"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(home, arguments, message):
    code, out, err = home.run(*arguments)
    assert (code, out) == (2, "")
    assert message in one_line(err)


def test_init(home):
    code, out, err = home.run("init")
    assert (code, out) == (0, "")
    assert err == f"Configuration written to {home.config}\nEdit it, then run: zerofs run -c zerofs.toml\n"
    assert home.config.read_text() == (ROOT / "zerofs.example.toml").read_text()
    assert stat.S_IMODE(home.config.stat().st_mode) == 0o600


def test_init_to_standard_output(home):
    assert tuple(home.run("init", "-")) == (0, (ROOT / "zerofs.example.toml").read_text(), "")
    assert not list(home.folder.iterdir())


def test_init_overwrites_only_by_force(home):
    home.config.write_text("mine")
    code, _, err = home.run("init", "zerofs.toml")
    assert (code, one_line(err)) == (2, "zerofs.toml exists; --force overwrites it")
    assert home.config.read_text() == "mine"
    assert home.run("init", "-c", "zerofs.toml", "--force").code == 0
    assert home.config.read_text().startswith("# zerofs configuration")


def test_init_where_nothing_can_be_written(home):
    code, _, err = home.run("init", "missing/zerofs.toml")
    assert (code, one_line(err)) == (2, "missing/zerofs.toml cannot be written: No such file or directory")


@pytest.mark.parametrize("command", ["run", "mount", "umount", "flush", "status", "change-password"])
def test_configuration_errors_are_the_same_line_in_every_command(home, command):
    home.write_config(text="[chache]\nx = 1\n")
    code, out, err = home.run(command, "-c", "zerofs.toml")
    assert (code, out) == (2, "")
    assert one_line(err) == f"{home.config}: there is no table [chache]; the nearest known one is [cache]"
    code, _, err = home.run(command, "-c", "missing.toml")
    assert (code, one_line(err)) == (2, f"{home.folder}/missing.toml: cannot be read: No such file or directory")
    home.write_config('encryption_password = "${NOT_SET_ANYWHERE}"')
    code, _, err = home.run(command, "-c", "zerofs.toml")
    assert code == 2
    assert "[storage] encryption_password: the environment variable NOT_SET_ANYWHERE is not set" in one_line(err)


def test_without_a_configuration(home):
    code, _, err = home.run("run")
    assert code == 2
    assert "no configuration file: give one with -c FILE, or make one with `zerofs init`" in one_line(err)


@pytest.mark.parametrize("command", ["run", "mount"])
@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("", "Password cannot be empty"),
        ("short77", "Password must be at least 8 characters long"),
        ("CHANGEME", "Please choose a secure password, not 'CHANGEME'"),
    ],
)
def test_password_rules_before_the_store_is_touched(home, command, password, message):
    home.write_config(f'encryption_password = "  {password} "')
    code, _, err = home.run(command, "-c", "zerofs.toml")
    assert (code, one_line(err)) == (2, message)
    assert not (home.folder / "store").exists()


def test_a_password_that_cannot_be_asked_for(home):
    home.write_config("")
    done = subprocess.run(
        home.command("run", "-c", "zerofs.toml"),
        cwd=home.folder,
        env=home.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 2
    assert "there is no terminal to ask on" in one_line(done.stderr)


def test_a_password_file_that_others_may_read(home):
    home.write_config('password_file = "password"')
    (home.folder / "password").write_text(PASSWORD)
    (home.folder / "password").chmod(0o644)
    code, _, err = home.run("run", "-c", "zerofs.toml")
    assert code == 2
    assert "has mode 0644: others may read it" in one_line(err)
    assert PASSWORD not in err


@pytest.mark.parametrize("command", ["run", "mount"])
def test_mountpoint_errors(home, command):
    home.write_config()
    home.mountpoint.rmdir()
    code, _, err = home.run(command, "-c", "zerofs.toml")
    assert (code, one_line(err)) == (20, f"the mountpoint {home.mountpoint} does not exist; make the directory first")
    home.mountpoint.touch()
    code, _, err = home.run(command, "-c", "zerofs.toml")
    assert (code, one_line(err)) == (20, f"the mountpoint {home.mountpoint} is not a directory")


@pytest.mark.parametrize("command", ["umount", "flush", "status"])
def test_what_is_not_mounted(home, command):
    home.write_config()
    code, _, err = home.run(command, home.mountpoint)
    assert (code, one_line(err)) == (20, f"{home.mountpoint} is not a zerofs mount")
    code, _, err = home.run(command, "-c", "zerofs.toml")
    assert (code, one_line(err)) == (20, f"the volume of {home.config} is not mounted on this host")


def test_mount_8_finds_its_way(home):
    home.write_config()
    assert tuple(home.run(home.config, home.mountpoint, "-o", "rw,allow_othr")) == (
        2,
        "",
        'zerofs: error: there is no mount option "allow_othr"; the nearest known one is "allow_other"\n',
    )
    helper = home.folder / "mount.fuse.zerofs"
    helper.write_text(f"#!{sys.executable}\nfrom zerofs.cli.main import main\nmain()\n")
    helper.chmod(0o755)
    options = ["-o", "rw,_netdev,nofail,x-systemd.automount", "-t", "fuse.zerofs"]
    # As in a mount unit: a bare PATH, and no HOME. With -f, everything is done but the mount.
    done = subprocess.run(
        [helper, home.config, home.mountpoint, "-f", *options],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = subprocess.run(
        [helper, home.folder / "none.toml", home.mountpoint, *options],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        2,
        f"zerofs: error: {home.folder}/none.toml: cannot be read: No such file or directory\n",
    )


def test_errors_are_coloured_on_terminals_only(home):
    master, slave = pty.openpty()
    process = subprocess.Popen(
        home.command("status", home.folder), env=home.environ | {"TERM": "xterm"}, stderr=slave, cwd=home.folder
    )
    os.close(slave)
    assert process.wait(60) == 20
    assert select.select([master], [], [], 10)[0]
    assert b"\x1b[1;31merror:" in os.read(master, 10_000)
    os.close(master)
    assert "\x1b" not in home.run("status", home.folder).err


def test_a_closed_pipe_is_no_traceback(home):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        home.command("init", "-"), env=home.environ, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


BROKEN = """
import sys
from zerofs.cli import locate, main
def explode(*arguments): raise KeyError("a secret file name")
locate.locate = explode
import zerofs.cli.query
zerofs.cli.query.locate = explode
sys.exit(main.execute(["zerofs", *sys.argv[1:]]))
"""


def test_an_internal_error_is_one_line_and_verbose_shows_more(home):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", BROKEN, *arguments],
            env=home.environ,
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("status", "/mnt")
    log = home.folder / ".local/state/zerofs/logs/errors.log"
    assert done.returncode == 1
    assert one_line(done.stderr) == f"internal error (KeyError); the details are in {log}; -v shows it here"
    assert "explode" in log.read_text()
    assert "secret" not in log.read_text()
    for arguments in (("-v", "status", "/mnt"), ("status", "/mnt", "--verbose")):
        done = run(*arguments)
        assert done.returncode == 1
        assert "Traceback" in done.stderr


CHEAP = KdfCost(memory_kib=8192, time_cost=1, parallelism=1)
"""What the sidecar says is what every later change uses: no need to wait for the everyday cost."""


@pytest.fixture
def sidecar(home):
    """The key object of a volume whose password is PASSWORD."""
    home.write_config()

    async def create():
        world = World()
        store = open_store(f"file://{home.folder}/store", S3Options(), world, Metrics())
        await vault.create(store, world, Secret(PASSWORD.encode()), CHEAP)
        await store.aclose()

    trio.run(create)
    return home.folder / "store" / "zerofs.key"


READING = "Reading new password from stdin...\n"
READ = "New password read successfully.\n"
CHANGING = "Changing encryption password...\n"


def test_change_password(home, sidecar):
    before = sidecar.read_bytes()
    code, out, err = home.run("change-password", "-c", "zerofs.toml", stdin=f"  {NEW} \n")
    assert (code, err) == (0, READING + READ + CHANGING)
    assert out.splitlines() == [
        "✓ Encryption password changed successfully!",
        "ℹ To use the new password, update your config file or environment variable",  # noqa: RUF001 (its own text)
        "  Copies of the old zerofs.key, in backups or object versions, still open with the old password.",
    ]
    assert sidecar.read_bytes() != before
    # The old one opens nothing any more, and the new one does.
    code, out, err = home.run("change-password", "-c", "zerofs.toml", stdin=f"{NEW}\n")
    assert (code, out) == (1, "")
    assert err == READING + READ + CHANGING + "✗ Error: Failed to unwrap DEK: Invalid password or corrupted key\n"
    home.write_config(f'encryption_password = "{NEW}"')
    assert home.run("change-password", "-c", "zerofs.toml", stdin=PASSWORD).code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "Password cannot be empty"),
        ("\n", "Password cannot be empty"),
        (" \t \n", "Password cannot be empty"),
        ("short77\n", "Password must be at least 8 characters long"),
        ("CHANGEME\n", "Please choose a secure password, not 'CHANGEME'"),
    ],
)
def test_a_new_password_that_breaks_a_rule_changes_nothing(home, sidecar, line, message):
    before = sidecar.read_bytes()
    code, out, err = home.run("change-password", "-c", "zerofs.toml", stdin=line)
    assert (code, out, err) == (1, "", f"{READING}✗ Error: {message}\n")
    assert sidecar.read_bytes() == before


def test_a_new_password_of_several_lines_is_refused(home, sidecar):
    before = sidecar.read_bytes()
    code, out, err = home.run("change-password", "-c", "zerofs.toml", stdin=f"{NEW}\nsecond line\n")
    assert (code, out) == (1, "")
    assert err == READING + "✗ Error: standard input holds more than one line; a password is one line\n"
    assert sidecar.read_bytes() == before


@pytest.mark.parametrize("text", [NEW, f"{NEW}\n", f"{NEW}\n\n"])
def test_a_newline_at_the_end_does_not_matter(home, sidecar, text):
    assert home.spawn("change-password", "-c", "zerofs.toml", stdin=text).code == 0
    home.write_config(f'encryption_password = "{NEW}"')
    assert home.run("change-password", "-c", "zerofs.toml", stdin=PASSWORD).code == 0


def test_a_second_line_may_come_later(home, sidecar):
    before = sidecar.read_bytes()
    command = f"(echo {NEW}; sleep 0.3; echo second line) | {shlex.join(home.command('change-password'))}"
    done = subprocess.run(
        ["sh", "-c", command],
        env=home.environ,
        cwd=home.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "more than one line" in done.stderr
    assert sidecar.read_bytes() == before


def test_a_pipe_that_stays_open_is_not_waited_for(home, sidecar):
    reader, writer = os.pipe()
    os.write(writer, f"{NEW}\n".encode())
    done = subprocess.run(
        home.command("change-password", "-c", "zerofs.toml"),
        env=home.environ,
        cwd=home.folder,
        stdin=reader,
        capture_output=True,
        timeout=60,
        check=False,
    )
    os.close(reader)
    os.close(writer)
    assert done.returncode == 0


def test_the_placeholder_has_a_message_of_its_own(home):
    home.write_config('encryption_password = "CHANGEME"')
    code, out, err = home.run("change-password", "-c", "zerofs.toml", stdin=f"{NEW}\n")
    assert (code, out) == (1, "")
    assert err == "✗ Error: Current password is still the default. Please update your config file first\n"
    assert not (home.folder / "store").exists()


def test_a_current_password_that_breaks_a_rule(home):
    home.write_config('encryption_password = "short77"')
    code, _, err = home.run("change-password", "-c", "zerofs.toml", stdin=f"{NEW}\n")
    assert (code, err) == (1, "✗ Error: Password must be at least 8 characters long\n")


def test_no_volume_to_change(home):
    home.write_config()
    code, _, err = home.run("change-password", "-c", "zerofs.toml", stdin=f"{NEW}\n")
    assert code == 1
    assert err.startswith(READING + READ + CHANGING + "✗ Error: ")


def test_a_command_may_give_the_current_password(home, sidecar):
    home.write_config(f"password_command = \"sh -c 'cat; echo {PASSWORD}'\"")
    assert home.run("change-password", "-c", "zerofs.toml", stdin=f"{NEW}\n").code == 0


def on_a_terminal(home, *arguments, answers):
    """Run a command on a terminal, answering its questions; returns the exit code and what the terminal showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home.folder)
        command = home.command(*arguments)
        os.execvpe(command[0], command, home.environ)
    shown = b""
    answers = list(answers)
    while True:
        try:
            data = os.read(terminal, 10_000)
        except OSError:
            break
        shown += data
        if answers and shown.endswith(answers[0][0].encode()):
            os.write(terminal, answers.pop(0)[1].encode() + b"\n")
    os.close(terminal)
    assert not answers
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode().replace("\r\n", "\n")


def test_on_a_terminal_the_new_password_is_asked_for_twice(home, sidecar):
    code, shown = on_a_terminal(
        home,
        "change-password",
        "-c",
        "zerofs.toml",
        answers=[("New password: ", NEW), ("New password, again: ", NEW)],
    )
    assert code == 0
    assert "✓ Encryption password changed successfully!" in shown
    assert NEW not in shown
    assert READING not in shown


def test_on_a_terminal_two_answers_must_agree(home, sidecar):
    before = sidecar.read_bytes()
    code, shown = on_a_terminal(
        home,
        "change-password",
        "-c",
        "zerofs.toml",
        answers=[("New password: ", NEW), ("New password, again: ", NEW + "x")],
    )
    assert code == 1
    assert "✗ Error: The two passwords are not the same" in shown
    assert sidecar.read_bytes() == before


def test_on_a_terminal_all_passwords_can_be_asked_for(home, sidecar):
    home.write_config("")
    answers = [("Password: ", PASSWORD), ("New password: ", NEW), ("New password, again: ", NEW)]
    code, shown = on_a_terminal(home, "change-password", "-c", "zerofs.toml", answers=answers)
    assert code == 0
    assert PASSWORD not in shown


def test_json_of_an_error_is_still_an_error(home):
    home.write_config()
    code, out, err = home.run("status", "-c", "zerofs.toml", "--json")
    assert (code, out) == (20, "")
    with pytest.raises(json.JSONDecodeError):
        json.loads(err)
