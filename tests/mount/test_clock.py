"""A wall clock that jumps while a volume is mounted: nothing that is safe may rest on it.

The clock of one process cannot be set on Linux (time namespaces have no wall clock). So the process that serves the
mount is given other functions of `time` and `datetime`, which add what a file says: that is the clock of zerofs, and
that by which requests to S3 are signed. The kernel, the server and TLS keep the real one; monotonic time jumps nowhere.
"""

import dataclasses
import os
import time

import pytest

from tests.mount.harness import TINY
from tests.mount.hosts import Host, wait_for
from tests.mount.stores import BucketStore, on_stores

pytestmark = pytest.mark.mount

HOUR_S, DAY_S, YEAR_S = 3600, 86_400, 31_557_600

SITE_CUSTOMIZE = """
import datetime, time

def offset(path={path!r}):
    with open(path) as file:
        return float(file.read() or 0)

WALL_CLOCKS = (time.CLOCK_REALTIME, 5)  # and CLOCK_REALTIME_COARSE
real_ns, real_clock_ns = time.time_ns, time.clock_gettime_ns
time.time_ns = lambda: real_ns() + int(offset() * 10**9)
time.clock_gettime_ns = lambda clock: real_clock_ns(clock) + (int(offset() * 10**9) if clock in WALL_CLOCKS else 0)
time.time = lambda: time.time_ns() / 10**9

class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)

datetime.datetime = Jumping
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JumpingHost(Host):
    """A machine whose clock is off by what `jump` says."""

    @property
    def _offset(self):
        return self.home / "offset"

    def jump(self, offset_s):
        """Set the clock, from its true time."""
        fresh = self.home / "offset.new"
        fresh.write_text(str(offset_s))
        fresh.rename(self._offset)

    def environ(self, password):
        found = super().environ(password)
        (self.home / "sitecustomize.py").write_text(SITE_CUSTOMIZE.format(path=str(self._offset)))
        return found | {"PYTHONPATH": f"{self.home}:{found['PYTHONPATH']}"}


@pytest.fixture
def host(lab):
    """The lab's own machine, with another clock."""
    made = JumpingHost(runtime=lab.host.runtime, state=lab.host.state, home=lab.host.home)
    made.jump(0)
    return made


def live(mount, name):
    """Some of everything, made durable."""
    folder = mount.path / name
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}").write_bytes(f"{name} {number}".encode() * 1000)
    (folder / "0").rename(folder / "renamed")
    (folder / "1").unlink()
    descriptor = os.open(folder, os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)
    mount.flush()


def check(mount, names):
    assert sorted(path.name for path in mount.path.iterdir()) == sorted(names)
    for name in names:
        found = {path.name: path.read_bytes() for path in (mount.path / name).iterdir()}
        expected = {f"{number}": f"{name} {number}".encode() * 1000 for number in range(2, 20)}
        assert found == expected | {"renamed": f"{name} 0".encode() * 1000}


def test_a_clock_that_jumps_while_mounted_and_between_mounts(lab, store, host):
    mount = lab.mount(store, host=host, settings=TINY)
    names = []
    for number, offset_s in enumerate((HOUR_S, -3 * DAY_S, 50 * YEAR_S, -int(time.time()))):
        host.jump(offset_s)
        names.append(f"live {number}")
        live(mount, names[-1])
        check(mount, names)
        shown_s = (mount.path / names[-1]).stat().st_mtime
        assert abs(shown_s - max(0, time.time() + offset_s)) < HOUR_S, "times are shown as the clock was"
        if number == 1:
            mount.kill()
            mount.drop_cache()
            host.jump(-offset_s)  # and while nobody looks
            mount.start()
        check(mount, names)
    mount.zerofs("checkpoint", "create", "in 1970")
    mount.zerofs("collect")
    mount.umount()
    assert mount.zerofs("fsck").returncode == 0
    assert '"created_at": "1970-01-01T' in mount.zerofs("checkpoint", "list", "--json").stdout


@pytest.mark.s3
@on_stores("minio")
def test_a_clock_that_is_so_wrong_that_s3_refuses_is_an_outage(lab, store, host):
    """S3 refuses what is signed more than 15 minutes off. That ends when the clock is right again."""
    assert isinstance(store, BucketStore)
    mount = lab.mount(store, host=host)
    live(mount, "before")
    (mount.path / "during").write_bytes(b"x")
    host.jump(2 * DAY_S)
    with open(mount.path / "during", "ab") as file:
        file.write(b"x" * 9_999)
    wait_for(lambda: mount.status()["state"] == "waiting", "the state waiting")
    assert "RequestTimeTooSkewed" in mount.status()["reason"]
    host.jump(0)
    wait_for(lambda: mount.status()["state"] == "ok", "the state ok")
    mount.flush()
    mount.kill()
    mount.drop_cache()
    mount.start()
    assert (mount.path / "during").read_bytes() == b"x" * 10_000
    (mount.path / "during").unlink()
    check(mount, ["before"])
    mount.umount()
