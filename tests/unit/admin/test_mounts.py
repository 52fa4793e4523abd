"""zerofs.admin.mounts: who holds a mount. The system calls are tested on real mounts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zerofs.admin import mounts
from zerofs.admin.mounts import Holder


@pytest.fixture
def fake_proc(tmp_path):
    """Two processes below the mountpoint, one beside it, and what is no process."""
    proc = tmp_path / "proc"

    def process(pid, cwd="/", root="/", exe="/usr/bin/bash", files=(), maps=b""):
        folder = proc / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "cwd").symlink_to(cwd)
        (folder / "root").symlink_to(root)
        (folder / "exe").symlink_to(exe)
        for number, target in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(target)
        (folder / "maps").write_bytes(maps)

    process(10, cwd="/mnt/z", files=["/dev/null", "/mnt/z/file (deleted)"])
    process(9, exe="/mnt/z/secret-program", maps=b"7f00-7f01 r-xp 0000 00:35 12    /mnt/z/secret program\n")
    process(11, cwd="/mnt/zz", root="/mnt", files=["/mnt/zz/file"], maps=b"7f00-7f01 r-xp 0000 00:00 0\n")
    process(os.getpid(), cwd="/mnt/z")
    (proc / "self").mkdir()
    (proc / "12").mkdir()
    return proc


def test_holders_are_found_by_everything_that_holds(fake_proc):
    assert mounts.find_holders("/mnt/z", fake_proc) == [
        Holder(pid=9, program=None, uses=frozenset({"running program", "mapped file"})),
        Holder(pid=10, program="bash", uses=frozenset({"working directory", "open file"})),
    ]


def test_a_holder_is_named_unless_its_name_is_a_file_name(fake_proc):
    shown = [str(holder) for holder in mounts.find_holders("/mnt/z", fake_proc)]
    assert shown == [
        "a program in the mount (pid 9: mapped file, running program)",
        "bash (pid 10: open file, working directory)",
    ]


def test_a_real_holder_is_found(tmp_path):
    program = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        found = [holder for holder in mounts.find_holders(str(tmp_path)) if holder.pid == process.pid]
        process.stdin.close()
        process.stdout.read()
    assert [holder.uses for holder in found] == [{"working directory"}]
    assert found[0].program == Path(os.path.realpath(sys.executable)).name
