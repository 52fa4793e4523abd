"""Making a filesystem, and finding one."""

import stat

import pytest

from tests.unit.fs.harness import Mounted, SteppingWorld, fails, new_mount
from zerofs.errors import CorruptionError, NoVolumeError, UnsupportedFormatError
from zerofs.fs.filesystem import Filesystem
from zerofs.fs.format.keys import COUNTERS_KEY, SUPERBLOCK_KEY, inode_key
from zerofs.fs.format.records import Superblock, encode_superblock
from zerofs.fs.options import FilesystemOptions
from zerofs.testing.engine import FakeEngine


async def test_a_new_filesystem_has_a_root() -> None:
    mount = await new_mount(root_uid=5, root_gid=6)
    root = await mount.fs.getattr(1)
    assert (root.mode, root.uid, root.gid, root.nlink) == (stat.S_IFDIR | 0o755, 5, 6, 2)
    assert await mount.list("/") == {}


async def test_the_root_is_made_once_only(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    before = await mounted.fs.getattr(1)
    await mounted.remount(root_uid=77)
    assert await mounted.fs.getattr(1) == before
    assert list(await mounted.list("/")) == [b"d"]


async def test_a_filesystem_that_was_never_synced_is_made_again() -> None:
    mount = await new_mount()
    await mount.remount(crash=True)
    assert await mount.list("/") == {}


async def test_a_read_only_mount_makes_nothing() -> None:
    engine = FakeEngine()
    with pytest.raises(NoVolumeError):
        await Filesystem.mount(engine, FilesystemOptions(read_only=True), SteppingWorld())
    assert engine.rows() == {}


@pytest.mark.parametrize("superblock", [Superblock(0, version=2), Superblock(0, features=1)])
async def test_a_newer_format_is_refused(mounted: Mounted, superblock: Superblock) -> None:
    await mounted.fs.close()
    mounted.checked = False
    mounted.engine.replace(SUPERBLOCK_KEY, encode_superblock(superblock))
    with pytest.raises(UnsupportedFormatError):
        await mounted.mount()


@pytest.mark.parametrize("superblock", [Superblock(0, version=0), Superblock(0, chunk_size=65536)])
async def test_a_senseless_superblock_is_corruption(mounted: Mounted, superblock: Superblock) -> None:
    await mounted.fs.close()
    mounted.checked = False
    mounted.engine.replace(SUPERBLOCK_KEY, encode_superblock(superblock))
    with pytest.raises(CorruptionError):
        await mounted.mount()


@pytest.mark.parametrize("key", [SUPERBLOCK_KEY, COUNTERS_KEY, inode_key(1)])
async def test_a_missing_first_row_is_corruption_never_a_new_filesystem(mounted: Mounted, key: bytes) -> None:
    await mounted.fs.close()
    mounted.checked = False
    mounted.engine.replace(key, None)
    before = mounted.engine.rows()
    with pytest.raises(CorruptionError):
        await mounted.mount()
    assert mounted.engine.rows() == before


async def test_a_second_mount_of_a_running_engine_adopts_its_live_rows() -> None:
    mount = await new_mount()
    await mount.write_file("/a", b"1")
    await mount.mount()
    assert await mount.read_file("/a") == b"1"
    await mount.write_file("/b", b"2")
    mount.check()


async def test_a_closed_engine_is_an_input_output_error(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    mounted.checked = False
    mounted.engine.close()
    with fails("EIO"):
        await mounted.mkdir("/e")
    with fails("EIO"):
        await mounted.fs.sync()
