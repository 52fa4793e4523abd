"""git: the same work on the mount and on a disk ends with the same commits, and nothing is ever dirty or damaged."""

import dataclasses
from pathlib import Path

import pytest

from tests.mount.hosts import REPOSITORY
from tests.programs import kit

pytestmark = kit.MARKS

COMMITS = 400
FILES = 60
BRANCHES = 8

ENVIRON = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "gc.auto",
    "GIT_CONFIG_VALUE_1": "0",
    "GIT_AUTHOR_NAME": "somebody",
    "GIT_AUTHOR_EMAIL": "somebody@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_NAME": "somebody",
    "GIT_COMMITTER_EMAIL": "somebody@example.org",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


@dataclasses.dataclass(frozen=True)
class Clone:
    """A working tree."""

    path: Path

    def git(self, *words: object) -> str:
        return kit.run("git", *words, cwd=self.path, environ=ENVIRON).strip()

    def commit(self, name: str, text: str) -> None:
        (self.path / name).parent.mkdir(exist_ok=True)
        (self.path / name).write_text(text)
        self.git("add", "--", name)
        self.git("commit", "-q", "-m", f"about {name}")

    def state(self) -> dict[str, str]:
        """What identifies everything that is reachable, and the working tree."""
        return {
            "refs": self.git("for-each-ref", "--format=%(refname) %(objectname)"),
            "head": self.git("rev-parse", "HEAD"),
            "history": self.git("log", "--all", "--stat", "--format=%H %T %s"),
            "index": self.git("ls-files", "--stage"),
        }

    def check(self) -> None:
        """Every object is sound, every file is as committed."""
        assert "missing" not in self.git("fsck", "--full", "--strict", "--no-dangling")
        assert self.git("status", "--porcelain", "--untracked-files=all") == ""
        self.git("diff", "--exit-code", "HEAD")


def history() -> str:
    """What `git fast-import` makes a repository of: many commits, branches that left at different times."""
    stream = []
    for number in range(1, COMMITS + 1):
        branch = "main" if number <= COMMITS // 2 or number % 2 else f"side-{number % BRANCHES}"
        text = "".join(f"line {line} of version {number if line == number % 40 else 0}\n" for line in range(40))
        message = f"change {number}"
        stream += [
            f"commit refs/heads/{branch}\nmark :{number}\n",
            f"committer somebody <somebody@example.org> {1_600_000_000 + number} +0000\n",
            f"data {len(message)}\n{message}\n",
            f"from :{COMMITS // 2}\n" if COMMITS // 2 < number <= COMMITS // 2 + BRANCHES and branch != "main" else "",
            f"M 100644 inline folder {number % 7}/file {number % FILES}\ndata {len(text)}\n{text}\n",
        ]
    return "".join(stream)


@pytest.fixture
def origin(plain):
    """A bare repository on a disk."""
    kit.need("git")
    path = plain / "origin.git"
    kit.run("git", "init", "-q", "--bare", "-b", "main", path, cwd=plain, environ=ENVIRON)
    kit.run("git", "fast-import", "--quiet", cwd=path, environ=ENVIRON, stdin=history())
    return path


def clone(origin: Path, target: Path) -> Clone:
    kit.run("git", "clone", "-q", "--no-local", origin, target, cwd=target.parent, environ=ENVIRON)
    return Clone(target)


def work(tree: Clone) -> dict[str, str]:
    """A day's work."""
    sides = tree.git("for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes/origin/side-*").split()
    assert len(sides) >= 3
    for side in sides:
        tree.git("checkout", "-q", side)
    tree.git("checkout", "-q", "-b", "topic", "main~30")
    for number in range(10):
        tree.commit(f"new/file {number}", f"{number}\n" * 1000)
    tree.git("rebase", "-q", "main")
    tree.git("checkout", "-q", "main")
    tree.git("merge", "-q", "--no-ff", "-m", "merge the topic", "topic")
    tree.git("merge", "-q", "-X", "ours", "-m", "merge a side", sides[0])
    tree.git("mv", "new/file 3", "renamed")
    tree.git("rm", "-q", "new/file 4")
    tree.git("commit", "-q", "-m", "rename and remove")
    (tree.path / "renamed").write_text("changed, to be put away\n")
    tree.git("stash", "push", "-q")
    tree.git("stash", "apply", "-q")
    tree.git("reset", "-q", "--hard", "main")
    tree.git("worktree", "add", "-q", tree.path.with_name("second"), "topic")
    tree.git("tag", "-a", "-m", "a tag", "v1")
    return tree.state()


def test_a_day_of_work(mount, plain, origin):
    expected = work(clone(origin, plain / "clone"))
    tree = clone(origin, mount.path / "clone")
    assert work(tree) == expected
    tree.check()
    Clone(mount.path / "second").check()
    tree.git("gc", "-q", "--aggressive", "--prune=now")
    assert len(list((tree.path / ".git" / "objects" / "pack").glob("*.pack"))) == 1
    tree.check()
    kit.unchanged_after_cold_remount(mount, mount.path)
    assert tree.state() == expected
    tree.check()
    tree.git("push", "-q", origin, "main:came-back")
    assert Clone(origin).git("rev-parse", "came-back") == tree.git("rev-parse", "main")
    Clone(origin).git("fsck", "--full", "--strict")


def test_this_repository(mount, plain):
    kit.need("git")
    if not (REPOSITORY / ".git").exists():
        pytest.skip("NOT TESTED: this is no clone of the repository")
    expected = clone(REPOSITORY, plain / "zerofs").state()
    tree = clone(REPOSITORY, mount.path / "zerofs")
    assert tree.state() == expected
    tree.check()
    root = tree.git("rev-list", "--max-parents=0", "HEAD").split()[-1]
    for commit in (root, "HEAD@{1}", "HEAD"):
        tree.git("checkout", "-q", commit)
        tree.check()
    tree.git("repack", "-q", "-a", "-d", "-f")
    mount.cold_remount()
    assert tree.state() | {"refs": ""} == expected | {"refs": ""}
    tree.check()
