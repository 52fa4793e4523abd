"""getxattr, setxattr, listxattr, removexattr."""

import os

import pytest

from tests.unit.fs.harness import ALICE, CAROL, ROOT_CALLER, Mounted, fails


async def test_they_are_kept(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f")
    names = {b"user.b": b"", b"user.a": os.urandom(65536), b"trusted.x": b"1", b"security.selinux": b"ctx"}
    before = mounted.world.time_ns
    for name, value in names.items():
        await mounted.fs.setxattr(ROOT_CALLER, inode, name, value)
    assert (await mounted.look("/f")).ctime_ns > before >= (await mounted.look("/f")).mtime_ns
    for _ in range(2):
        assert await mounted.fs.listxattr(ROOT_CALLER, inode) == sorted(names)
        for name, value in names.items():
            assert await mounted.fs.getxattr(ROOT_CALLER, inode, name) == value
        await mounted.remount()
    await mounted.fs.removexattr(ROOT_CALLER, inode, b"user.b")
    with fails("ENODATA"):
        await mounted.fs.getxattr(ROOT_CALLER, inode, b"user.b")
    with fails("ENODATA"):
        await mounted.fs.removexattr(ROOT_CALLER, inode, b"user.b")
    assert await mounted.fs.listxattr(ROOT_CALLER, inode) == sorted(names.keys() - {b"user.b"})


async def test_flags(mounted: Mounted) -> None:
    inode = await mounted.mkdir("/d")
    set_ = mounted.fs.setxattr
    with fails("ENODATA"):
        await set_(ROOT_CALLER, inode, b"user.a", b"1", os.XATTR_REPLACE)
    await set_(ROOT_CALLER, inode, b"user.a", b"1", os.XATTR_CREATE)
    with fails("EEXIST"):
        await set_(ROOT_CALLER, inode, b"user.a", b"2", os.XATTR_CREATE)
    with fails("ENODATA"):
        await set_(ROOT_CALLER, inode, b"user.b", b"1", os.XATTR_REPLACE)
    await set_(ROOT_CALLER, inode, b"user.a", b"3", os.XATTR_REPLACE)
    with fails("EINVAL"):
        await set_(ROOT_CALLER, inode, b"user.a", b"4", 3)
    assert await mounted.fs.getxattr(ROOT_CALLER, inode, b"user.a") == b"3"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (b"", "ERANGE"),
        (b"user." + b"x" * 251, "ERANGE"),
        (b"user.", "EINVAL"),
        (b"user.a\0b", "EINVAL"),
        (b"user", "EOPNOTSUPP"),
        (b"system.posix_acl_access", "EOPNOTSUPP"),
        (b"system.posix_acl_default", "EOPNOTSUPP"),
        (b"btrfs.compression", "EOPNOTSUPP"),
    ],
)
async def test_names(mounted: Mounted, name: bytes, error: str) -> None:
    inode = await mounted.write_file("/f")
    for work in (
        mounted.fs.setxattr(ROOT_CALLER, inode, name, b"1"),
        mounted.fs.getxattr(ROOT_CALLER, inode, name),
        mounted.fs.removexattr(ROOT_CALLER, inode, name),
    ):
        with fails(error):
            await work
    await mounted.fs.setxattr(ROOT_CALLER, inode, b"user." + b"x" * 250, b"longest")


async def test_sizes(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f")
    with fails("E2BIG"):
        await mounted.fs.setxattr(ROOT_CALLER, inode, b"user.a", bytes(65537))
    for index in range(256):
        await mounted.fs.setxattr(ROOT_CALLER, inode, b"user.%0250d" % index, b"")
    with fails("ENOSPC"):
        await mounted.fs.setxattr(ROOT_CALLER, inode, b"user.a", b"")
    await mounted.fs.setxattr(ROOT_CALLER, inode, b"user.%0250d" % 7, b"again")
    assert len(await mounted.fs.listxattr(ROOT_CALLER, inode)) == 256
    await mounted.unlink("/f")
    assert not any(b"user." in key for key in mounted.engine.rows())


async def test_permissions(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", mode=0o600)
    await mounted.change("/f", uid=ALICE.uid)
    await mounted.fs.setxattr(ALICE, inode, b"user.a", b"1")
    await mounted.fs.setxattr(ROOT_CALLER, inode, b"trusted.t", b"1")
    with fails("EACCES"):
        await mounted.fs.getxattr(CAROL, inode, b"user.a")
    with fails("EACCES"):
        await mounted.fs.removexattr(CAROL, inode, b"user.a")
    with fails("EPERM"):
        await mounted.fs.setxattr(ALICE, inode, b"trusted.a", b"1")
    with fails("EPERM"):
        await mounted.fs.removexattr(ALICE, inode, b"trusted.t")
    with fails("ENODATA"):
        await mounted.fs.getxattr(ALICE, inode, b"trusted.t")
    assert await mounted.fs.listxattr(ALICE, inode) == [b"user.a"]
    link = await mounted.symlink("/l", b"f")
    with fails("EPERM"):
        await mounted.fs.setxattr(ROOT_CALLER, link, b"user.a", b"1")
    await mounted.fs.setxattr(ROOT_CALLER, link, b"trusted.a", b"1")


async def test_the_common_questions_cost_no_read(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f")
    await mounted.remount()
    await mounted.look("/f")
    mounted.engine.calls.clear()
    for name in (b"security.capability", b"user.a"):
        with fails("ENODATA"):
            await mounted.fs.getxattr(ROOT_CALLER, inode, name)
    assert await mounted.fs.listxattr(ROOT_CALLER, inode) == []
    await mounted.fs.setxattr(ROOT_CALLER, inode, b"user.a", b"1")
    with fails("ENODATA"):
        await mounted.fs.getxattr(ROOT_CALLER, inode, b"security.capability")
    assert mounted.engine.calls == []


async def test_capabilities_go_with_a_change_of_contents_or_owner(mounted: Mounted) -> None:
    inode = await mounted.write_file("/f", b"x", 0o777)
    await mounted.fs.setxattr(ROOT_CALLER, inode, b"user.stays", b"1")

    async def gives_up(work: str) -> bool:
        await mounted.fs.setxattr(ROOT_CALLER, inode, b"security.capability", b"cap")
        await mounted.remount()
        assert await mounted.fs.getxattr(ROOT_CALLER, inode, b"security.capability") == b"cap"
        if work.startswith("write"):
            caller = ROOT_CALLER if "root" in work else ALICE
            handle = await mounted.fs.open(caller, inode, os.O_RDWR)
            await mounted.fs.write(handle, 0, b"y")
            await mounted.fs.release(handle)
        elif work == "chown":
            await mounted.change("/f", uid=5)
        elif work == "truncate":
            await mounted.change("/f", ALICE, size_bytes=0)
        else:
            await mounted.change("/f", mode=0o777)
        names = await mounted.fs.listxattr(ROOT_CALLER, inode)
        assert b"user.stays" in names
        mounted.check()
        return b"security.capability" not in names

    results = {work: await gives_up(work) for work in ("write", "write by root", "chown", "truncate", "chmod")}
    assert results == {"write": True, "write by root": False, "chown": True, "truncate": True, "chmod": False}


async def test_unknown_inodes(mounted: Mounted) -> None:
    for work in (
        mounted.fs.setxattr(ROOT_CALLER, 999, b"user.a", b"1"),
        mounted.fs.getxattr(ROOT_CALLER, 999, b"user.a"),
        mounted.fs.listxattr(ROOT_CALLER, 999),
        mounted.fs.removexattr(ROOT_CALLER, 999, b"user.a"),
    ):
        with fails("ESTALE"):
            await work
