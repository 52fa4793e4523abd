"""Mounting through the helper, with helpers of our own: what it is asked, and how it may fail."""

import os
import sys
import textwrap

import pytest

from zerofs import mounttable
from zerofs.errors import MountpointError
from zerofs.frontend.fuse.native import device
from zerofs.frontend.fuse.options import FuseOptions

SENDS = """
import os, socket, sys
open({notes!r}, "w").write("\\n".join(sys.argv[1:]))
with socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])) as socket_:
    socket.send_fds(socket_, [b"x"], [os.open("/dev/zero", os.O_RDONLY)])
"""
FAILS = "import sys; sys.exit('fusermount3: bad mount point')"
FORGETS = "pass"


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """A function that puts a program in the helper's place, for somebody who is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    def put(program):
        path = tmp_path / "fusermount3"
        path.write_text(f"#!{sys.executable}\n{textwrap.dedent(program)}")
        path.chmod(0o755)
        monkeypatch.setattr(mounttable, "find_tool", lambda name: str(path))

    return put


def test_the_helper_hands_over_a_connection(helper, tmp_path):
    notes = tmp_path / "notes"
    helper(SENDS.format(notes=str(notes)))
    options = FuseOptions(allow_other=True, read_only=True, fsname="a,b\\c\u00e9")
    descriptor = device.connect("/somewhere", options)
    try:
        assert os.read(descriptor, 3) == bytes(3)
        assert not os.get_blocking(descriptor)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)
    flag, words, dashes, path = notes.read_text().split("\n")
    assert (flag, dashes, path) == ("-o", "--", "/somewhere")
    assert words == "fsname=a\\,b\\\\c?,subtype=zerofs,nosuid,nodev,default_permissions,allow_other,ro"


@pytest.mark.parametrize(
    ("program", "message"), [(FAILS, "fusermount3: bad mount point"), (FORGETS, "fusermount3 refused")]
)
def test_a_helper_that_fails_is_told(helper, program, message):
    helper(program)
    with pytest.raises(MountpointError, match=f"cannot mount at /somewhere: {message}"):
        device.connect("/somewhere", FuseOptions())


def test_a_helper_that_hangs(helper, monkeypatch):
    monkeypatch.setattr(device, "_HELPER_TIMEOUT_S", 0.2)
    helper("import time; time.sleep(60)")
    with pytest.raises(MountpointError, match="TimeoutExpired"):
        device.connect("/somewhere", FuseOptions())


def test_a_helper_that_is_missing_or_cannot_be_run(helper, monkeypatch, tmp_path):
    helper(FORGETS)
    monkeypatch.setattr(mounttable, "find_tool", lambda name: None)
    with pytest.raises(MountpointError, match="fusermount3 is missing"):
        device.connect("/somewhere", FuseOptions())
    monkeypatch.setattr(mounttable, "find_tool", lambda name: str(tmp_path))
    with pytest.raises(MountpointError, match="PermissionError"):
        device.connect("/somewhere", FuseOptions())
