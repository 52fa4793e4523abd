"""A mount and a local directory, driven side by side by random calls of three users, with remounts and lost caches."""

import fcntl
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.model.machine import data, offsets, picks
from tests.model.machine_contents import ContentsMachine
from tests.model.on_disk import DiskCalls, acting_as
from tests.mount.harness import DRIVER, TINY, Lab, Mount
from zerofs.mounttable import fuse_obstacle

pytestmark = pytest.mark.mount

ROOT, ALICE, BOB = (0, 0, []), (64_001, 64_001, [64_000]), (64_002, 64_002, [64_000])

_numbers = itertools.count(1)


class MountBesideDisk(ContentsMachine):
    """See the module."""

    others = (0, 64_001, 64_002, 64_000)
    flags = (os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_SYNC)

    def __init__(self, mount: Mount, disk: Path) -> None:
        super().__init__()
        self.mount = mount
        name = str(next(_numbers))
        for base in (mount.path, disk):
            (base / name).mkdir()
            (base / name).chmod(0o777)
        self.ours = DiskCalls(str(mount.path / name))
        self.theirs = DiskCalls(str(disk / name))
        self.user = ROOT
        self.before = os.umask(0)

    def both(self, call: str, *arguments: object) -> object:
        with acting_as(self.user):
            return super().both(call, *arguments)

    def keep(self, call: str, *arguments: object) -> object:
        with acting_as(self.user):
            return super().keep(call, *arguments)

    def through(self, call: str, *arguments: object) -> object:
        with acting_as(self.user):
            return super().through(call, *arguments)

    def resizes(self, path: bytes, size: int) -> bool:
        """With the writeback cache, the kernel takes truncating to the same size for no change: no times change."""
        try:
            return self.theirs.stat(path).size != size
        except OSError:
            return True

    @rule(user=st.sampled_from([ROOT, ALICE, BOB]))
    def become(self, user: tuple[int, int, list[int]]) -> None:
        self.user = user

    @precondition(lambda self: self.opened)
    @rule(pick=picks, offset=offsets, size=offsets)
    def posix_fallocate(self, pick: int, offset: int, size: int) -> None:
        opened = self.at(pick)
        if DRIVER == "pyfuse3" and fcntl.fcntl(opened.ours, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            return  # the C library stands in for the kernel, and has to read
        self.through("posix_fallocate", opened, offset, size)

    @precondition(lambda self: self.opened)
    @rule(pick=picks, offset=offsets, content=data)
    def write_through_a_mapping(self, pick: int, offset: int, content: bytes) -> None:
        if self.size(self.at(pick)):
            self.through("mapped", self.at(pick), offset, content)

    @rule()
    def compare_everything(self) -> None:
        user, self.user = self.user, ROOT
        super().compare_everything()
        self.user = user

    # the life of the mount

    @rule()
    def flush(self) -> None:
        self.mount.flush()

    @rule()
    def lose_what_the_kernel_holds(self) -> None:
        self.ours.syncfs()  # only clean pages can be dropped
        Path("/proc/sys/vm/drop_caches").write_text("3")

    @rule()
    def remount(self) -> None:
        """Cold: without the disk cache."""
        self.close_all()
        self.mount.cold_remount()
        self.compare_everything()

    def teardown(self) -> None:
        self.close_all()
        self.compare_everything()
        os.umask(self.before)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory of a local disk that everybody can get at."""
    path = Path(tempfile.mkdtemp(prefix="zf-plain-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def drive(tmp_path: Path, disk: Path, examples: int, steps: int, *, same: bool) -> None:
    """Run the machine, then fsck. `same`: the same examples each time."""
    if os.geteuid():
        pytest.skip("NOT TESTED: only root can be several users")
    if reason := fuse_obstacle():
        pytest.skip(f"NOT TESTED, nothing can be mounted here: {reason}")
    with Lab(tmp_path, patience_s=3600) as lab:
        path = lab.public_directory() / "mnt"
        path.mkdir()
        mount = lab.plan(lab.local_store(), path=path, settings={"servers.fuse": {"allow_other": True}, **TINY})
        mount.start()
        run_state_machine_as_test(
            lambda: MountBesideDisk(mount, disk),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                derandomize=same,
                phases=[Phase.explicit, Phase.generate],  # shrinking is by hand: what a mount holds, it keeps
                suppress_health_check=list(HealthCheck),
            ),
        )
        mount.umount()
        path.rmdir()
        mount.zerofs("fsck")


def test_a_mount_answers_as_a_disk_does(tmp_path: Path, disk: Path) -> None:
    drive(tmp_path, disk, 12, 60, same=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_mount_answers_as_a_disk_does_for_long(tmp_path: Path, disk: Path) -> None:
    drive(tmp_path, disk, 300, 100, same=False)
