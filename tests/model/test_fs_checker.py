"""The checker finds what it is there for: one damage for each invariant."""

import stat
from collections.abc import Callable

import pytest

from tests.model.fs_checker import assert_consistent, complaints
from tests.unit.fs.harness import ROOT_CALLER, C, Mounted, new_mount
from zerofs.fs.format import keys, records
from zerofs.fs.format.records import Counters, Dentry, Inode, decode_inode

Rows = dict[bytes, bytes]


async def healthy() -> tuple[Mounted, Rows]:
    """Inode 2 = /d, 3 = /d/e, 4 = /f (three chunks, xattr, two names), 5 = an orphan."""
    mount = await new_mount()
    await mount.mkdir("/d")
    await mount.mkdir("/d/e")
    await mount.write_file("/f", b"x" * (2 * C + 5))
    await mount.link("/f", "/d/g")
    await mount.fs.setxattr(ROOT_CALLER, 4, b"user.a", b"1")
    await mount.fs.mknod(ROOT_CALLER, 1, b"o", 0o644, 0)
    await mount.unlink("/o")
    return mount, mount.engine.rows()


def edit(rows: Rows, number: int, **changes: object) -> None:
    key = keys.inode_key(number)
    node = decode_inode(number, key, rows[key])
    for name, value in changes.items():
        setattr(node, name, value)
    rows[key] = node.encode()


def add(rows: Rows, number: int, **changes: object) -> None:
    key = keys.inode_key(number)
    rows[key] = Inode(number, key, mode=stat.S_IFREG, uid=0, gid=0, now_ns=0).encode()
    edit(rows, number, **changes)


def set_counters(rows: Rows, **changes: int) -> None:
    counters = records.decode_counters(rows[keys.COUNTERS_KEY])
    values = {name: getattr(counters, name) for name in Counters.__slots__}
    rows[keys.COUNTERS_KEY] = Counters(**{**values, **changes}).encode()


def name(rows: Rows, directory: int, what: bytes, dentry: Dentry) -> None:
    rows[keys.dentry_key(directory, what)] = records.encode_dentry(dentry)
    rows[keys.dirscan_key(directory, dentry.cookie)] = records.encode_dirscan(dentry.inode, dentry.kind, what)


DAMAGES: dict[str, tuple[str, Callable[[Rows], object]]] = {
    "entry count": ("[1]", lambda rows: edit(rows, 2, entries=7)),
    "entry to nowhere": ("[2]", lambda rows: rows.pop(keys.inode_key(3))),
    "unreachable inode": ("[3]", lambda rows: add(rows, 6)),
    "used bytes": ("[4]", lambda rows: set_counters(rows, used_bytes=1)),
    "used inodes": ("[4]", lambda rows: set_counters(rows, used_inodes=1)),
    "no counters": ("missing", lambda rows: rows.pop(keys.COUNTERS_KEY)),
    "link count": ("[5]", lambda rows: edit(rows, 4, nlink=3)),
    "directory link count": ("[6]", lambda rows: edit(rows, 2, nlink=2)),
    "orphan mark of a live inode": ("[7]", lambda rows: rows.update({keys.orphan_key(4): b"\1"})),
    "unmarked orphan": ("[7]", lambda rows: rows.pop(keys.orphan_key(5))),
    "orphan mark of nothing": ("[7]", lambda rows: rows.update({keys.orphan_key(99): b"\1"})),
    "chunk beyond the end": ("[8]", lambda rows: rows.update({keys.chunk_key(4, 3): b"x"})),
    "chunk longer than the file": ("[8]", lambda rows: rows.update({keys.chunk_key(4, 2): b"x" * 6})),
    "missing chunk": ("[8]", lambda rows: rows.pop(keys.chunk_key(4, 1))),
    "chunk count": ("[8]", lambda rows: edit(rows, 4, allocated=2)),
    "zero chunk": ("all zeros", lambda rows: rows.update({keys.chunk_key(4, 1): bytes(C)})),
    "chunk of a small file": ("[8]", lambda rows: (add(rows, 6), rows.update({keys.chunk_key(6, 0): b"x"}))),
    "chunk of nobody": ("[9]", lambda rows: rows.update({keys.chunk_key(99, 0): b"x"})),
    "next inode": ("[10]", lambda rows: set_counters(rows, next_inode=5)),
    "name without cookie": ("[11]", lambda rows: rows.pop(keys.dirscan_key(1, 3))),
    "cookie without name": ("[11]", lambda rows: rows.pop(keys.dentry_key(1, b"d"))),
    "kind": ("[12]", lambda rows: name(rows, 1, b"d", Dentry(2, 3, 8))),
    "entry of a dead directory": ("[13]", lambda rows: name(rows, 99, b"x", Dentry(4, 3, 8))),
    "entry of a file": ("[13]", lambda rows: name(rows, 4, b"x", Dentry(4, 3, 8))),
    "next cookie": ("[14]", lambda rows: edit(rows, 1, next_cookie=4)),
    "low cookie": ("[14]", lambda rows: name(rows, 1, b"z", Dentry(4, 2, 8))),
    "orphans after a restart": ("[15]", lambda rows: None),
    "parent": ("says", lambda rows: edit(rows, 3, parent=1)),
    "parent of the root": ("root's parent", lambda rows: edit(rows, 1, parent=2)),
    "two names of a directory": ("two names", lambda rows: name(rows, 1, b"z", Dentry(3, 9, 4))),
    "xattr size": ("xattr", lambda rows: edit(rows, 4, xattr_list_size=1)),
    "xattr of nobody": ("[9]", lambda rows: rows.update({keys.xattr_key(99, b"user.a"): b""})),
    "capability": ("capability", lambda rows: edit(rows, 4, flags=1)),
    "no root": ("[2]", lambda rows: rows.pop(keys.inode_key(1))),
    "no superblock": ("superblock", lambda rows: rows.pop(keys.SUPERBLOCK_KEY)),
    "row that is none": ("[16]", lambda rows: rows.update({keys.inode_key(4): b"?"})),
    "key that is none": ("[16]", lambda rows: rows.update({b"meta\2?": b""})),
    "orphan mark of another form": ("[16]", lambda rows: rows.update({keys.orphan_key(5): b"\2"})),
}


async def test_a_healthy_filesystem_has_nothing_to_complain_of() -> None:
    _, rows = await healthy()
    assert_consistent(rows, orphans_allowed=True)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_found(damage: str) -> None:
    _, rows = await healthy()
    said, do = DAMAGES[damage]
    do(rows)
    found = complaints(rows, orphans_allowed=said != "[15]")
    assert any(said in line for line in found), found
