"""Real C projects: built and checked by another user on the mount, they are what they are on a disk."""

import dataclasses
import os
from pathlib import Path

import pytest

from tests.mount.hosts import REPOSITORY
from tests.mount.trees import snapshot
from tests.programs import kit

pytestmark = kit.MARKS

SOURCES = REPOSITORY / ".tools" / "sources"
USER = "nobody"
JOBS = "-j4"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Project:
    """How a source is built and checked, and a file that something depends on."""

    package: str
    commands: tuple[tuple[str, ...], ...]
    targets: tuple[str, ...]
    source: str
    passed: str


PROJECTS = [
    Project(
        package="zlib",
        commands=(("./configure",), ("make", JOBS), ("make", "check")),
        targets=("all",),
        source="zlib.h",
        passed="*** zlib 64-bit test OK ***",
    ),
    Project(
        package="bzip2",
        commands=(("make", JOBS, "CFLAGS=-O2 -D_FILE_OFFSET_BITS=64"),),
        targets=("bzip2", "bzip2recover", "libbz2.a"),
        source="compress.c",
        passed="If you got this far and the 'cmp's didn't complain",
    ),
]


def build(project: Project, folder: Path) -> dict[bytes, str]:
    """Unpack, build and check below `folder`. What was compiled and linked, by the digests of its files."""
    (archive,) = (path for path in SOURCES.glob(f"{project.package}_*.orig.tar.*") if path.suffix != ".asc")
    folder.mkdir()
    kit.run("tar", "-xf", archive, "--strip-components=1", cwd=folder)
    kit.run("chown", "-R", USER, folder, cwd=folder)
    said = "".join(kit.run(*command, cwd=folder, user=USER) for command in project.commands)
    assert project.passed in said, said[-2000:]
    return {
        path: node.digest
        for path, node in snapshot(folder).items()
        if node.digest and (path.endswith((b".o", b".lo")) or (node.mode & 0o100 and b"/" not in path))
    }


def dependencies_hold(project: Project, folder: Path) -> None:
    """make finds all done; after a change, all that depends on it is to be done."""
    assert kit.attempt("make", "-q", *project.targets, cwd=folder, user=USER) == (0, "")
    os.utime(folder / project.source)
    code, _ = kit.attempt("make", "-q", *project.targets, cwd=folder, user=USER)
    assert code == 1


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.package)
def test_a_build(mount, plain, project):
    kit.need_root()
    kit.need("make", "gcc", "tar", "bzip2")
    if not list(SOURCES.glob(f"{project.package}_*.orig.tar.*")):
        pytest.skip(f"NOT TESTED: the source of {project.package} is missing: run make programs")
    expected = build(project, plain / "build")
    found = build(project, mount.path / "build")
    assert len(expected) > 10
    assert found == expected
    kit.unchanged_after_cold_remount(mount, mount.path)
    dependencies_hold(project, mount.path / "build")
