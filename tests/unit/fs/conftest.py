"""Fixtures of the room. After every test the filesystem is checked: in memory, after closing, and after a remount."""

from collections.abc import AsyncIterator

import pytest

from tests.model.fs_checker import assert_consistent
from tests.unit.fs.harness import Mounted, new_mount


@pytest.fixture
async def mounted() -> AsyncIterator[Mounted]:
    """An empty filesystem without quota."""
    mount = await new_mount()
    yield mount
    if mount.checked:
        mount.check()
        await mount.fs.close()
        assert_consistent(mount.engine.durable_rows(), orphans_allowed=mount.options.read_only)
