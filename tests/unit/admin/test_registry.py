"""zerofs.admin.registry: one mountpoint one process, one volume one writer, and the dead do not count."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from zerofs.admin import registry
from zerofs.admin.registry import MountRecord
from zerofs.errors import ConfigError, MountpointError, VolumeInUseError

RECORD = MountRecord(mountpoint="/mnt/a", identity="file:///srv/v", pid=os.getpid(), read_only=False, config="/c")
ELSEWHERE = replace(RECORD, mountpoint="/mnt/b")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run"


def claim(directory, record, take_over=False):
    return registry.claim(directory, record, take_over=take_over)


def test_a_claim_lives_as_long_as_its_context(directory):
    assert registry.living(directory) == []
    with claim(directory, RECORD):
        assert registry.living(directory) == [RECORD]
    assert registry.living(directory) == []
    assert [path.name for path in directory.iterdir()] == ["registry.lock"]


def test_everything_is_private(directory):
    with claim(directory, RECORD):
        assert directory.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_a_second_writer_of_the_volume_is_refused_by_name(directory):
    with claim(directory, RECORD):
        refusal = pytest.raises(VolumeInUseError, match=rf"process {RECORD.pid}, mounted at /mnt/a.*--take-over")
        with refusal as caught, claim(directory, ELSEWHERE):
            pytest.fail("two writers")
        assert caught.value.exit_code == 11
        assert registry.living(directory) == [RECORD]
    with claim(directory, ELSEWHERE):
        pass


def test_take_over(directory):
    with claim(directory, RECORD), claim(directory, ELSEWHERE, take_over=True):
        assert registry.living(directory) == [RECORD, ELSEWHERE]
        with pytest.raises(VolumeInUseError), claim(directory, replace(RECORD, mountpoint="/mnt/c")):
            pass


def test_readers_are_welcome_beside_a_writer_and_a_writer_beside_readers(directory):
    reader = replace(ELSEWHERE, read_only=True)
    with claim(directory, RECORD), claim(directory, reader), claim(directory, replace(reader, mountpoint="/mnt/c")):
        pass
    with claim(directory, reader), claim(directory, RECORD):
        pass


def test_another_volume_is_another_matter(directory):
    with claim(directory, RECORD), claim(directory, replace(ELSEWHERE, identity="file:///srv/w")):
        pass


def test_a_mountpoint_serves_one_mount(directory):
    other = replace(RECORD, identity="file:///srv/w")
    refusal = pytest.raises(MountpointError, match=rf"/mnt/a is served already, by process {RECORD.pid}")
    with claim(directory, RECORD), refusal, claim(directory, other, take_over=True):
        pass


def test_a_killed_process_leaves_nothing_that_counts(directory):
    program = (
        "import sys; from pathlib import Path; from zerofs.admin import registry\n"
        "record = registry.MountRecord(\n"
        "    mountpoint='/mnt/a', identity='file:///srv/v', pid=1, read_only=False, config='')\n"
        "with registry.claim(Path(sys.argv[1]), record, take_over=False):\n"
        "    print('claimed', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"claimed\n"
        with pytest.raises(VolumeInUseError), claim(directory, ELSEWHERE):
            pass
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    assert list(directory.glob("*.mount"))
    assert registry.living(directory) == []
    with claim(directory, RECORD):
        assert registry.living(directory) == [RECORD]


def test_a_failed_body_releases_too(directory):
    with pytest.raises(KeyError), claim(directory, RECORD):
        raise KeyError
    assert registry.living(directory) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"1", b'{"pid": "x"}', json.dumps({"mountpoint": "/m"}).encode(), b"\xff"]
)
def test_a_record_of_another_version_is_no_record(directory, content):
    with claim(directory, RECORD):
        path = next(directory.glob("*.mount"))
        path.write_bytes(content)
        assert registry.living(directory) == []
        with pytest.raises(MountpointError, match="another version"), claim(directory, RECORD):
            pass


def test_additional_fields_of_a_newer_version_are_ignored(directory):
    with claim(directory, RECORD):
        path = next(directory.glob("*.mount"))
        path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
        assert registry.living(directory) == [RECORD]


def test_a_runtime_directory_that_others_may_write_is_refused(directory):
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(ConfigError, match="only this user"), claim(directory, RECORD):
        pass


def test_a_runtime_directory_that_is_a_symlink_is_refused(directory, tmp_path):
    (tmp_path / "target").mkdir(mode=0o700)
    directory.symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError), claim(directory, RECORD):
        pass


def test_a_runtime_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"Not a directory|File exists"), claim(tmp_path / "file" / "run", RECORD):
        pass
    with pytest.raises(ConfigError, match="too long"), claim(tmp_path / ("x" * 100), RECORD):
        pass


def test_each_mountpoint_has_a_socket_of_its_own(directory):
    assert registry.socket_path(directory, "/mnt/a") != registry.socket_path(directory, "/mnt/b")
    assert registry.socket_path(directory, "/mnt/a") == registry.socket_path(directory, "/mnt/a")
    assert registry.socket_path(directory, "/mnt/\udcff").parent == directory
