"""CPython's own tests of its file functions, with all their files on the mount: they pass where they pass on a disk."""

import functools
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path

import pytest

from tests.programs import kit

pytestmark = kit.MARKS

MODULES = (
    *("test_os", "test_posix", "test_shutil", "test_mmap", "test_fcntl", "test_tempfile"),
    *("test_fileio", "test_glob", "test_largefile", "test_mailbox", "test_pathlib"),
)

DIFFERENT: dict[str, str] = {}
"""Tests that have another result on a mount than on a disk, with the reason: none."""


@functools.cache
def python():
    """A Python that has its own tests; empty when there is none."""
    for found in (sys.executable, "/usr/bin/python3"):
        look = [found, "-c", "import test.test_os"]
        if subprocess.run(look, capture_output=True, check=False).returncode == 0:
            return found
    return ""


def results(folder: Path) -> dict[str, str]:
    """Run the tests with everything they make in `folder`: how each of them ended."""
    with tempfile.TemporaryDirectory() as outside:
        report = Path(outside) / "report.xml"
        _, said = kit.attempt(
            *(python(), "-m", "test", "--tempdir", folder, "--junit-xml", report, "-u", "largefile", *MODULES),
            cwd=folder,
            environ={"TMPDIR": str(folder)},
        )
        assert report.exists(), said
        found = {
            case.get("name"): next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "ok")
            for case in xml.etree.ElementTree.parse(report).iter("testcase")
        }
    assert len(found) > 500, said
    return found


@functools.cache
def results_on_a_disk() -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="zf-plain-", dir="/tmp") as folder:
        return results(Path(folder))


@pytest.mark.timeout(600)
def test_cpython(mount):
    """Nothing fails, and nothing is skipped, but what does so on a disk; `DIFFERENT` holds no more than is so."""
    if not python():
        pytest.skip("NOT TESTED: this Python has no `test` package: apt-get install libpython3-all-testsuite")
    expected, found = results_on_a_disk(), results(mount.path)
    worse = {name for name, result in found.items() if result != "ok" and expected.get(name) == "ok"}
    assert worse == DIFFERENT.keys(), {name: found.get(name) for name in worse ^ DIFFERENT.keys()}
    assert expected.keys() == found.keys()
