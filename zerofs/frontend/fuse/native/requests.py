"""Requests of the kernel, decoded. Pure: bytes in, tuples out; MalformedRequestError for anything that does not fit.

Each function takes what follows the header. Names come back as bytes of their own, data as a view into the buffer.
"""

from struct import Struct
from typing import Any, NamedTuple

from zerofs.errors import ZerofsError
from zerofs.frontend.fuse.native import protocol as p
from zerofs.frontend.fuse.native.protocol import Valid
from zerofs.fs.attributes import AttributeChanges
from zerofs.units import NS_PER_S


class MalformedRequestError(ZerofsError):
    """A message that the protocol does not know: too short, or without the NUL that ends a name."""


class Header(NamedTuple):
    """Who asks for what."""

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int


def header(message: memoryview) -> Header:
    """The header of a message that was read whole."""
    size = len(message)
    if size < p.IN_HEADER.size:
        raise MalformedRequestError(f"a request of {size} bytes has no whole header")
    length, opcode, unique, node, uid, gid, pid, _, _ = p.IN_HEADER.unpack_from(message)
    if length != size:
        raise MalformedRequestError(f"a request says that it has {length} bytes, but {size} were read")
    return Header(opcode, unique, node, uid, gid, pid)


def fields(layout: Struct, body: memoryview) -> tuple[Any, ...]:
    """The fixed part of a request."""
    if len(body) < layout.size:
        raise MalformedRequestError(f"{len(body)} bytes of a request where {layout.size} are needed")
    return layout.unpack_from(body)


def name(body: memoryview, start: int = 0) -> bytes:
    """The one name behind the fixed part."""
    found = bytes(body[start:])
    end = found.find(0)
    if end < 0:
        raise MalformedRequestError("a name in a request does not end")
    return found[:end]


def two_names(body: memoryview, start: int = 0) -> tuple[bytes, bytes]:
    """Two names, each with its NUL."""
    found = bytes(body[start:]).split(b"\0", 2)
    if len(found) < 3:
        raise MalformedRequestError("two names in a request do not end")
    return found[0], found[1]


def data(body: memoryview, start: int, size: int) -> memoryview:
    """So many bytes behind the fixed part: a view into the buffer."""
    if len(body) < start + size:
        raise MalformedRequestError(f"{len(body) - start} bytes of data where {size} were announced")
    return body[start : start + size]


def forgotten(body: memoryview) -> list[tuple[int, int]]:
    """Of a BATCH_FORGET: (node, lookups)."""
    count, _ = fields(p.BATCH_FORGET, body)
    listed = data(body, p.BATCH_FORGET.size, count * p.FORGET_ONE.size)
    return list(p.FORGET_ONE.iter_unpack(listed))


def value(body: memoryview) -> tuple[bytes, bytes, int]:
    """Of a SETXATTR: (name, value, flags)."""
    size, flags = fields(p.SETXATTR, body)
    called = name(body, p.SETXATTR.size)
    start = p.SETXATTR.size + len(called) + 1
    return called, bytes(data(body, start, size)), flags


def attribute_changes(body: memoryview) -> tuple[AttributeChanges, int | None, int]:
    """Of a SETATTR: what changes, the handle through which, if there is one, and whether privileges go (not 0)."""
    fixed = fields(p.SETATTR, body)
    valid, _, handle, size, _, atime_s, mtime_s, ctime_s = fixed[:8]
    atime_ns, mtime_ns, ctime_ns, mode, _, uid, gid, _ = fixed[8:]
    changes = AttributeChanges(
        mode=mode & 0o7777 if valid & Valid.MODE else None,
        uid=uid if valid & Valid.UID else None,
        gid=gid if valid & Valid.GID else None,
        size_bytes=size if valid & Valid.SIZE else None,
        atime_ns=atime_s * NS_PER_S + atime_ns if valid & Valid.ATIME and not valid & Valid.ATIME_NOW else None,
        mtime_ns=mtime_s * NS_PER_S + mtime_ns if valid & Valid.MTIME and not valid & Valid.MTIME_NOW else None,
        ctime_ns=ctime_s * NS_PER_S + ctime_ns if valid & Valid.CTIME else None,
        atime_now=bool(valid & Valid.ATIME_NOW),
        mtime_now=bool(valid & Valid.MTIME_NOW),
    )
    return changes, handle if valid & Valid.HANDLE else None, valid & Valid.KILL_SUIDGID
