"""Rows as `zerofs debug` shows them: keys and structure always, contents only when they are asked for."""

from typing import Any

from zerofs.errors import CorruptionError
from zerofs.fs.format.keys import Key, Kind, decode_key
from zerofs.fs.format.records import (
    Inode,
    decode_counters,
    decode_dentry,
    decode_dirscan,
    decode_inode,
    decode_superblock,
)
from zerofs.lsm.format.pointer import IN_WAL, Pointer, decode_pointer
from zerofs.lsm.format.register import REGISTERS, decode_register, parse_back_reference, parse_register_key
from zerofs.lsm.format.rows import DELETE, POINTER, Row
from zerofs.lsm.format.trees import SPACE_PREFIX

_INODE_FIELDS = (
    "mode", "uid", "gid", "nlink", "atime_ns", "mtime_ns", "ctime_ns", "btime_ns", "xattr_list_size", "size",
    "allocated", "parent", "entries", "next_cookie", "rdev",
)  # fmt: skip


def text(data: bytes) -> str:
    """Bytes that are mostly text: a name."""
    return data.decode("utf-8", "backslashreplace")


def describe_key(key: bytes) -> dict[str, Any]:
    """A key of any tree, taken apart; in hexadecimal when it is of no known form."""
    try:
        if key.startswith(REGISTERS[0]):
            return {"row": "register", "sst": "{:010d}-{:012d}".format(*parse_register_key(key))}
        if key.startswith(SPACE_PREFIX):
            offset, other = parse_back_reference(key)
            return {"row": "back-reference", "offset": offset, "key": describe_key(other)}
        return _fs_key(decode_key(key))
    except CorruptionError:
        return {"row": "unknown", "key": key.hex()}


def describe_row(row: Row, *, values: bool) -> dict[str, Any]:
    """A row. `values`: also file contents, link targets and attributes."""
    key, kind, value = row
    described = describe_key(key)
    if kind == DELETE:
        return described | {"deleted": True}
    try:
        if kind == POINTER:
            return described | {"pointer": describe_pointer(decode_pointer(value))}
        if key.startswith(REGISTERS[0]):
            return described | decode_register(value)._asdict()
        if key.startswith(SPACE_PREFIX):
            return described
        return described | _fs_value(decode_key(key), key, value, values=values)
    except CorruptionError as error:
        return described | {"damaged": str(error)}


def describe_pointer(pointer: Pointer) -> dict[str, Any]:
    """Where a frame lies. In a WAL object the offset counts from the start of its frames."""
    return {
        "object": pointer.object_name,
        "in_wal": pointer.holder == IN_WAL,
        "offset": pointer.offset,
        "length": pointer.length,
        "size": pointer.size,
        "nonce": pointer.nonce.hex(),
    }


def _fs_key(key: Key) -> dict[str, Any]:
    described: dict[str, Any] = {"row": key.kind.value}
    if key.kind not in (Kind.SUPERBLOCK, Kind.COUNTERS):
        described["inode"] = key.inode
    if key.kind is Kind.CHUNK:
        described["chunk"] = key.number
    if key.kind is Kind.DIRSCAN:
        described["cookie"] = key.number
    if key.name:
        described["name"] = text(key.name)
    return described


def _fs_value(key: Key, raw: bytes, value: bytes, *, values: bool) -> dict[str, Any]:
    if key.kind is Kind.SUPERBLOCK:
        return dict(decode_superblock(value)._asdict())
    if key.kind is Kind.COUNTERS:
        counters = decode_counters(value)
        return {name: getattr(counters, name) for name in ("next_inode", "used_bytes", "used_inodes")}
    if key.kind is Kind.INODE:
        return _inode(decode_inode(key.inode, raw, value), values=values)
    if key.kind is Kind.DENTRY:
        entry = decode_dentry(value)
        return {"leads_to": entry.inode, "cookie": entry.cookie, "kind": entry.kind}
    if key.kind is Kind.DIRSCAN:
        inode, kind, name = decode_dirscan(value)
        return {"leads_to": inode, "kind": kind, "name": text(name)}
    if key.kind is Kind.ORPHAN:
        return {}
    return {"size": len(value)} | ({"value": value.hex()} if values else {})


def _inode(node: Inode, *, values: bool) -> dict[str, Any]:
    described: dict[str, Any] = {name: getattr(node, name) for name in _INODE_FIELDS}
    described["mode"] = f"{node.mode:o}"
    described["content_size"] = len(node.content)
    return described | ({"content": node.content.hex()} if values and node.content else {})
