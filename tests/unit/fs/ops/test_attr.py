"""getattr, setattr, access."""

import os
import stat

import pytest

from tests.unit.fs.harness import ALICE, BOB, CAROL, ROOT_CALLER, C, Mounted, fails
from zerofs.fs.access import Caller
from zerofs.fs.attributes import AttributeChanges
from zerofs.units import NS_PER_S


async def owned(mounted: Mounted, path: str = "/f", mode: int = 0o644, data: bytes = b"data") -> int:
    """A file of Alice's with a group that is also Bob's."""
    inode = await mounted.write_file(path, data)
    await mounted.change(path, uid=ALICE.uid, gid=3000)
    await mounted.change(path, mode=mode)
    return inode


async def test_nothing_asked_nothing_done(mounted: Mounted) -> None:
    await owned(mounted)
    before = await mounted.look("/f")
    assert await mounted.change("/f", CAROL) == before
    assert await mounted.look("/f") == before


async def test_everything_in_one_commit(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x" * (3 * C))
    commits = []
    original = mounted.engine.commit
    mounted.engine.commit = lambda rows, ranges=(): (commits.append(rows), original(rows, ranges))
    changes = AttributeChanges(mode=0o6711, uid=5, gid=6, size_bytes=C + 1, atime_ns=1, mtime_ns=-2)
    found = await mounted.fs.setattr(ROOT_CALLER, inode, changes)
    assert len(commits) == 1
    assert (stat.S_IMODE(found.mode), found.uid, found.gid, found.size_bytes) == (0o6711, 5, 6, C + 1)
    assert (found.atime_ns, found.mtime_ns) == (1, -2)
    mounted.engine.commit = original
    await mounted.remount()
    assert await mounted.look("/f") == found


async def test_refused_means_nothing_is_changed(mounted: Mounted) -> None:
    await owned(mounted)
    before = await mounted.look("/f")
    with fails("EPERM"):
        await mounted.change("/f", ALICE, mode=0o600, size_bytes=0, uid=BOB.uid)
    with fails("EFBIG"):
        await mounted.change("/f", ALICE, mode=0o600, size_bytes=2**63)
    assert await mounted.look("/f") == before
    assert await mounted.read_file("/f") == b"data"


async def test_chmod(mounted: Mounted) -> None:
    await owned(mounted)
    for caller in (BOB, CAROL):
        with fails("EPERM"):
            await mounted.change("/f", caller, mode=0o777)
    before = mounted.world.time_ns
    found = await mounted.change("/f", ALICE, mode=0o7777)
    assert found.mode == stat.S_IFREG | 0o7777
    assert found.ctime_ns > before > found.mtime_ns
    await mounted.change("/f", gid=99)
    assert stat.S_IMODE((await mounted.change("/f", ALICE, mode=0o2755)).mode) == 0o755
    assert stat.S_IMODE((await mounted.change("/f", ROOT_CALLER, mode=0o2755)).mode) == 0o2755
    trusted = Caller(uid=CAROL.uid, gid=CAROL.gid, checked=True)
    assert stat.S_IMODE((await mounted.change("/f", trusted, mode=0o600)).mode) == 0o600


async def test_chown(mounted: Mounted) -> None:
    await owned(mounted)
    found = await mounted.change("/f", ALICE, gid=ALICE.gid)
    assert found.gid == ALICE.gid
    for caller, changes in ((ALICE, {"uid": BOB.uid}), (ALICE, {"gid": BOB.gid}), (BOB, {"gid": 3000})):
        with fails("EPERM"):
            await mounted.change("/f", caller, **changes)
    found = await mounted.change("/f", uid=2**32 - 2, gid=2**32 - 2)
    assert (found.uid, found.gid) == (2**32 - 2, 2**32 - 2)


@pytest.mark.parametrize(("mode", "after"), [(0o6755, 0o755), (0o2745, 0o2745), (0o4700, 0o700)])
async def test_chown_takes_privileges_of_programs_also_for_root(mounted: Mounted, mode: int, after: int) -> None:
    await owned(mounted, mode=mode)
    await mounted.change("/f", ROOT_CALLER, uid=5)
    assert stat.S_IMODE((await mounted.look("/f")).mode) == after


async def test_chown_leaves_directories_alone(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    await mounted.change("/d", mode=0o6755)
    await mounted.change("/d", uid=5, gid=5)
    assert stat.S_IMODE((await mounted.look("/d")).mode) == 0o6755


async def test_an_explicit_mode_wins_over_clearing(mounted: Mounted) -> None:
    await owned(mounted)
    found = await mounted.change("/f", ROOT_CALLER, uid=5, mode=0o6755)
    assert stat.S_IMODE(found.mode) == 0o6755


async def test_truncate_takes_privileges_except_from_root(mounted: Mounted) -> None:
    await owned(mounted, mode=0o6777)
    await mounted.change("/f", ROOT_CALLER, size_bytes=3)
    assert stat.S_IMODE((await mounted.look("/f")).mode) == 0o6777
    await mounted.change("/f", BOB, size_bytes=2)
    assert stat.S_IMODE((await mounted.look("/f")).mode) == 0o777


async def test_times(mounted: Mounted) -> None:
    await owned(mounted)
    for value in (0, -1, -(10**18), 2**62, 1_234_567_890_123_456_789):
        found = await mounted.change("/f", ALICE, atime_ns=value, mtime_ns=value - 1)
        assert (found.atime_ns, found.mtime_ns) == (value, value - 1)
        assert found.ctime_ns == mounted.world.time_ns
    found = await mounted.change("/f", atime_ns=2**64, mtime_ns=-(2**64))
    assert (found.atime_ns, found.mtime_ns) == (2**63 - 1, -(2**63))
    await mounted.remount()
    assert await mounted.look("/f") == found


async def test_times_of_others(mounted: Mounted) -> None:
    await owned(mounted, mode=0o664)
    with fails("EPERM"):
        await mounted.change("/f", BOB, atime_ns=5)
    with fails("EPERM"):
        await mounted.change("/f", BOB, atime_ns=5, mtime_now=True)
    found = await mounted.change("/f", BOB, atime_now=True, mtime_now=True)
    assert found.atime_ns == found.mtime_ns == found.ctime_ns == mounted.world.time_ns
    with fails("EACCES"):
        await mounted.change("/f", CAROL, atime_now=True)


async def test_a_kernel_that_keeps_times_writes_them_back_for_anybody(mounted: Mounted) -> None:
    await owned(mounted)
    found = await mounted.change("/f", CAROL, mtime_ns=7 * NS_PER_S, ctime_ns=8 * NS_PER_S)
    assert (found.mtime_ns, found.ctime_ns) == (7 * NS_PER_S, 8 * NS_PER_S)


async def test_one_time_leaves_the_other(mounted: Mounted) -> None:
    await owned(mounted)
    before = await mounted.look("/f")
    found = await mounted.change("/f", ALICE, atime_ns=5)
    assert (found.atime_ns, found.mtime_ns) == (5, before.mtime_ns)
    found = await mounted.change("/f", ALICE, mtime_now=True)
    assert found.atime_ns == 5
    assert found.mtime_ns > before.mtime_ns


async def test_who_may_truncate(mounted: Mounted) -> None:
    inode = await owned(mounted, mode=0o640)
    with fails("EACCES"):
        await mounted.change("/f", BOB, size_bytes=0)
    handle = await mounted.open("/f", os.O_RDWR, ALICE)
    await mounted.change("/f", mode=0o000)
    with fails("EACCES"):
        await mounted.fs.setattr(BOB, inode, AttributeChanges(size_bytes=1))
    assert (await mounted.fs.setattr(BOB, inode, AttributeChanges(size_bytes=1), handle)).size_bytes == 1
    await mounted.fs.release(handle)
    reader = await mounted.open("/f", os.O_RDONLY)
    with fails("EINVAL"):
        await mounted.fs.setattr(ROOT_CALLER, inode, AttributeChanges(size_bytes=0), reader)
    await mounted.fs.release(reader)
    with fails("EBADF"):
        await mounted.fs.setattr(ROOT_CALLER, inode, AttributeChanges(size_bytes=0), reader)


async def test_what_has_no_size_to_set(mounted: Mounted) -> None:
    await mounted.mkdir("/d")
    await mounted.symlink("/l", b"x")
    await mounted.mknod("/p", stat.S_IFIFO | 0o600)
    for path, error in (("/d", "EISDIR"), ("/l", "EINVAL"), ("/p", "EINVAL")):
        with fails(error):
            await mounted.change(path, size_bytes=0)
    await mounted.write_file("/f")
    with fails("EINVAL"):
        await mounted.change("/f", size_bytes=-1)


async def test_truncate_sets_both_times_even_if_the_size_stays(mounted: Mounted) -> None:
    await mounted.write_file("/f", b"abc")
    for size in (3, 1, 5):
        before = mounted.world.time_ns
        found = await mounted.change("/f", size_bytes=size)
        assert found.mtime_ns == found.ctime_ns > before


async def test_access(mounted: Mounted) -> None:
    inode = await owned(mounted, mode=0o640)
    await mounted.fs.access(ALICE, inode, os.R_OK | os.W_OK)
    await mounted.fs.access(BOB, inode, os.R_OK)
    await mounted.fs.access(CAROL, inode, os.F_OK)
    for caller, mask in ((BOB, os.W_OK), (CAROL, os.R_OK), (ROOT_CALLER, os.X_OK)):
        with fails("EACCES"):
            await mounted.fs.access(caller, inode, mask)
    with fails("EINVAL"):
        await mounted.fs.access(ALICE, inode, 8)
    with fails("ESTALE"):
        await mounted.fs.access(ALICE, 999, 0)


async def test_access_on_a_read_only_mount(mounted: Mounted) -> None:
    await owned(mounted)
    await mounted.mknod("/p", stat.S_IFIFO | 0o666)
    await mounted.remount(read_only=True)
    file, fifo = (await mounted.look("/f")).inode, (await mounted.look("/p")).inode
    with fails("EROFS"):
        await mounted.fs.access(ROOT_CALLER, file, os.W_OK)
    await mounted.fs.access(ROOT_CALLER, fifo, os.W_OK)
    await mounted.fs.access(ROOT_CALLER, file, os.R_OK)


async def test_unknown_inodes(mounted: Mounted) -> None:
    with fails("ESTALE"):
        await mounted.fs.getattr(999)
    with fails("ESTALE"):
        await mounted.fs.setattr(ROOT_CALLER, 999, AttributeChanges(mode=0))
