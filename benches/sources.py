"""What programs work on: a tree of text files, a git repository of it, an archive of it with a small C project.

Always the same for the same number of files. It lies outside of what is measured.
"""

import os
import random
import shutil
import subprocess

UNITS, FUNCTIONS = 40, 60
FILES_PER_DIRECTORY = 40
WORDS = 3000
GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in
       (("NAME", "bench"), ("EMAIL", "bench@localhost"), ("DATE", "2020-01-01T00:00:00Z"))},
}  # fmt: skip


class Sources:
    """Where each of them is, below one directory."""

    def __init__(self, directory):
        self.tree = directory / "tree"
        self.repository = directory / "repository"
        self.archive = directory / "archive.tar"
        self._project = directory / "project"

    def make(self, files):
        """All of it; the repository only where git is."""
        chance = random.Random(files)
        words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(2, 11))) for _ in range(WORDS)]
        for number in range(files):
            path = self.tree / f"{number // FILES_PER_DIRECTORY:03}" / f"file-{number:05}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            # A few hundred bytes to a few ten thousand, as in source trees.
            path.write_text(_text(chance, words, int(2 ** chance.uniform(8, 15))))
        self._make_project()
        if shutil.which("tar"):
            names = [self.tree.name, self._project.name]
            _run(["tar", "-cf", str(self.archive), "-C", str(self.tree.parent), *names])
        if shutil.which("git"):
            shutil.copytree(self.tree, self.repository)
            git = ["git", "-C", str(self.repository)]
            for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "everything"]):
                _run([*git, *arguments])

    def _make_project(self):
        self._project.mkdir(parents=True)
        header = "".join(f"int unit_{unit}(int);\n" for unit in range(UNITS))
        (self._project / "all.h").write_text(f"#include <stdio.h>\n#include <stdlib.h>\n{header}")
        for unit in range(UNITS):
            functions = "".join(
                f"static int f{index}(int x) {{ int s = {index}; while (x > s) {{ x = x / 2 + s; s++; }} return x; }}\n"
                for index in range(FUNCTIONS)
            )
            calls = " + ".join(f"f{index}(x)" for index in range(FUNCTIONS))
            text = f'#include "all.h"\n{functions}int unit_{unit}(int x) {{ return {calls}; }}\n'
            (self._project / f"unit_{unit}.c").write_text(text)
        calls = " + ".join(f"unit_{unit}(1)" for unit in range(UNITS))
        (self._project / "main.c").write_text(f'#include "all.h"\nint main(void) {{ return ({calls}) == 0; }}\n')
        objects = " ".join(["main.o", *(f"unit_{unit}.o" for unit in range(UNITS))])
        (self._project / "Makefile").write_text(
            f"program: {objects}\n\tgcc -o $@ $^\n%.o: %.c all.h\n\tgcc -c -o $@ $<\n"
        )


def _text(chance, words, size):
    lines, length = [], 0
    while length < size:
        lines.append(" ".join(chance.choices(words, k=chance.randint(3, 12))))
        length += len(lines[-1]) + 1
    return "\n".join(lines) + "\n"


def _run(command):
    subprocess.run(command, check=True, env=os.environ | GIT_ENVIRONMENT, stdin=subprocess.DEVNULL)
