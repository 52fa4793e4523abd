"""The commands around a real mount: what they print, in which order things end, and with which exit code."""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from zerofs.admin.control import client
from zerofs.mounttable import fuse_obstacle

pytestmark = pytest.mark.mount

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def clean(home):
    """Without FUSE nothing can be tested here, and it is said aloud. Whatever a test leaves mounted goes away."""
    if reason := fuse_obstacle():
        pytest.skip(f"NOT TESTED, nothing can be mounted here: {reason}")
    home.write_config()
    yield
    for mountpoint in mounted_below(home.folder):
        with contextlib.suppress(Exception):
            os.kill(status(home, mountpoint)["pid"], signal.SIGKILL)
        subprocess.run(["fusermount3", "-u", "-z", "--", mountpoint], check=False)


def mounted_below(folder):
    fields = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [field[1] for field in fields if field[1].startswith(str(folder))]


def status(home, *arguments):
    result = home.run("status", "--json", *arguments)
    assert result.code == 0, result.err
    return json.loads(result.out)


def mount(home, *arguments):
    result = home.spawn("mount", "-c", "zerofs.toml", *arguments)
    assert tuple(result)[:2] == (0, f"zerofs mounted at {arguments[0] if arguments else home.mountpoint}\n"), result.err


@contextlib.contextmanager
def running(home, *arguments):
    """`zerofs run`, mounted. The process must end in the block."""
    process = home.start("run", "-c", "zerofs.toml", *arguments)
    lines = []
    with process:
        for line in process.stderr:
            lines.append(line)
            if "mounted at" in line:
                break
        else:
            pytest.fail("".join(lines))
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_until_unmounted(home):
    """Wait for the kernel to change its table of mounts, which poll(2) tells."""
    with Path("/proc/self/mounts").open() as table:
        poll = select.poll()
        poll.register(table, select.POLLPRI | select.POLLERR)
        deadline = time.monotonic() + PATIENCE_S
        while mounted_below(home.folder):
            assert time.monotonic() < deadline
            poll.poll(1000)


def ends(process):
    """Its exit code and the rest of its log."""
    _, log = process.communicate(timeout=PATIENCE_S)
    return process.returncode, log


def test_a_day_in_the_life(home):
    mount(home)
    (home.mountpoint / "file").write_text("content")
    facts = status(home, home.mountpoint)
    assert facts == status(home, "-c", "zerofs.toml") | {
        key: facts[key] for key in ("uptime_s", "oldest_unsynced_s", "dirty_bytes", "traffic", "metrics", "engine")
    }
    assert facts["mountpoint"] == str(home.mountpoint)
    assert (facts["state"], facts["read_only"], len(facts["volume_id"])) == ("ok", False, 32)
    assert {"epoch", "dirty_bytes", "oldest_unsynced_s", "metrics"} <= facts.keys()
    assert Path(f"/proc/{facts['pid']}").exists()
    table = home.run("status", home.mountpoint)
    assert table.code == 0
    assert "volume id" in table.out
    assert tuple(home.run("flush", "-c", "zerofs.toml")) == (0, "Flush completed successfully\n", "")
    assert status(home, home.mountpoint)["dirty_bytes"] == 0
    assert tuple(home.run("umount", home.mountpoint)) == (0, "", "")
    assert client.wait_for_exit(facts["pid"], 0), "umount returned before the process had ended"
    assert not mounted_below(home.folder)
    assert list(home.mountpoint.iterdir()) == []
    mount(home)
    assert (home.mountpoint / "file").read_text() == "content"
    assert home.run("umount", "-c", "zerofs.toml").code == 0


def test_the_socket_is_private_and_logs_hold_no_name(home):
    mount(home)
    (home.mountpoint / "telling-name").write_text("telling content")
    facts = status(home, home.mountpoint)
    sockets = list(Path(home.environ["ZEROFS_RUNTIME_DIR"]).glob("*.sock"))
    assert [path.stat().st_mode & 0o777 for path in sockets] == [0o600]
    assert home.run("umount", home.mountpoint).code == 0
    log = Path(facts["log"])
    assert log.stat().st_mode & 0o777 == 0o600
    assert "mounted at" in log.read_text()
    assert "telling" not in log.read_text() + json.dumps(facts)
    assert not list(Path(home.environ["ZEROFS_RUNTIME_DIR"]).glob("*.sock"))


def test_read_only(home):
    mount(home)
    home.run("umount", home.mountpoint)
    assert home.spawn("mount", "-c", "zerofs.toml", "-o", "ro,_netdev").code == 0
    assert status(home, home.mountpoint)["read_only"]
    with pytest.raises(OSError, match="Read-only"):
        (home.mountpoint / "file").touch()
    assert home.run("flush", home.mountpoint).code == 0
    assert home.run("umount", home.mountpoint).code == 0


def test_the_daemons_error_is_the_commands(home):
    mount(home)
    home.run("umount", home.mountpoint)
    home.write_config('encryption_password = "not-the-password"')
    code, out, err = home.spawn("mount", "-c", "zerofs.toml")
    assert (code, out) == (12, "")
    assert err.startswith("zerofs: error: the password does not open this volume (")
    assert err.endswith("if the password is right, restore zerofs.key from a backup\n")
    assert err.count("\n") == 1
    assert not mounted_below(home.folder)


def test_a_volume_has_one_writer_on_this_host(home):
    mount(home)
    pid = status(home, home.mountpoint)["pid"]
    other = home.folder / "other"
    other.mkdir()
    code, _, err = home.spawn("mount", "-c", "zerofs.toml", other)
    assert code == 11
    assert f"process {pid}, mounted at {home.mountpoint}" in err
    code, _, err = home.spawn("mount", "-c", "zerofs.toml")
    assert code == 20
    assert "is a zerofs mount already" in err
    assert home.run("umount", home.mountpoint).code == 0


def test_take_over_shuts_the_first_one_out(home):
    mount(home)
    (home.mountpoint / "before").write_text("x")
    assert home.run("flush", home.mountpoint).code == 0
    other = home.folder / "other"
    other.mkdir()
    mount(home, other, "--take-over")
    assert (other / "before").read_text() == "x"
    (home.mountpoint / "lost").write_text("x")
    code, _, err = home.run("flush", home.mountpoint)
    assert (code, err.count("\n")) == (18, 1)
    assert status(home, home.mountpoint)["state"] == "fenced"
    code, _, err = home.run("umount", home.mountpoint)
    assert code == 18
    assert mounted_below(home.folder) == [str(other)]
    assert home.run("umount", other).code == 0


def test_busy_is_refused_by_name_and_lazy_is_not(home):
    mount(home)
    held = (home.mountpoint / "held").open("w")
    held.write("held")
    held.flush()
    with subprocess.Popen(["cat"], cwd=home.mountpoint, stdin=subprocess.PIPE) as holder:
        code, _, err = home.run("umount", home.mountpoint)
        assert code == 20
        assert f"cat (pid {holder.pid}: working directory)" in err
        assert err.count("\n") == 1
        assert status(home, home.mountpoint)["state"] == "ok"
        holder.stdin.close()
    held.close()
    with subprocess.Popen(["cat"], cwd=home.mountpoint, stdin=subprocess.PIPE) as holder:
        process = subprocess.Popen(home.command("umount", "--lazy", home.mountpoint), env=home.environ, cwd=home.folder)
        wait_until_unmounted(home)
        holder.stdin.close()
        holder.wait()
        assert process.wait(PATIENCE_S) == 0
    mount(home)
    assert (home.mountpoint / "held").read_text() == "held"
    assert home.run("umount", home.mountpoint).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ends_cleanly_at_the_first_signal(home, number):
    with running(home) as process:
        (home.mountpoint / "file").write_text("content")
        process.send_signal(number)
        code, log = ends(process)
    assert code == 0
    assert f"{signal.Signals(number).name}: unmounting" in log
    assert not mounted_below(home.folder)
    with running(home) as process:
        assert (home.mountpoint / "file").read_text() == "content"
        subprocess.run(["fusermount3", "-u", "--", home.mountpoint], check=True)
        assert ends(process)[0] == 0


def test_run_ends_at_once_at_the_second_signal(home):
    with running(home) as process:
        held = os.open(home.mountpoint / "held", os.O_WRONLY | os.O_CREAT)
        process.send_signal(signal.SIGTERM)
        for line in process.stderr:
            if "is busy, held by" in line:
                break
        process.send_signal(signal.SIGTERM)
        code, log = ends(process)
    with contextlib.suppress(OSError):  # nobody is there to hear of the close
        os.close(held)
    assert code == 128 + signal.SIGTERM
    assert "SIGTERM again: ending at once" in log


def test_a_killed_mount_is_cleared_and_that_is_no_success(home):
    mount(home)
    (home.mountpoint / "file").write_text("content")
    assert home.run("flush", home.mountpoint).code == 0
    pid = status(home, home.mountpoint)["pid"]
    os.kill(pid, signal.SIGKILL)
    assert client.wait_for_exit(pid, PATIENCE_S)
    code, _, err = home.run("status", home.mountpoint)
    assert code == 20
    assert "has ended; run `zerofs umount`" in err
    code, _, err = home.run("umount", home.mountpoint)
    assert code == 19
    assert "what was written after the last fsync or flush may be lost" in err
    mount(home)
    assert (home.mountpoint / "file").read_text() == "content"
    assert home.run("umount", home.mountpoint).code == 0


def test_the_password_changes_while_mounted(home):
    mount(home)
    code, out, _ = home.run("change-password", "-c", "zerofs.toml", stdin="correct-horse-battery\n")
    assert code == 0
    assert "✓" in out
    (home.mountpoint / "file").write_text("content")
    assert home.run("umount", home.mountpoint).code == 0
    home.write_config('encryption_password = "correct-horse-battery"')
    mount(home)
    assert (home.mountpoint / "file").read_text() == "content"
    assert home.run("umount", home.mountpoint).code == 0


def test_a_lost_write_is_told_until_an_operator_clears_it(home):
    mount(home)
    assert tuple(home.run("clear-data-lost")) == (
        *(0, f"No write was lost at {home.mountpoint}: there is nothing to clear\n"),
        "",
    )
    (home.mountpoint / "file").write_bytes(os.urandom(200_000))
    assert home.run("umount").code == 0
    shutil.rmtree(home.folder / "cache")
    mount(home)
    with open(home.mountpoint / "file", "r+b", buffering=0) as file:
        (home.folder / "store" / "compacted").rename(home.folder / "away")
        os.pwrite(file.fileno(), b"x" * 4096, 8192)  # a page: the kernel need not read it, zerofs the chunk around it
        with pytest.raises(OSError, match="Input/output"):
            os.fsync(file.fileno())
        (home.folder / "away").rename(home.folder / "store" / "compacted")
        assert status(home)["state"] == "data-lost"
        assert 'mount_state{state="data-lost"}": 1' in home.run("status", "--json").out.replace("\\", "")
        code, _, err = home.run("umount")
        assert code == 19
        assert "lost" in err
        assert tuple(home.run("clear-data-lost", home.mountpoint)) == (
            *(0, f"Cleared: fsync and close succeed again at {home.mountpoint}; what was refused stays lost\n"),
            "",
        )
        assert status(home)["state"] == "ok"
        with pytest.raises(OSError, match="Input/output"):
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            file.close()
    with open(home.mountpoint / "file", "r+b", buffering=0) as file:
        os.fsync(file.fileno())
    assert home.run("umount").code == 0
    code, _, err = home.run("clear-data-lost")
    assert code == 20
    assert "is not mounted on this host" in err


def test_a_mount_dumps_no_core(home):
    mount(home)
    pid = status(home, home.mountpoint)["pid"]
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if line.startswith("Max core")).split()[4:6] == ["0", "0"]
    assert home.run("umount", home.mountpoint).code == 0


def test_a_mountpoint_that_cannot_be_costs_no_writer_its_volume(home):
    """Refused before the volume is opened: opening it for writing shuts out whoever has it, here or elsewhere."""
    mount(home)
    assert home.run("umount", home.mountpoint).code == 0
    manifests = sorted(path.name for path in (home.folder / "store" / "manifest").iterdir())
    for target in ("/proc", home.config):
        code, _, err = home.spawn("mount", "-c", "zerofs.toml", target)
        assert (code, err.count("\n")) == (20, 1)
    assert sorted(path.name for path in (home.folder / "store" / "manifest").iterdir()) == manifests


def test_a_mount_that_hides_something_says_so(home):
    (home.mountpoint / "telling-name").touch()
    code, _, err = home.spawn("mount", "-c", "zerofs.toml")
    assert code == 0
    assert err == (
        "zerofs: warning: the mountpoint is not empty; what it holds is hidden while the volume is mounted\n"
    )
    assert home.run("umount", home.mountpoint).code == 0


def test_a_command_that_is_told_to_end_leaves_nothing_behind(home):
    """`timeout 1 zerofs mount` while the store does not answer: no daemon that mounts later."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        home.config.write_text(
            f'[storage]\nurl = "s3://bucket"\nencryption_password = "hunter2-hunter2"\n[aws]\nallow_http = true\n'
            f'endpoint = "http://127.0.0.1:{mute.getsockname()[1]}"\naccess_key_id = "x"\nsecret_access_key = "y"\n'
            '[servers.fuse]\nmountpoint = "mnt"\n'
        )
        process = home.start("mount", "-c", "zerofs.toml")
        mute.settimeout(PATIENCE_S)
        mute.accept()[0].close()
        (record,) = Path(home.environ["ZEROFS_RUNTIME_DIR"]).glob("*.mount")
        pid = json.loads(record.read_text())["pid"]
        process.send_signal(signal.SIGTERM)
        assert ends(process) == (
            143,
            "zerofs: error: ended by SIGTERM before it was mounted; the mount is given up\n",
        )
    assert client.wait_for_exit(pid, PATIENCE_S)
    assert not mounted_below(home.folder)
