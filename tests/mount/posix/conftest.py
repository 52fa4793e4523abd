"""The ground of the tables: a zerofs mount, and beside it a plain directory, which shows that a table is right."""

import contextlib
import dataclasses
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.mount.harness import Lab
from tests.mount.posix.users import GROUP, User
from zerofs.mounttable import fuse_obstacle

_numbers = itertools.count(1)


@dataclasses.dataclass(kw_only=True)
class Site:
    """A directory of one test's own, 0777, and who works in it."""

    path: Path
    is_mount: bool
    root: User
    alice: User
    bob: User

    def __truediv__(self, name: str) -> str:
        return f"{self.path}/{name}"

    def user(self, name: str) -> User:
        """By name."""
        return getattr(self, name)

    def file(self, name: str, mode: int = 0o644, owner: User | None = None, data: bytes = b"data") -> str:
        """A file made by root, given away afterwards."""
        path = self / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, data)
        os.close(descriptor)
        return self._give(path, mode, owner)

    def fresh(self, name: str, owner: User) -> str:
        """A file of this name that was not there before."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self / name)
        return self.file(name, owner=owner)

    def directory(self, name: str, mode: int = 0o755, owner: User | None = None) -> str:
        """A directory made by root, given away afterwards."""
        os.mkdir(self / name)
        return self._give(self / name, mode, owner)

    def _give(self, path: str, mode: int, owner: User | None) -> str:
        if owner is not None:
            os.chown(path, owner.uid, owner.gid)
        os.chmod(path, mode)
        return path


@pytest.fixture(scope="module", params=["plain", "pyfuse3", "native"])
def ground(request, tmp_path_factory):
    """A directory that everybody can get at."""
    if os.geteuid():
        pytest.skip("NOT TESTED: only root can be several users")
    if request.param == "plain":
        path = Path(tempfile.mkdtemp(prefix="zf-plain-", dir="/tmp"))
        path.chmod(0o755)
        yield path
        shutil.rmtree(path)
        return
    if reason := fuse_obstacle():
        pytest.skip(f"NOT TESTED, nothing can be mounted here: {reason}")
    with Lab(tmp_path_factory.mktemp("posix"), patience_s=600) as lab:
        path = lab.public_directory() / "mnt"
        path.mkdir()
        settings = {"servers.fuse": {"allow_other": True, "driver": request.param}}
        mount = lab.plan(lab.local_store(), path=path, settings=settings)
        mount.start()
        yield path
        mount.umount()
        path.rmdir()
        mount.zerofs("fsck")


@pytest.fixture(scope="module")
def users():
    """Forked before a table begins, so that they hold nothing of it."""
    people = {
        "root": User("root", 0, 0, []),
        "alice": User("alice", 64_001, 64_001, [GROUP]),
        "bob": User("bob", 64_002, 64_002, [GROUP]),
    }
    yield people
    for user in people.values():
        user.end()


@pytest.fixture
def site(ground, users):
    """A new directory on the ground. Umask is 0 within the test."""
    path = ground / f"{next(_numbers)}"
    before = os.umask(0)
    path.mkdir(mode=0o777)
    try:
        yield Site(path=path, is_mount=ground.name == "mnt", **users)
    finally:
        os.umask(before)
