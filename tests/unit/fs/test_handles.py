"""Handles and lookup counts."""

import os

from tests.unit.fs.harness import fails
from zerofs.fs.format.records import Inode
from zerofs.fs.handles import Handles


def node(number: int = 7) -> Inode:
    return Inode(number, b"", mode=0o100644, uid=0, gid=0, now_ns=0)


def test_numbers_are_not_used_twice() -> None:
    handles = Handles()
    inode = node()
    first = handles.open(inode, os.O_RDWR, 5)
    assert handles.close(first) is inode
    second = handles.open(inode, os.O_RDONLY, 5)
    assert second != first
    assert handles.get(second).node is inode
    with fails("EBADF"):
        handles.get(first)
    with fails("EBADF"):
        handles.close(first)


def test_who_is_referenced() -> None:
    handles = Handles()
    inode = node()
    assert not handles.is_referenced(inode)
    number = handles.open(inode, os.O_RDWR, 0)
    handles.count_lookup(7)
    handles.count_lookup(7)
    assert not handles.forget(7, 1)
    assert handles.is_referenced(inode)
    assert handles.forget(7, 1)
    assert handles.is_referenced(inode)
    handles.close(number)
    assert not handles.is_referenced(inode)
    assert handles.forget(7, 1)


def test_failed_writes_mark_the_writers_of_that_inode() -> None:
    handles = Handles()
    one, two = node(1), node(2)
    writer = handles.get(handles.open(one, os.O_WRONLY, 0))
    reader = handles.get(handles.open(one, os.O_RDONLY, 0))
    other = handles.get(handles.open(two, os.O_RDWR, 0))
    handles.mark_failed(1, 28)
    handles.mark_failed(1, 5)
    assert (writer.error, reader.error, other.error) == (28, 0, 0)


def test_the_end() -> None:
    handles = Handles()
    inode = node()
    number = handles.open(inode, 0, 0)
    handles.count_lookup(7)
    handles.abandon()
    assert inode.handles == 0
    assert not handles.is_referenced(inode)
    with fails("EBADF"):
        handles.get(number)
