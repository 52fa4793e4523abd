"""On whose behalf a request runs."""

import os

from zerofs.frontend.fuse import callers as callers_module
from zerofs.frontend.fuse.callers import Callers, supplementary_groups


def request(uid=1, gid=2, pid=3, umask=0o22):
    return uid, gid, pid, umask


def test_the_caller_was_checked_by_the_kernel():
    caller = Callers()(*request())
    assert (caller.uid, caller.gid, caller.pid, caller.umask, caller.checked) == (1, 2, 3, 0o22, True)


def test_a_caller_is_made_once_and_not_mixed_up():
    callers = Callers()
    first = callers(*request())
    assert callers(*request()) is first
    for other in (request(uid=9), request(gid=9), request(pid=9), request(umask=9)):
        assert callers(*other) is not first


def test_callers_are_bounded():
    callers = Callers()
    for pid in range(10 * callers_module._CALLERS_KEPT):
        assert callers(*request(pid=pid)).pid == pid
    assert len(callers._known) <= callers_module._CALLERS_KEPT


def test_groups_are_read_when_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(callers_module, "supplementary_groups", lambda pid: asked.append(pid) or frozenset({pid}))
    caller = Callers()(*request(pid=77))
    assert asked == []
    assert caller.groups() == {77}
    assert caller.groups() == {77}
    assert asked == [77, 77]


def test_groups_of_this_process():
    assert supplementary_groups(os.getpid()) == set(os.getgroups())


def test_groups_of_nobody():
    assert supplementary_groups(2**30) == frozenset()
