"""The filesystem's checker over a table of rows, as tests have one: complaints as text, or an AssertionError."""

import os
from collections.abc import Mapping

from zerofs.fs.checker import Checker
from zerofs.fs.format.keys import CHUNK_RANGE, META_RANGE
from zerofs.fs.ports import Engine


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


async def rows_of(engine: Engine) -> dict[bytes, bytes]:
    """Everything that the engine holds, as bytes."""
    found: dict[bytes, bytes] = {}
    for start, stop in (META_RANGE, CHUNK_RANGE):
        while page := await engine.scan(start, stop, 100):
            keys = [key for key, _ in page]
            for key, value in zip(keys, await engine.multi_get(keys), strict=True):
                assert value is not None
                found[key] = bytes(value) if isinstance(value, bytes | memoryview) else value.encode()
            start = keys[-1] + b"\0"
    return found
