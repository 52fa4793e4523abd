"""The command line as users meet it: a process, its two outputs and its exit code."""

import contextlib
import dataclasses
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from zerofs.cli.main import execute

ROOT = Path(__file__).parents[2]
PASSWORD = "hunter2-hunter2"


@dataclasses.dataclass(frozen=True)
class Result:
    """How a command ended. Unpacks as (exit code, standard output, standard error)."""

    code: int
    out: str
    err: str

    def __iter__(self):
        return iter((self.code, self.out, self.err))


class Home:
    """A user's home with nothing in it, and commands that run there."""

    def __init__(self, folder, runtime):
        self.folder = folder
        self.mountpoint = folder / "mnt"
        self.config = folder / "zerofs.toml"
        self.environ = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "ZEROFS_RUNTIME_DIR": str(runtime),
            "LC_ALL": "C.UTF-8",
        }

    def command(self, *arguments):
        return [sys.executable, "-m", "zerofs", *map(str, arguments)]

    def run(self, *arguments, stdin=""):
        """Run `zerofs` in this process, which saves the time to start another; `stdin` is what a pipe would give."""
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(self.folder),
            tempfile.TemporaryFile("w+") as piped,
        ):
            piped.write(stdin)
            piped.seek(0)
            patch.setattr(sys, "stdin", piped)
            for name in set(os.environ) - set(self.environ):
                patch.delenv(name)
            for name, value in self.environ.items():
                patch.setenv(name, value)
            code = execute(["zerofs", *map(str, arguments)])
        return Result(code, out.getvalue(), err.getvalue())

    def spawn(self, *arguments, stdin="", environ=None):
        """Run `zerofs` in a process of its own and wait for it."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environ | (environ or {}),
            timeout=120,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments):
        """Run `zerofs` and go on; its standard error is a pipe."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environ,
        )

    def write_config(self, storage=None, text=""):
        """A configuration with a store in this home. `storage` replaces the lines of its table."""
        lines = f'encryption_password = "{PASSWORD}"' if storage is None else storage
        self.mountpoint.mkdir(exist_ok=True)
        self.config.write_text(
            f'[storage]\nurl = "file://{self.folder}/store"\n{lines}\n'
            '[cache]\ndir = "cache"\ndisk_size_gb = 0.01\n[servers.fuse]\nmountpoint = "mnt"\n' + text
        )


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    # Short, for the paths of sockets.
    runtime = tempfile.mkdtemp(prefix="zerofs-")
    yield Home(folder, runtime)
    shutil.rmtree(runtime)
