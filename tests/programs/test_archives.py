"""tar and rsync: a tree of everything that a tree can hold goes in and comes out unchanged, and both say so, too."""

import os

import pytest

from tests.mount import trees
from tests.mount.trees import differences, snapshot
from tests.programs import kit

pytestmark = kit.MARKS

TAR = ("tar", "--xattrs", "--xattrs-include=*", "--sparse", "--numeric-owner", "--format=posix")
RSYNC = ("rsync", "-aHAX", "--numeric-ids", "--sparse", "--checksum", "--itemize-changes", "--modify-window=-1")

"""`--modify-window=-1`: times are compared to the nanosecond, else to the second."""

HOLES = "oddities/holes"


@pytest.fixture
def tree(plain):
    """Links, modes, owners, times, attributes, holes, odd names, and a thousand ordinary files."""
    kit.need_root()
    path = plain / "tree"
    path.mkdir()
    trees.standard_library(path / "stdlib", trees.SLICE)
    trees.oddities(path / "oddities")
    for number, folder in enumerate(sorted((path / "stdlib").iterdir())):
        os.chown(folder, 60_000 + number, 61_000 + number)
    os.lchown(path / "oddities" / "links" / "dangling", 60_100, 61_100)
    os.chmod(path / "stdlib", 0o3771)
    return path


def same(one, two):
    assert differences(snapshot(one), snapshot(two), same_filesystem=False) == []


def is_sparse(path):
    return path.stat().st_size > 1000 * 1000 and path.stat().st_blocks * 512 < 300 * 1000


def test_tar(mount, plain, tree):
    kit.need("tar")
    root = mount.path
    kit.run(*TAR, "-cf", root / "in.tar", "-C", plain, "tree", cwd=root)
    kit.run(*TAR, "-xpf", root / "in.tar", cwd=root)
    kit.run(*TAR, "-df", root / "in.tar", cwd=root)
    same(tree, root / "tree")
    assert is_sparse(root / "tree" / HOLES)
    kit.unchanged_after_cold_remount(mount, root)
    kit.run(*TAR, "-df", root / "in.tar", cwd=root)
    kit.run(*TAR, "-cf", root / "out.tar", "tree", cwd=root)
    kit.run(*TAR, "-df", root / "out.tar", "-C", plain, cwd=root)
    back = plain / "back"
    back.mkdir()
    kit.run(*TAR, "-xpf", root / "out.tar", "-C", back, cwd=root)
    same(tree, back / "tree")
    code, said = kit.attempt(*TAR, "-df", root / "in.tar", "-C", changed(root / "tree").parent, cwd=root)
    assert (code, said.splitlines()) == (1, ["tree/stdlib/json/decoder.py: Contents differ"])


def changed(tree):
    """One byte of one file becomes another one, and its time stays: what a comparison is worth."""
    path = tree / "stdlib" / "json" / "decoder.py"
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return tree


def test_rsync(mount, plain, tree):
    kit.need("rsync")
    root, back = mount.path, plain / "back"
    first = kit.run(*RSYNC, tree, root, cwd=root)
    assert len(first.splitlines()) > len(snapshot(tree)) // 2
    same(tree, root / "tree")
    assert is_sparse(root / "tree" / HOLES)
    assert kit.run(*RSYNC, tree, root, cwd=root) == "", "nothing is left to do"
    kit.unchanged_after_cold_remount(mount, root)
    assert kit.run(*RSYNC, "--delete", tree, root, cwd=root) == ""
    kit.run(*RSYNC, root / "tree", back, cwd=root)
    same(tree, back / "tree")
    assert kit.run(*RSYNC, "--delete", root / "tree", back, cwd=root) == ""
    (tree / "stdlib" / "new").write_text("made later\n")
    (tree / "oddities" / "fifo").unlink()
    changed(tree)
    said = kit.run(*RSYNC, "--delete", tree, root, cwd=root).splitlines()
    assert [line.split()[-1] for line in said if not line.endswith("/")] == [
        "tree/oddities/fifo",
        "tree/stdlib/new",
        "tree/stdlib/json/decoder.py",
    ]
    same(tree, root / "tree")
