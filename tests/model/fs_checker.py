"""The filesystem's checker over a table of rows, as tests have one: complaints as text, or an AssertionError."""

import os
from collections.abc import Mapping

from zerofs.fs.checker import Checker


def complaints(raw: Mapping[bytes, bytes], *, orphans_allowed: bool) -> list[str]:
    """What is wrong; empty if nothing. After a remount no orphans are allowed [15]."""
    checker = Checker()
    found = []
    for prefix in (b"meta", b"chunk"):
        for key in sorted(key for key in raw if key.startswith(prefix)):
            found += checker.row(key, raw[key])
    strangers = [f"{key!r} is no row of a filesystem" for key in raw if not key.startswith((b"meta", b"chunk"))]
    found += checker.finish(orphans_allowed=orphans_allowed)
    return [*map(str, found), *strangers]


def assert_consistent(raw: Mapping[bytes, bytes], *, orphans_allowed: bool = False) -> None:
    """Raise AssertionError with everything that is wrong."""
    problems = complaints(raw, orphans_allowed=orphans_allowed)
    assert not problems, os.linesep.join(["the filesystem is inconsistent:", *problems])
